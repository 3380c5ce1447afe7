"""Experts as rivals: which are measured where, what is said of those that are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest

from iqa_checks import rivals
from iqa_checks.datasets import Difficult, StimulusSource
from iqa_checks.errors import StimuliAbsent, UsageError
from iqa_checks.settings import Settings, check


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Twelve noisy pictures with their ratings, chosen from by an expert that needs nothing."""
    for variable in ("TORCH_HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "empty"))
    draw = np.random.default_rng(0)
    clean = draw.integers(60, 190, (40, 48, 3)).astype(float)
    save(tmp_path / "clean.png", clean)
    lines = ["# scale: 1:5", "image,mos,reference"]
    for k in range(12):
        save(tmp_path / f"{k}.png", clean + draw.normal(0, 3 + 4 * k, clean.shape))
        lines.append(f"{k}.png,{5 - 0.3 * k:g},clean.png")
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
    source = StimulusSource(tmp_path / "cache", ratings=tmp_path / "own.csv", limit=6)
    how = Difficult(experts=("gmsd",), embedder="offline")
    return Settings("observer", source, difficult=how)


def save(path, pixels):
    PIL.Image.fromarray(np.clip(pixels.round(), 0, 255).astype(np.uint8)).save(path)


def changed(settings, **changes):
    return replace(settings, difficult=replace(settings.difficult, **changes))


def test_the_papers_experts_and_those_that_select(settings):
    """A named list is taken as it is, less what needs a reference where there is none."""
    assert rivals.rivals_of("ratings", "fr", settings) == rivals.RIVALS["fr"]
    nothing = changed(settings, experts=())
    assert rivals.rivals_of("SPAQ", "nr", nothing)[-2:] == ("maniqa", "liqe_mix")
    assert rivals.rivals_of("AGIQA-3K", "nr", nothing)[-1] == "qalign"
    named = replace(settings, rivals=("psnr", "piqe"))
    assert rivals.rivals_of("ratings", "fr", named) == ("psnr", "piqe")
    assert rivals.rivals_of("ratings", "nr", named) == ("piqe",)


def test_an_expert_is_no_rival_where_it_made_the_scores(settings):
    """The built-in colour differences are CIEDE2000's own."""
    nothing = changed(settings, experts=())
    assert "ciede2000" not in rivals.rivals_of("builtin-color", "difference", nothing)
    assert "ciede2000" in rivals.rivals_of("SPCD", "difference", nothing)
    assert nothing.choosing.experts_of("builtin-color", "difference") == ("psnr", "ssim")


def test_absent_weights_are_one_line_with_file_size_and_place(settings, tmp_path):
    said = rivals.absence("musiq", tmp_path / "weights")
    assert "\n" not in said
    assert "musiq_koniq_ckpt-e95806b9.pth (109 MB; https://huggingface.co/" in said
    assert said.endswith(f"into {tmp_path / 'weights'}")
    assert "--iqa-weights" in rivals.absence("musiq", None)
    assert rivals.absence("psnr", None) == ""


def test_absent_package_names_the_extra(monkeypatch):
    def absent(package):
        raise rivals.PackageNotFoundError(package)

    monkeypatch.setattr(rivals, "version", absent)
    said = "expert fsim needs the package piq: pip install 'iqa_checks[experts]'"
    assert rivals.absence("fsim", None) == said


def test_what_is_at_hand_is_measured_and_the_rest_is_said(settings):
    """No row for what is absent, and nothing in its place."""
    named = replace(settings, rivals=("psnr", "lpips", "gmsd"))
    measured = rivals.measure_experts("ratings", "fr", named)
    assert [row.name for row in measured.rows] == ["psnr", "gmsd"]
    assert all(row.srcc.value > 0.9 and row.n == 6 for row in measured.rows)
    assert [line.partition(" lacks")[0] for line in measured.absent] == ["expert lpips"]
    assert any("no opinion SD: treated as 0" in note for note in measured.notes)
    assert not measured.faults


def test_more_asked_than_there_is_takes_all_and_says_so(settings):
    wide = replace(settings, source=replace(settings.source, limit=150), rivals=("psnr",))
    measured = rivals.measure_experts("ratings", "nr", changed(wide, experts=("noise_sigma",)))
    assert measured.rows == ()  # psnr compares with a reference
    measured = rivals.measure_experts(
        "ratings", "nr", changed(replace(wide, rivals=("blur_effect",)), experts=("noise_sigma",))
    )
    assert measured.rows[0].n == 8  # 12 less 4 exemplars
    assert any("8 are there: all are taken" in note for note in measured.notes)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_no_number_is_a_failure_that_names_the_image(settings, monkeypatch, bad):
    """The other experts keep their rows."""
    real = rivals.score_stimuli

    def scored(stimuli, expert, **where):
        scores = real(stimuli, expert, **where)
        return np.where(np.arange(len(scores)) == 1, bad, scores) if expert == "ssim" else scores

    monkeypatch.setattr(rivals, "score_stimuli", scored)
    measured = rivals.measure_experts("ratings", "fr", replace(settings, rivals=("ssim", "psnr")))
    assert [row.name for row in measured.rows] == ["psnr"]
    (said,) = measured.faults
    assert said.startswith("expert ssim on ratings: 1 of 6 scores are not finite, ")
    assert ".png the first" in said


def test_a_constant_rival_is_undefined_and_a_fault(settings, monkeypatch):
    monkeypatch.setattr(rivals, "score_stimuli", lambda stimuli, _e, **_: np.ones(len(stimuli)))
    measured = rivals.measure_experts("ratings", "nr", replace(
        changed(settings, experts=("noise_sigma",)), rivals=("blur_effect",)
    ))  # fmt: skip
    assert measured.rows[0].srcc.value is None
    assert measured.faults == (
        "expert blur_effect on ratings: SRCC undefined (all 6 scores are equal)",
    )


def test_what_selects_is_absent(settings):
    """By default: the set is left out, with a line for each thing that is lacking."""
    paper = changed(settings, experts=(), embedder="")
    with pytest.raises(StimuliAbsent) as caught:
        rivals.difficult_samples("ratings", "fr", paper)
    first, *rest = str(caught.value).splitlines()
    assert "ratings: its difficult samples cannot be selected without clip-vit-b-32" in first
    assert [line.partition(" lacks")[0] for line in rest] == ["embedder clip-vit-b-32"]
    assert "605 MB" in rest[0]


def test_usual_experts_that_cannot_select_leave_the_set_out(settings, monkeypatch):
    """Named ones end the run: that is the user's to correct."""

    def flat(*_):
        raise UsageError("the expert gives 5 to all 12 stimuli")

    monkeypatch.setattr(rivals, "stimuli_for", flat)
    said = "ratings: its difficult samples cannot be selected by its usual experts: the expert"
    with pytest.raises(StimuliAbsent, match=said):
        rivals.difficult_samples("ratings", "nr", changed(settings, experts=()))
    with pytest.raises(UsageError, match="the expert gives 5"):
        rivals.difficult_samples("ratings", "nr", settings)


def test_without_diversity_no_features_are_needed(settings):
    samples = rivals.difficult_samples("ratings", "fr", changed(settings, lam=0.0, embedder=""))
    assert any("features none" in note for note in samples.notes)


def test_a_published_set_that_is_not_there_is_all_that_is_said(settings):
    """Weights for a set that nobody has are no news."""
    nowhere = replace(settings, source=replace(settings.source, ratings=None))
    measured = rivals.measure_experts("FR-KADID", "fr", changed(nowhere, experts=()))
    assert len(measured.absent) == 1
    assert measured.absent[0].startswith("FR-KADID is not at hand")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"experts": ("gsmd",)}, "unknown expert 'gsmd'.*Did you mean 'gmsd'"),
        ({"embedder": "clip"}, "unknown embedder 'clip'"),
        ({"experts": ("lpips",)}, "expert lpips needs weights that are not on this machine"),
        ({"embedder": "clip-vit-b-32"}, "embedder clip-vit-b-32 needs"),
        ({"lam": -0.1}, "--iqa-lambda -0.1: expected a number of 0 or more"),
        ({"lam": float("nan")}, "--iqa-lambda nan: expected"),
        ({"preset": "paper", "div": "min"}, "--iqa-div min: --iqa-preset paper is cosine_to_mean"),
    ],
)
def test_mistakes_are_found_before_the_run(settings, changes, said):
    with pytest.raises(UsageError, match=said):
        check(changed(settings, **changes))


def test_unknown_rivals_and_absent_ray_too(settings, monkeypatch):
    with pytest.raises(UsageError, match="unknown expert 'psnrr'"):
        check(replace(settings, rivals=("psnrr",)))
    monkeypatch.setattr("iqa_checks.settings.find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"--iqa-ray auto needs .* 'iqa_checks\[ray\]'"):
        check(changed(settings, ray_address="auto"))
    check(settings)
