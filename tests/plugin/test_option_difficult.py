"""``--iqa-selection difficult`` and ``--iqa-list``: chosen by experts, said in the results."""

from __future__ import annotations

import json

import pytest

OK, USAGE = 0, 4


def test_difficult_samples_are_judged_and_named(run, repository, rated):
    """Four of ten by two experts; the cell's name, the table and the notes say how."""
    result = run(
        "--iqa-ratings", str(rated), "--iqa-selection", "difficult", "--iqa-limit", "4",
        "--iqa-experts", "noise_sigma,blur_effect", "--iqa-embedder", "offline",
        "--iqa-out", "out", "-k", "nr-single",
    )  # fmt: skip
    assert result.ret == OK, result.stdout.str()
    result.stdout.re_match_lines([r".*ratings NR difficult +single +standard +4 ", r".*Div mean.*"])
    (row,) = json.loads((repository.path / "out/results.json").read_text())["rows"]
    assert (row["selection"], row["n"]) == ("difficult", 4)
    assert row["cell"] == "nr-single-standard-ratings-difficult"
    assert any("noise_sigma + blur_effect, features offline" in note for note in row["notes"])


def test_absent_clip_weights_are_one_line(run, rated, monkeypatch, tmp_path):
    """CLIP is never swapped for something else in silence."""
    pytest.importorskip("open_clip")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    result = run(
        "--iqa-ratings", str(rated), "--iqa-selection", "difficult",
        "--iqa-experts", "noise_sigma", "-k", "nr-single",
    )  # fmt: skip
    assert result.ret != OK
    assert "clip-vit-b-32" in result.stdout.str()
    assert "Traceback" not in result.stdout.str()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("models", "gpt4v * endpoint * gpt-4o *"),
        ("strategies", "chain_of_thought *"),
        ("experts", "psnr * scikit-image *"),
        ("sets", "builtin-color *"),
    ],
)
def test_lists_end_before_anything_is_collected(run, what, said):
    """One line a name, and nothing else happens."""
    result = run("--iqa-list", what)
    assert result.ret == OK
    result.stdout.fnmatch_lines([said])
    assert "collected" not in result.stdout.str()
