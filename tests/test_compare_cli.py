"""Two runs against each other, and baselines as a history: tables, verdicts, exit codes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from iqa_checks import compare, history
from iqa_checks.baseline import Run, SavedCell, SavedTrial, record_of, save
from iqa_checks.cell import Cell, run_cell
from iqa_checks.compare import Terms, cell_power, compare_runs, power_lines, same_replies
from iqa_checks.errors import UsageError
from iqa_checks.gate import Gate, judge
from iqa_checks.report.comparison_table import terminal
from iqa_checks.report.row import row_of
from tests.saved_runs import saved_cell, saved_run, simulated

REFERENCES = [f"r{k // 10}" for k in range(150)]


@pytest.fixture
def baseline() -> Run:
    return saved_run(simulated())


@pytest.fixture
def worse() -> Run:
    return saved_run(simulated(noise=60, seed=1), model="worse")


@pytest.fixture
def same() -> Run:
    """As good as the baseline, with errors of its own."""
    return saved_run(simulated(seed=2, noise=9), model="same")


def status(candidate: Run, baseline: Run, **terms) -> str:
    (line,) = compare_runs(candidate, baseline, Terms(**terms)).lines
    return line.decision.status


# --- Verdicts -------------------------------------------------------------------------------------


def test_worse_fails_and_as_good_passes(baseline, worse, same):
    assert status(worse, baseline) == "FAIL"
    assert status(same, baseline) == "PASS"
    assert status(same, worse, goal="superiority") == "PASS"
    assert status(same, baseline, goal="superiority") == "INCONCLUSIVE"
    assert status(same, baseline, margin=0.0001) == "INCONCLUSIVE"


@pytest.mark.parametrize("method", ["jackknife", "bootstrap"])
@pytest.mark.parametrize("statistic", ["srcc", "plcc"])
def test_methods_and_statistics(baseline, worse, method, statistic):
    compared = compare_runs(worse, baseline, Terms(method=method, statistics=(statistic,)))
    assert not compared.passed
    assert compared.lines[0].statistic == statistic.upper()
    value = getattr(worse.rows[0], statistic).value
    assert compared.lines[0].difference.candidate == pytest.approx(value)


def test_full_reference_compares_the_headline():
    """The difference is of the very figures that stand in the rows."""
    before, now = (saved_run(simulated(seed=s, references=REFERENCES)) for s in (0, 1))
    (line,) = compare_runs(now, before).lines
    assert line.difference.candidate == pytest.approx(now.rows[0].srcc.value)
    assert line.difference.baseline == pytest.approx(before.rows[0].srcc.value)
    assert (line.difference.n_clusters, line.difference.df) == (15, 14)
    (pooled,) = compare_runs(now, before, Terms(statistics=("plcc",))).lines
    assert pooled.difference.candidate == pytest.approx(now.rows[0].plcc.value)
    assert pooled.difference.df == 14


@pytest.mark.parametrize("preset", ["sound", "paper"])
@pytest.mark.parametrize("scenario", ["fr", "nr"])
@pytest.mark.parametrize("protocol", ["single", "double"])
def test_measured_cells_are_compared_by_their_headline(
    preset, scenario, protocol, rated_set, asker
):
    """From `run_cell` to the table: the figures of both rows, whatever the preset."""
    references = [f"r{k // 6}" for k in range(24)]
    stimuli = rated_set(
        np.tile(np.linspace(5, 95, 6), 4) + np.arange(24) / 9, references=references
    )

    def says(worths: list[float], _prompt: object) -> str:
        if protocol == "single":
            return f"Score: {round(worths[0])}"
        return "Answer: " + ("first" if worths[0] > worths[1] else "second")

    def measured(seed: int) -> Run:
        noise = np.random.default_rng(seed).normal(0, 25, 24)
        worth = {
            s.image.sha256: float(np.clip(s.mos + e, 0, 100))
            for s, e in zip(stimuli.stimuli, noise, strict=True)
        }
        cell = Cell(stimuli, scenario, protocol, preset=preset)
        result = run_cell(cell, asker(worth.__getitem__, says))
        row = row_of(result, judge(result, Gate()), "fake")
        return saved_run((row, record_of(result)), preset=preset)

    before, now = measured(0), measured(1)
    for line in compare_runs(now, before, Terms(statistics=("srcc", "plcc"))).lines:
        figures = [getattr(run.rows[0], line.statistic.lower()).value for run in (now, before)]
        assert figures == pytest.approx([line.difference.candidate, line.difference.baseline])


def test_few_references_are_inconclusive():
    few = [f"r{k % 4}" for k in range(40)]
    before, now = (saved_run(simulated(40, 25, seed=s, references=few)) for s in (0, 3))
    assert status(now, before) == "INCONCLUSIVE"


def test_paper_preset():
    runs = [
        saved_run(
            simulated(30, seed=s, references=REFERENCES[:30], preset="paper",
                      configuration={"preset": "paper"}), preset="paper",
        ) for s in (0, 1)
    ]  # fmt: skip
    both = compare_runs(*runs, Terms(statistics=("srcc", "plcc")))
    assert {line.difference.scale for line in both.lines} == {"identity"}


def test_order_of_stimuli_does_not_matter(baseline, worse):
    order = np.random.default_rng(0).permutation(150).tolist()
    shuffled = saved_run(simulated(noise=60, seed=1, order=order), model="worse")
    straight, other = (compare_runs(run, baseline).lines[0] for run in (worse, shuffled))
    assert other.difference.value == pytest.approx(straight.difference.value)
    assert other.difference.p_worse == pytest.approx(straight.difference.p_worse)


def test_stimuli_without_a_score_are_left_out_of_both(baseline):
    row, record = simulated(seed=2)
    scores = [None if k < 10 else item[3] for k, item in enumerate(row.per_stimulus)]
    now = saved_run(saved_cell(scores, record.quality, unparsed=10))
    (line,) = compare_runs(now, baseline).lines
    assert line.difference.n == 140
    assert any("140 of 150 stimuli" in note for note in line.notes)
    assert any("unusable replies rose from 0.0% to 6.7%" in note for note in line.notes)


def test_holm_over_cells(baseline):
    """A difference that is significant alone need not be among many cells."""
    quality = baseline.records["nr-single-standard-fake"].quality
    before = [item[3] for item in baseline.rows[0].per_stimulus]
    slightly = np.array(before) + np.random.default_rng(0).normal(0, 8, 150)
    alone = saved_run(saved_cell(slightly, quality))
    assert status(alone, baseline) == "FAIL"
    cells = [simulated(cell=f"nr-single-standard-{k}") for k in range(8)]
    now, before = saved_run(saved_cell(slightly, quality), *cells), saved_run(simulated(), *cells)
    many = compare_runs(now, before)
    first = many.lines[0]
    assert first.decision.p_adjusted == pytest.approx(min(1, 9 * first.difference.p_worse))


def cells_of(*runs: Run) -> list[SavedCell]:
    """The one cell of each run."""
    return [next(iter(run.cells.values())) for run in runs]


# --- The baseline's own replies -------------------------------------------------------------------


def asked_at(run: Run, at: float, share: float = 1.0) -> Run:
    (cell,) = run.records
    record = run.records[cell]
    n = round(share * len(record.trials))
    trials = tuple(
        SavedTrial(t.stimuli, t.repeat, t.judgement, at + k if k < n else at + 1000 + k)
        for k, t in enumerate(record.trials)
    )
    return replace(run, records={cell: replace(record, trials=trials)})


def test_the_baselines_own_replies_never_pass(baseline):
    before = asked_at(baseline, 1e9)
    (line,) = compare_runs(before, before).lines
    assert line.decision.status == "SAME REPLIES"
    assert "Ask anew" in line.decision.sentence
    assert line.decision.passed
    assert not compare_runs(before, before, Terms(strict=True)).passed


def test_the_same_answers_asked_anew_pass(baseline):
    """A deterministic model gives the same answers at another time."""
    before, now = asked_at(baseline, 1e9), asked_at(baseline, 2e9)
    assert same_replies(*cells_of(now, before)) == 0
    assert status(now, before) == "PASS"


def test_partly_the_baselines_own_replies(baseline, worse):
    before = asked_at(baseline, 1e9)
    mixed = asked_at(baseline, 1e9, share=0.4)
    assert same_replies(*cells_of(mixed, before)) == pytest.approx(0.4)
    (line,) = compare_runs(mixed, before).lines
    assert line.decision.status == "INCONCLUSIVE"
    assert "40% of the replies" in line.decision.sentence
    assert status(asked_at(worse, 1e9, share=0.4), before) == "FAIL"


def test_unknown_times_are_not_the_same_reply(baseline):
    assert same_replies(*cells_of(baseline, baseline)) == 0


# --- Refusals, new and orphaned cells -------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidate", "told"),
    [(lambda: saved_run(simulated(), seed=1), "seed 1"),
     (lambda: saved_run(simulated(), preset="paper"), "preset paper"),
     (lambda: saved_run(simulated(configuration={"repeats": "2"})), "repeats differs"),
     (lambda: saved_run(simulated(configuration={"wording": "1" * 64})), "wording differs"),
     (lambda: saved_run(simulated(149)), "stimuli differ"),
     (lambda: saved_run(simulated(cell="nr-single-standard-other")), "no cell of this run")],
)  # fmt: skip
def test_refusals(baseline, candidate, told):
    with pytest.raises(UsageError, match=told) as caught:
        compare_runs(candidate(), baseline)
    assert "\n" not in str(caught.value)


def test_new_and_orphaned_cells(same):
    before = saved_run(simulated(), simulated(cell="nr-single-standard-old"), partial=("Part.",))
    now = saved_run(
        simulated(seed=2), simulated(cell="nr-single-standard-new"), versions={"numpy": "3"}
    )
    compared = compare_runs(now, before)
    assert compared.new == ("nr-single-standard-new",)
    assert compared.orphaned == ("nr-single-standard-old",)
    text = terminal(compared)
    assert "new, not in the baseline: nr-single-standard-new" in text
    assert "orphaned, only in the baseline: nr-single-standard-old" in text
    assert "the baseline is partial: Part." in text
    assert "versions changed: numpy 2 -> 3" in text


def double(run: Run, judgement: str) -> Run:
    """The run as pairs of neighbours, all answered alike."""
    row, record = run.rows[0], run.records[run.rows[0].cell]
    trials = tuple(SavedTrial((k, k + 1), 0, judgement) for k in range(20))
    changed = {row.cell: replace(record, trials=trials)}
    return replace(run, rows=(replace(row, protocol="double"),), records=changed)


def test_trials_that_should_or_should_not_be_the_same(baseline, same):
    (line,) = compare_runs(double(same, "first"), double(baseline, "second")).lines
    assert any("adaptive trial list" in note for note in line.notes)
    assert not compare_runs(double(same, "first"), double(baseline, "first")).lines[0].notes
    cell = same.rows[0].cell
    repeated = tuple(replace(t, repeat=1) for t in same.records[cell].trials[:5])
    record = replace(same.records[cell], trials=same.records[cell].trials[5:] + repeated)
    (line,) = compare_runs(replace(same, records={cell: record}), baseline).lines
    assert line.notes == ("5 of 150 trials are not the baseline's.",)


# --- Command line ---------------------------------------------------------------------------------


@pytest.fixture
def files(baseline, worse, same, tmp_path) -> list[str]:
    runs = {"v1": baseline, "v2": same, "v3": worse}
    return [str(save(run, tmp_path, name)) for name, run in runs.items()]


@pytest.mark.parametrize(("k", "code", "word"), [(1, 0, "PASS"), (2, 1, "FAIL")])
def test_command(files, capsys, k, code, word):
    assert compare.main([files[0], files[k]]) == code
    table = capsys.readouterr().out
    assert word in table
    assert "p (Holm)" in table
    assert "0001_v1" in table
    assert compare.main([files[0], files[k], "--markdown", "--statistic", "both"]) == code
    shown = capsys.readouterr().out
    assert shown.startswith(f"### Image quality: {word}")
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert len(rows) == 4


def test_strict_command(files):
    assert compare.main([files[0], files[1], "--margin", "0.0001"]) == 0
    assert compare.main([files[0], files[1], "--margin", "0.0001", "--strict"]) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["{0}"], "give two runs"), (["{0}", "nowhere.json"], "cannot be read"),
     (["{0}", "{1}", "--margin", "2"], "--margin 2"), (["{0}", "{1}", "--alpha", "0"], "--alpha"),
     (["{0}", "--power", "1"], "--power")],
)  # fmt: skip
def test_usage_errors(files, capsys, arguments, told):
    assert compare.main([a.format(*files) for a in arguments]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


def test_power_command(files, capsys):
    assert compare.main([files[0], "--power", "0.02"]) == 0
    alone = capsys.readouterr().out
    assert "now 150 stimuli (150 trials): power" in alone
    assert "enough:" in alone
    assert compare.main([files[0], files[1], "--power", "0.02"]) == 0
    assert capsys.readouterr().out != alone


def test_power_knows_repeats_and_references(baseline):
    row, record = simulated(40)
    twice = tuple(
        SavedTrial(t.stimuli, r, t.judgement + d)
        for t in record.trials for r, d in ((0, 5.0), (1000, -5.0))
    )  # fmt: skip
    noisy = saved_run((row, replace(record, trials=twice)))
    assert [o.repeats for o in cell_power(*cells_of(noisy), 0.05)] == [1, 1, 2, 3, 5]
    clustered = saved_run(simulated(references=REFERENCES))
    assert cell_power(*cells_of(clustered), 0.05)[0].n_clusters == 15
    assert "unknown what they buy; a baseline with --iqa-repeats 2" in "\n".join(
        power_lines(clustered, 0.05)
    )
    row, record = simulated(references=REFERENCES)
    twice = tuple(
        replace(t, repeat=r, judgement=t.judgement + d)
        for t in record.trials for r, d in ((0, 9.0), (1000, -9.0))
    )  # fmt: skip
    own, *enough = cell_power(*cells_of(saved_run((row, replace(record, trials=twice)))), 0.05)
    assert (own.n_clusters, [option.repeats for option in enough]) == (15, [1, 2, 3, 5])
    references = [option.n_clusters for option in enough]
    assert references == sorted(references, reverse=True)
    assert references[0] > references[-1]
    constant = saved_run(saved_cell([1.0] * 9, list(range(9))))
    assert "cannot be planned" in "\n".join(power_lines(constant, 0.05))


def test_runs_as_a_module(files):
    done = subprocess.run(
        [sys.executable, "-m", "iqa_checks.compare", files[0], files[2]],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "significantly worse" in done.stdout


# --- History --------------------------------------------------------------------------------------


def test_history(files, tmp_path, capsys):
    assert history.main([str(tmp_path)]) == 0
    text = capsys.readouterr().out
    head = text.splitlines()[0]
    assert head.index("0001_v1") < head.index("0002_v2") < head.index("0003_v3")
    assert "0002_v2: nothing changed significantly since 0001_v1" in text
    assert "0003_v3 worse: nr-single-standard-fake" in text
    assert history.main([str(tmp_path), "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("| SRCC [95 %] | 0001_v1 |")


def test_history_goes_by_number_and_survives_damage(files, tmp_path, worse, baseline, capsys):
    save(replace(baseline, saved_at=0.0), tmp_path, "v4")
    save(replace(baseline, seed=7), tmp_path, "v5")
    Path(files[1]).write_text("{", encoding="utf-8")
    found = history.history(tmp_path)
    assert [run.name for run in found.runs] == ["v1", "v3", "v4", "v5"]
    assert len(found.unreadable) == 1
    assert found.steps[1].better
    assert "seed" in found.steps[2].refused
    assert history.main([str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "unreadable:" in text
    assert "not compared with 0004_v4" in text


def test_history_of_nothing(tmp_path, capsys):
    assert history.main([str(tmp_path)]) == 2
    assert history.main([str(tmp_path / "nowhere")]) == 2
    assert history.main([str(tmp_path), "--alpha", "7"]) == 2
    (tmp_path / "0001_x.json").write_text("{", encoding="utf-8")
    assert history.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("error:") == 4
