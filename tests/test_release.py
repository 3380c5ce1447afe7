"""The end of a run: compared, written, saved, and told to the workflow; without pytest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from iqa_checks.baseline import Run, read, save
from iqa_checks.broker import Totals
from iqa_checks.datasets import StimulusSource
from iqa_checks.release import Conclusion, conclude, properties_of, run_of
from iqa_checks.settings import Settings
from tests.saved_runs import saved_run, simulated

CELL = "nr-single-standard-fake"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    save(saved_run(simulated()), tmp_path, "v1")
    return Settings("observer", StimulusSource(tmp_path), storage=tmp_path, compare="v1")


@pytest.fixture
def worse() -> Run:
    return saved_run(simulated(noise=60, seed=1), model="worse")


@pytest.fixture
def same() -> Run:
    return saved_run(simulated(seed=2, noise=9), model="same")


def concluded(run: Run, settings: Settings, **given) -> Conclusion:
    options = {"save_as": None, "allow_partial": False, "environment": {}} | given
    return conclude(run, settings, **options)


def test_a_worse_release_is_a_problem_and_one_as_good_is_none(settings, worse, same):
    found = concluded(worse, settings)
    assert found.problem == "worse"
    assert "release comparison: FAIL, 1 of 1 cells significantly worse than 0001_v1 (fake)" in (
        found.lines
    )
    assert concluded(same, settings).problem == ""


def test_a_worse_release_is_no_baseline_without_permission(settings, worse):
    """A run that failed its comparison is saved only on purpose, and says so for ever after."""
    refused = concluded(worse, settings, save_as="v2")
    assert refused.problem == "worse"
    assert "not saved: release comparison: FAIL" in refused.lines[-1]
    assert not list(settings.storage.glob("0002*"))
    concluded(worse, settings, save_as="v2", allow_partial=True)
    assert "release comparison: FAIL" in read(settings.storage / "0002_v2.json").partial[0]


def test_statistics_and_method_of_a_run(settings, same):
    both = concluded(same, replace(settings, statistics=("srcc", "plcc"), method="bootstrap"))
    assert any(" PLCC " in line for line in both.lines)
    assert "0 of 1 cells" in both.lines[-1]


def test_workflow_sees_the_figures_behind_a_failure(settings, worse, tmp_path):
    """Annotations where failures are read, and a summary that keeps what other steps wrote."""
    summary = tmp_path / "summary.md"
    summary.write_text("from another step\n", encoding="utf-8")
    found = concluded(
        worse,
        settings,
        environment={"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)},
    )
    (error,) = (line for line in found.lines if line.startswith("::error"))
    assert error.startswith(f"::error title={CELL} against 0001_v1 (fake)::FAIL: SRCC 0.")
    assert "after Holm" not in error  # a single cell: nothing is corrected
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("from another step\n")
    assert "### Image quality: FAIL" in text
    assert f"| {CELL} |" in text


def test_nothing_is_told_outside_a_workflow(settings, same):
    assert not [line for line in concluded(same, settings).lines if line.startswith("::")]


def test_summary_tells_why_a_cell_failed(settings, tmp_path):
    row, record = simulated()
    failed = replace(row, passed=False, verdict="FAIL", explanation="FAIL: SRCC 0.1, gate 0.9.")
    path = tmp_path / "summary.md"
    concluded(saved_run((failed, record)), settings, environment={"GITHUB_STEP_SUMMARY": str(path)})
    assert f"- **FAIL** {CELL}: FAIL: SRCC 0.1, gate 0.9." in path.read_text(encoding="utf-8")


def test_what_cannot_be_written_is_one_line(settings, same, tmp_path):
    """A folder in the place of the summary, a file in that of the results."""
    (tmp_path / "file").write_text("")
    for given, changed in (
        ({"environment": {"GITHUB_STEP_SUMMARY": str(tmp_path)}}, {}),
        ({}, {"out": tmp_path / "file"}),
    ):
        found = concluded(same, replace(settings, **changed), **given)
        assert found.problem == "usage"
        assert found.lines[-1].startswith("error: ")


def test_properties_for_junit(same):
    (cell,) = same.cells.values()
    alone = dict(properties_of(cell, None))
    assert alone["iqa_srcc"] == cell.row.srcc.value
    assert alone["iqa_srcc_low"] < alone["iqa_srcc"] < alone["iqa_srcc_high"]
    assert "iqa_difference" not in alone
    baseline = saved_run(simulated())
    beside = dict(properties_of(cell, baseline))
    assert beside["iqa_baseline_srcc"] == pytest.approx(baseline.rows[0].srcc.value)
    assert beside["iqa_difference"] == pytest.approx(
        beside["iqa_srcc"] - beside["iqa_baseline_srcc"]
    )
    assert 0 < beside["iqa_p_worse"] < 1
    other = saved_run(simulated(cell="nr-single-standard-other"))
    assert dict(properties_of(cell, other)) == alone


@pytest.mark.parametrize(
    ("totals", "cost"),
    [
        (Totals(new=10, prompt_tokens=1_000_000, completion_tokens=100_000), 2.5 + 1.0),
        (Totals(new=10), None),  # an endpoint that does not count tokens
        (Totals(reused=10), 0.0),
    ],
)
def test_cost_of_a_run_is_unknown_rather_than_zero(tmp_path, totals, cost):
    class Asker:
        class broker:
            backend = type("Backend", (), {"fingerprint": "x"})

    Asker.broker.totals = totals
    settings = Settings("gpt-4o", StimulusSource(tmp_path))
    row, record = simulated(10)
    run = run_of(
        [row.plain()], {row.cell: record.plain()}, settings, Asker,
        started_at=1.0, partial=(), folder=tmp_path,
    )  # fmt: skip
    assert run.cost == (None if cost is None else pytest.approx(cost))
