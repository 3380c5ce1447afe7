"""``suites/test_difficult_samples.py`` in a run: Tables 2 and 3 alone, beside cells, refused."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import fixtures.experts
import iqa_checks.difficult_stimuli
import iqa_checks.features
import iqa_checks.rivals

OK, FAILED, USAGE = 0, 1, 4
ANSI = re.compile(r"\x1b\[[0-9;]*m")
SUITE = Path(fixtures.experts.__file__).parents[1] / "suites" / "test_difficult_samples.py"
#: Loaded before any run in this process, see conftest.py.
LOADED_ONCE = (iqa_checks.difficult_stimuli, iqa_checks.features, iqa_checks.rivals)
QUICK = (
    "--iqa-experts", "gmsd", "--iqa-embedder", "offline", "--iqa-limit", "8",
    "--iqa-rivals", "psnr,gmsd",
)  # fmt: skip


@pytest.fixture
def suite(repository, rated, run):
    """The suite beside the cells of `repository`, on two rated scenes."""
    repository.makeconftest('pytest_plugins = ["fixtures.experts"]')
    (repository.path / SUITE.name).write_text(SUITE.read_text())
    return lambda *options: run("--iqa-ratings", str(rated), *QUICK, *options)


def text(result: pytest.RunResult) -> str:
    said = ANSI.sub("", "\n".join((*result.outlines, *result.errlines)))
    assert "Traceback" not in said
    assert "INTERNALERROR" not in said
    return said


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_experts_alone_need_no_model(suite, repository, workers):
    """No broker, no store, no row of a model; the table and its files."""
    jsonschema = pytest.importorskip("jsonschema")
    result = suite(workers, "-m", "experts and not iqa", "-k", "fr", "--iqa-out", "out")
    assert result.ret == OK, text(result)
    said = text(result)
    assert re.search(r"^ +psnr +1\.000", said, re.MULTILINE), said
    assert "model observer" not in said
    assert "no opinion SD: treated as 0" in said
    assert not (repository.path / ".iqa").exists()
    document = json.loads((repository.path / "out/results.json").read_text())
    schema = resources.files("iqa_checks").joinpath("data/results.schema.json").read_text()
    jsonschema.validate(document, json.loads(schema))
    assert document["rows"] == []
    (measured,) = document["experts"]
    assert [row["name"] for row in measured["rows"]] == ["psnr", "gmsd"]
    assert "| psnr |" in (repository.path / "out/table2.md").read_text()


def test_files_are_equal_with_and_without_workers(suite, repository):
    """Experts and cells; only times differ."""
    for option in ("-n0", "-n2"):
        result = suite(
            option, "-m", "difficult", "--iqa-out", f"out{option}",
            "--iqa-store", f"store{option}.db",
        )  # fmt: skip
        assert result.ret == OK, text(result)
    first, second = repository.path / "out-n0", repository.path / "out-n2"
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    assert {"table2.md", "table2.csv", "table2.tex", "results.md"} <= set(names)
    for name in set(names) - {"results.json"}:
        assert (first / name).read_text() == (second / name).read_text(), name
    documents = [json.loads((folder / "results.json").read_text()) for folder in (first, second)]
    assert documents[0]["experts"] == documents[1]["experts"] != []
    assert documents[0]["rows"] == documents[1]["rows"]


def test_model_stands_beside_the_experts(suite, repository):
    """By its best system, and it is said which and why."""
    result = suite("-m", "difficult", "-k", "fr", "--iqa-out", "out")
    assert result.ret == OK, text(result)
    said = text(result)
    assert re.search(r"^ +observer:noise=0,tie=0 double-C ", said, re.MULTILINE)
    assert "MLLM rows: double-stimulus, chain-of-thought (GPT-4V's in the paper" in said
    (row,) = json.loads((repository.path / "out/results.json").read_text())["rows"]
    assert row["cell"] == "fr-double-chain_of_thought-ratings-difficult"


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_an_ordinary_run_leaves_them_out_and_says_so(suite, repository, workers):
    """Nothing of it counts as a cell that is missing from the run."""
    result = suite(workers, "--iqa-out", "out")
    said = text(result)
    assert result.ret == OK, said
    assert "not run: 5 tests on difficult samples (Tables 2 and 3); -m difficult" in said
    document = json.loads((repository.path / "out/results.json").read_text())
    assert document["partial"] == ["--iqa-limit 8 shortened the stimulus sets."]
    assert document["experts"] == []


@pytest.mark.parametrize(
    ("options", "n"),
    [
        ((SUITE.name,), 5),
        ((f"{SUITE.name}::test_experts",), 2),
        (("-m", "experts"), 2),
        (("-m", "difficult and iqa"), 3),
        (("-m", "not experts"), 0),
        (("-m", "iqa and not difficult"), 0),
    ],
)
def test_who_asks_for_it_gets_it(suite, options, n):
    """By marker or by name of the file; one of the model's three has no set and skips."""
    result = suite("--collect-only", "-q", *options)
    assert text(result).count(f"{SUITE.name}::test_") == n


def test_the_best_system_of_a_stored_run(suite, repository):
    """Measured on uniform samples before; ends the run where it is of another model."""
    first = suite("-k", "single-standard", "--iqa-out", "table1")
    assert first.ret == OK, text(first)
    best = ("--iqa-best", "table1/results.json")
    result = suite("-m", "difficult", "-k", "test_model and fr", *best)
    assert result.ret == OK, text(result)
    assert "MLLM rows: single-stimulus, standard (mean SRCC " in text(result)
    other = suite("-m", "difficult", *best, "--model", "observer:noise=9")
    assert other.ret == USAGE
    assert "no cell of observer:noise=9 on uniform samples in it" in text(other)


def test_terms_of_the_selection_are_options(suite):
    """And the notes repeat them."""
    said = text(suite("-m", "experts", "-k", "fr", "--iqa-lambda", "0.5", "--iqa-div", "min"))
    assert "(Div min, lambda 0.5)" in said
    said = text(suite("-m", "experts", "-k", "fr", "--iqa-lambda", "0"))
    assert "features none" in said


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--iqa-experts", "gsmd"), "unknown expert 'gsmd'.*Did you mean 'gmsd'"),
        (("--iqa-rivals", "psnrr"), "unknown expert 'psnrr'.*Did you mean 'psnr'"),
        (("--iqa-lambda", "-1"), "--iqa-lambda -1: expected a number of 0 or more"),
        (("--iqa-div", "max"), "invalid choice: 'max'"),
        (("--iqa-div", "min", "--iqa-preset", "paper"), "--iqa-preset paper is cosine_to_mean"),
        (("--iqa-best", "gone.json"), r"gone\.json cannot be read"),
        (("--iqa-rivals", "lpips", "--iqa-weights", "."), "LPIPS_v0.1_alex-df73285e.pth"),
    ],
)
def test_faulty_option_ends_the_run_at_once(suite, workers, options, said, monkeypatch, tmp_path):
    """Exit status 4 before anything is collected, whatever the number of workers."""
    for variable in ("TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    result = suite(workers, "-m", "experts", *options)
    assert result.ret == USAGE
    assert re.search(said, text(result)), text(result)
    assert "collected" not in text(result)


def test_absent_weights_are_a_line_an_expert(suite, repository, monkeypatch, tmp_path):
    """However many sets there are: file, size and place; green, since nothing failed."""
    for variable in ("TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    result = suite("-m", "experts", "--iqa-rivals", "", "-n0")
    said = text(result)
    assert result.ret == OK, said
    lines = [line for line in said.splitlines() if line.startswith("not measured: expert musiq")]
    assert len(lines) == 1
    assert "(109 MB; https://" in lines[0]


def test_an_expert_that_cannot_select_ends_the_run(suite, repository):
    """One score for all pictures says nothing about which are difficult."""
    pixels = np.full((80, 96, 3), 120, np.uint8)
    for path in repository.path.glob("scene*.png"):
        PIL.Image.fromarray(pixels + np.uint8(len(path.stem))).save(path)
    result = suite("-m", "experts", "-k", "nr", "--iqa-experts", "noise_sigma")
    assert result.ret == USAGE
    assert "expert noise_sigma gives" in text(result)


def test_an_expert_that_fails_is_red_and_the_others_stand(suite, repository):
    """ms_ssim wants larger pictures than these."""
    result = suite("-m", "experts", "-k", "fr", "--iqa-rivals", "psnr,ms_ssim")
    assert result.ret == FAILED
    said = text(result)
    assert "expert ms_ssim on ratings: ms_ssim needs images of at least 176 pixels" in said
    assert re.search(r"^ +psnr +1\.000", said, re.MULTILINE)


def test_faulty_marker_is_one_line(suite, repository):
    repository.makepyfile(
        test_typo="""
        import pytest

        @pytest.mark.experts(scenario="rf")
        def test_experts(expert_outcome):
            pass
        """
    )
    result = suite("test_typo.py")
    assert result.ret == USAGE
    assert "unknown scenario in an experts marker: 'rf'" in text(result)


def test_plan_asks_and_computes_nothing(suite, repository):
    result = suite("-m", "difficult", "--iqa-plan")
    assert result.ret == OK, text(result)
    assert "fr-double-chain_of_thought-ratings-difficult" in text(result)
    assert "Table 2" not in text(result)
