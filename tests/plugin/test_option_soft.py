"""--iqa-soft, --iqa-repeats, and what is found out before anything is asked."""

from __future__ import annotations

import json

import pytest

from iqa_checks.models.loopback import LoopbackServer

OBSERVER = "observer:noise=8,tie=6"


@pytest.fixture
def results(repository):
    """The rows of the run that was written to a folder."""

    def read(folder: str) -> dict[str, dict]:
        text = (repository.path / folder / "results.json").read_text(encoding="utf-8")
        return {row["cell"].removesuffix("-ratings"): row for row in json.loads(text)["rows"]}

    return read


def endpoint(server: LoopbackServer) -> tuple[str, ...]:
    return ("--iqa-model", "openai:observer", "--iqa-base-url", server.url)


# --- soft answers -------------------------------------------------------------------------------


def test_soft_answers_in_process(run_anyhow, results, rated):
    """The same figures for every -n; rankings would stay as written."""
    result = run_anyhow("--iqa-ratings", str(rated), "--iqa-model", OBSERVER, "--iqa-soft",
                        "-k", "fr", "--iqa-out", "out")  # fmt: skip
    result.stdout.fnmatch_lines(["*soft answers (rankings as written)*"])
    rows = results("out")
    assert {row["soft"] for row in rows.values()} == {1.0}
    scores = [score for *_, score in rows["fr-single-standard"]["per_stimulus"]]
    assert any(score != round(score) for score in scores)


@pytest.mark.parametrize("digits", [False, True])
def test_soft_answers_over_http(run, results, rated, digits):
    """As in process where numbers are one token; digits are read too."""
    run("--iqa-ratings", str(rated), "--iqa-model", OBSERVER, "--iqa-soft", "-k", "single and nr",
        "--iqa-out", "in_process")  # fmt: skip
    with LoopbackServer(OBSERVER, most_logprobs=20, digits=digits) as server:
        run("--iqa-ratings", str(rated), *endpoint(server), "--iqa-soft", "-k", "single and nr",
            "--iqa-out", "served")  # fmt: skip
    here, there = (results(f)["nr-single-standard"] for f in ("in_process", "served"))
    assert there["soft"] == 1.0
    assert (there["per_stimulus"] == here["per_stimulus"]) == (not digits)


def test_hard_and_soft_runs_share_no_replies(run, rated):
    """Whether log-probabilities were asked for is part of the question."""
    with LoopbackServer(OBSERVER, most_logprobs=20) as server:
        asked = ("--iqa-ratings", str(rated), *endpoint(server), "-k", "single and nr")
        run(*asked)
        hard = server.stats.requests
        run(*asked, "--iqa-soft", "--iqa-reuse")
        assert server.stats.requests == 2 * hard
        run(*asked, "--iqa-soft", "--iqa-replay").assert_outcomes(passed=1)
        assert server.stats.requests == 2 * hard


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_an_endpoint_without_log_probabilities_is_told_once(run, results, rated, workers):
    with LoopbackServer(OBSERVER) as server:
        result = run(workers, "--iqa-ratings", str(rated), *endpoint(server), "--iqa-soft",
                     "-k", "single", "--iqa-out", "out")  # fmt: skip
    told = [line for line in result.outlines if "--iqa-soft: " in line]
    assert len(told) == 1
    assert "16 of 16 usable ratings and preferences are read as written" in told[0]
    assert {row["soft"] for row in results("out").values()} == {0.0}


def test_an_endpoint_that_refuses_log_probabilities(run, results, rated):
    with LoopbackServer(OBSERVER, refused=["logprobs"]) as server:
        result = run("--iqa-ratings", str(rated), *endpoint(server), "--iqa-soft",
                     "-k", "single and nr", "--iqa-out", "out")  # fmt: skip
    result.stdout.fnmatch_lines(["*log-probabilities were refused: answers are read as written*"])
    assert results("out")["nr-single-standard"]["parameters"]


def test_soft_answers_are_none_of_the_published_procedure(run, rated):
    result = run("--iqa-ratings", str(rated), "--iqa-soft", "--iqa-preset", "paper")
    result.stderr.fnmatch_lines(["ERROR: *--iqa-soft and --iqa-preset paper*leave one out"])


def test_a_soft_baseline_is_compared_with_soft_runs_only(run, rated):
    asked = ("--iqa-ratings", str(rated), "--iqa-model", OBSERVER, "-k", "double and nr")
    run(*asked, "--iqa-soft", "--iqa-save", "one", "--iqa-save-partial").stdout.fnmatch_lines(
        ["*saved baseline*"]
    )
    again = run(*asked, "--iqa-soft", "--iqa-compare", "one")
    again.stdout.no_fnmatch_line("*cannot be compared*")
    hard = run(*asked, "--iqa-compare", "one")
    hard.stdout.fnmatch_lines(["*soft differs (now none, baseline True)*"])


# --- parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_refused_temperature_is_told_loudly_and_once(run, results, repository, rated, workers):
    with LoopbackServer(OBSERVER, refused=["temperature", "max_tokens"]) as server:
        asked = (workers, "--iqa-ratings", str(rated), *endpoint(server), "--iqa-out", "out")
        result = run(*asked)
        assert server.stats.requests == server.stats.answered + 2
        requests = server.stats.requests
        replayed = run(*asked, "--iqa-replay")
        assert server.stats.requests == requests
    for shown in (result, replayed):
        told = [line for line in shown.outlines if "temperature=0 was refused" in line]
        assert len(told) == 1
        assert told[0].startswith("warning: openai:observer: ")
        assert "not deterministic" in told[0]
    assert "temperature=0 was refused" in (repository.path / "out/results.md").read_text()
    said = results("out")["nr-double-standard"]["parameters"]
    assert {text.split()[0] for text in said} == {"max_tokens", "temperature=0"}


# --- repeats ------------------------------------------------------------------------------------


def test_repeats_show_a_reliability(run_anyhow, results, rated):
    asked = ("--iqa-ratings", str(rated), "--iqa-model", OBSERVER, "-k", "nr")
    once = run_anyhow(*asked, "--iqa-out", "once")
    thrice = run_anyhow(*asked, "--iqa-repeats", "3", "--iqa-out", "thrice")
    once.stdout.no_fnmatch_line("*retest*")
    thrice.stdout.fnmatch_lines(["*trials*retest*verdict*"])
    assert {row["retest"] for row in results("once").values()} == {None}
    rows = results("thrice")
    assert 0 < rows["nr-single-standard"]["retest"] < 1
    assert rows["nr-single-standard"]["retest_kappa"] is None
    assert 0 < rows["nr-double-standard"]["retest_kappa"] < rows["nr-double-standard"]["retest"]


# --- before anything is asked -------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_missing_key_is_found_before_anything_is_asked(run, rated, monkeypatch, workers):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    result = run(workers, "--iqa-ratings", str(rated), "--iqa-model", "gpt4v")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = "--model gpt4v asks OpenAI's endpoint and needs a key: set OPENAI_API_KEY"
    assert said in "\n".join([*result.outlines, *result.errlines])
    assert "replies:" not in result.stdout.str()


def test_a_provider_of_its_own_names_its_variable(run, rated, monkeypatch):
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    result = run("--iqa-ratings", str(rated), "--iqa-model", "gemini-2.5-flash")
    result.stderr.fnmatch_lines(["ERROR: *generativelanguage*needs a key: set GEMINI_API_KEY*"])


def test_what_asks_nothing_needs_no_key(run, rated, repository, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    repository.path.joinpath("test_plain.py").write_text("def test_plain():\n    pass\n")
    run("--iqa-model", "gpt4v", "test_plain.py").assert_outcomes(passed=1)
    asked = ("--iqa-ratings", str(rated), "--iqa-model", "gpt4v")
    assert run(*asked, "--iqa-plan").ret == 0
    assert run(*asked, "--iqa-list", "models").ret == 0
    assert run(*asked, "--collect-only").ret == 0
    replay = run(*asked, "--iqa-replay")
    assert "needs a key" not in replay.stdout.str() + replay.stderr.str()


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
@pytest.mark.parametrize("plan", [(), ("--iqa-plan",)])
def test_more_images_than_the_model_takes(run, repository, rated, workers, plan):
    """The cell is skipped with a line, and nothing is asked; the others go on."""
    (repository.path / "conftest.py").write_text(
        "import dataclasses, iqa_checks.models as models\n"
        "found = models.find_model\n"
        "models.find_model = lambda name: dataclasses.replace(found(name), images_per_prompt=2)\n"
        "def pytest_unconfigure():\n"
        "    models.find_model = found\n"
    )
    result = run(workers, "--iqa-ratings", str(rated), *plan)
    result.stdout.fnmatch_lines(
        ["not measured: observer:* takes at most 2 images in a prompt (images_per_prompt in "
         "models.yaml); double-stimulus standard FR prompts show 3"]
    )  # fmt: skip
    if not plan:
        result.assert_outcomes(passed=3, skipped=2)
