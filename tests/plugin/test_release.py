"""Two releases through a run: save, compare, refuse; with and without workers."""

from __future__ import annotations

import json
import re

import pytest

OK, FAILED, USAGE = 0, 1, 4


@pytest.fixture
def suite(pytester: pytest.Pytester):
    """A repository with one suite on the built-in colour set, quick and offline."""
    pytester.makepyfile(
        test_color="""
        import pytest

        @pytest.mark.iqa(scenario="difference", stimuli=("builtin-color",),
                         strategies=("standard",))
        def test_color(outcome):
            outcome.check()
        """
    )

    def run(*options: str) -> pytest.RunResult:
        return pytester.runpytest_subprocess(
            "-q", "--iqa-cache", str(pytester.path / "cache"), "--iqa-fresh", *options
        )

    run.path = pytester.path  # type: ignore[attr-defined]
    return run


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_worse_release_is_red_and_the_same_is_not(suite, workers):
    """A blind release fails by name of cell; an equally good one does not."""
    saved = suite(workers, "--model", "observer:noise=5", "--iqa-save", "v1")
    assert saved.ret == OK, saved.stdout.str()
    saved.stdout.fnmatch_lines(["saved baseline *0001_v1.json"])
    worse = suite(
        workers, "--model", "observer:noise=60,seed=1", "--iqa-compare", "v1", "--iqa-out", "out",
        "--junitxml", "j.xml",
    )  # fmt: skip
    assert worse.ret == FAILED
    worse.stdout.re_match_lines([r"FAIL difference-\w+-standard-builtin-color: .* after Holm"])
    assert "after Holm" in (suite.path / "out/results.md").read_text()
    assert "iqa_verdict" in (suite.path / "j.xml").read_text()
    same = suite(workers, "--model", "observer:noise=5,seed=2", "--iqa-compare", "1")
    assert same.ret == OK
    assert not re.search(r"^FAIL ", same.stdout.str(), re.MULTILINE)


def test_other_questions_are_refused_before_anything_is_asked(suite):
    """Another seed, a missing baseline, a filtered run: one line and exit status 4."""
    assert suite("--iqa-save", "v1").ret == OK
    seed = suite("--iqa-compare", "v1", "--seed", "7")
    assert seed.ret == USAGE
    assert "its seed is 0, this run's 7" in seed.stdout.str() + seed.stderr.str()
    absent = suite("--iqa-compare", "v2")
    assert absent.ret == USAGE
    assert "there is: 0001_v1" in absent.stdout.str() + absent.stderr.str()
    shorter = suite("--iqa-compare", "v1", "--iqa-limit", "10")
    assert shorter.ret != OK
    assert "its stimuli differ" in shorter.stdout.str()
    partial = suite("--iqa-save", "v2", "-k", "single")
    assert partial.ret == USAGE
    assert "2 cells were deselected" in partial.stdout.str()
    assert not list((suite.path / ".iqa/baselines").glob("0002*"))


def test_replayed_baseline_is_no_pass(suite):
    """A comparison on the baseline's own replies says so."""
    assert suite("--iqa-save", "v1").ret == OK
    again = suite("--iqa-replay", "--iqa-compare", "v1")
    assert again.ret == OK
    assert "SAME REPLIES" in again.stdout.str()
    assert not re.search(r"\bPASS\b", again.stdout.str())


def test_power_asks_nothing(suite):
    """What it takes to see a drop, from the baseline's own data."""
    assert suite("--iqa-save", "v1").ret == OK
    planned = suite("--iqa-compare", "v1", "--iqa-power", "0.05")
    assert planned.ret == OK
    planned.stdout.fnmatch_lines(["To find an SRCC drop of 0.05*", "*enough:*"])
    assert "passed" not in planned.stdout.str()


def test_results_follow_the_schema(suite):
    """results.json and a saved baseline are documents of the published schema."""
    jsonschema = pytest.importorskip("jsonschema")
    from importlib import resources

    schema = json.loads(
        resources.files("iqa_checks")
        .joinpath("data/results.schema.json")
        .read_text(encoding="utf-8")
    )
    assert suite("--iqa-save", "v1", "--iqa-out", "out").ret == OK
    for path in ("out/results.json", ".iqa/baselines/0001_v1.json"):
        jsonschema.validate(json.loads((suite.path / path).read_text()), schema)


def test_failures_are_annotated_on_github(suite, monkeypatch):
    """A workflow shows the failed cell where people look."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    result = suite("--model", "random", "--iqa-min-srcc", "0.9")
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["::error title=difference-single-standard-builtin-color::FAIL*"])
