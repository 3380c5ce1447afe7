"""Two releases through a run: save, compare, refuse; with and without workers."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

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
            "-q", "--iqa-cache", str(pytester.path / "cache"), "--iqa-fresh",
            "--model", "observer", *options,
        )  # fmt: skip

    run.path = pytester.path  # type: ignore[attr-defined]
    return run


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_worse_release_is_red_and_the_same_is_not(suite, workers, monkeypatch):
    """A blind release fails by name of cell, wherever a team looks; one as good does not."""
    summary = suite.path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
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
    cases = ElementTree.parse(suite.path / "j.xml").iter("testcase")
    (found,) = [
        {p.get("name"): p.get("value") for p in case.iter("property")}
        for case in cases
        if "difference-single" in str(case.get("name"))
    ]
    drop = float(found["iqa_srcc"]) - float(found["iqa_baseline_srcc"])
    assert float(found["iqa_difference"]) == pytest.approx(drop)
    assert drop < -0.1
    assert float(found["iqa_p_worse"]) < 0.05
    assert summary.read_text().count("| stimuli |") == 2  # one table a run
    assert summary.read_text().count("### Image quality: FAIL") == 1
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


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[: len(text) // 2], "cut or damaged"),
        (lambda text: text.replace('"seed": 0', '"seed": 1', 1), "changed after it was saved"),
        (lambda text: text.replace('"schema": 1', '"schema": 99', 1), "schema version 99"),
        (lambda text: text.replace('"seed": 0', '"seed": NaN', 1), "holds NaN"),
    ],
)
def test_damaged_baseline_ends_the_run_before_anything_is_asked(suite, damage, said):
    """One line that names the file, and exit status 4."""
    assert suite("--iqa-save", "v1", "--iqa-limit", "8", "--iqa-save-partial").ret == OK
    path = suite.path / ".iqa/baselines/0001_v1.json"
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    refused = suite("--iqa-compare", "v1", "--iqa-limit", "8")
    assert refused.ret == USAGE
    text = refused.stdout.str() + refused.stderr.str()
    assert said in text
    assert "0001_v1.json" in text
    assert "passed" not in text


def test_another_clock_locale_and_language_change_nothing(suite, monkeypatch):
    """A runner in the far east, in a C locale, at another date, compares as any other does."""
    assert (
        suite("--iqa-limit", "8", "--iqa-save-partial", "--iqa-save", "v1", "--iqa-out", "here").ret
        == OK
    )
    for name, value in {
        "LC_ALL": "C",
        "LANG": "tr_TR",
        "PYTHONUTF8": "0",
        "TZ": "Asia/Tokyo",
    }.items():
        monkeypatch.setenv(name, value)
    there = suite("--iqa-limit", "8", "--iqa-compare", "v1", "--iqa-out", "there")
    assert there.ret == OK, there.stdout.str()
    one, other = (json.loads((suite.path / f"{k}/results.json").read_text("utf-8"))
                  for k in ("here", "there"))  # fmt: skip
    assert [r["per_stimulus"] for r in one["rows"]] == [r["per_stimulus"] for r in other["rows"]]
    lines = [line for line in there.stdout.lines if line.strip().startswith("difference-")]
    assert lines
    assert all("+.000" in line for line in lines)


def test_gates_that_a_run_cannot_be_held_against(suite):
    """An unknown price, one answer a question, the paper's figures under another procedure."""
    gates = suite.path / "gates.yaml"
    for line, model, said in (
        ("{max_cost_usd: 0.01}", "openai:mine", "--iqa-price"),
        ("{min_retest: 0.9}", "observer", "add --iqa-repeats"),
        ("{like_paper: gpt4v}", "observer", "add --iqa-preset paper"),
        ("{like_paper: true}", "observer", "the paper has no figures of observer"),
    ):
        gates.write_text(f"- {line}\n")
        refused = suite("--iqa-gates", str(gates), "--model", model)
        assert refused.ret == USAGE, refused.stdout.str()
        assert said in refused.stdout.str() + refused.stderr.str()


def test_what_a_verdict_does_not_show_is_noted(suite):
    """No figure of the paper for this set, and an expected failure that passes."""
    gates = suite.path / "gates.yaml"
    gates.write_text(
        "- {like_paper: gpt4v}\n- {protocol: single, min_srcc: -0.9, xfail: colour is hard}\n"
        "- {protocol: single, min_retest: -0.5}\n"
    )
    options = ("--iqa-gates", str(gates), "--iqa-preset", "paper", "--iqa-repeats", "2",
               "--iqa-limit", "8")  # fmt: skip
    found = suite(*options)
    assert found.ret == OK
    text = found.stdout.str()
    for protocol in ("single", "double", "multiple"):
        system = f"no figure of gpt4v, {protocol} standard, on builtin-color."
        assert f"note: builtin-color: not held against the paper: {system}" in text
    cell = "difference-single-standard-builtin-color"
    assert f"{cell}: PASS, though a failure was expected (colour is hard)" in text


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
