"""Two saved runs against each other: ``python -m iqa_checks.compare BASELINE.json NOW.json``.

Cells are compared stimulus by stimulus, by the statistic that is their headline: pooled SRCC (NR),
mean SRCC over references (FR). Exit status: 0, 1 where a cell fails, 2 where the runs cannot be
compared or read.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from iqa_checks.baseline import Run, SavedCell, judged_of, mismatch, read
from iqa_checks.comparison import Difference, Method, compare, holm
from iqa_checks.decision import DEFAULT_MARGIN, Decision, Goal, Status, decide
from iqa_checks.errors import IqaChecksError, UsageError
from iqa_checks.power import PlanOption, judgement_noise, power_plan, rating_noise
from iqa_checks.report.row import Row
from iqa_checks.report.tables import number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

StatisticName = Literal["srcc", "plcc"]
_WORST_FIRST: tuple[Status, ...] = ("FAIL", "SAME REPLIES", "INCONCLUSIVE", "PASS")


@dataclass(frozen=True, slots=True)
class Terms:
    """How two runs are held against each other; see `iqa_checks.decision.decide`.

    ``alpha`` is the rate at which an unchanged release fails anything at all (Holm over cells and
    statistics).
    """

    goal: Goal = "regression"
    margin: float = DEFAULT_MARGIN
    alpha: float = 0.05
    strict: bool = False
    method: Method = "jackknife"
    statistics: tuple[StatisticName, ...] = ("srcc",)


@dataclass(frozen=True, slots=True)
class CellComparison:
    """One line of the table. ``notes`` are sentences that a reader of the line should know."""

    cell: str
    statistic: str
    difference: Difference
    decision: Decision
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunComparison:
    """All cells of two runs: ``new`` are not in the baseline, ``orphaned`` only there."""

    baseline: str
    candidate: str
    terms: Terms
    lines: tuple[CellComparison, ...]
    new: tuple[str, ...]
    orphaned: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return all(line.decision.passed for line in self.lines)

    @property
    def status(self) -> Status:
        """The worst of all lines."""
        found = {line.decision.status for line in self.lines}
        return next(status for status in _WORST_FIRST if status in found)

    @property
    def headline(self) -> str:
        """The whole comparison in a line."""
        failed = {line.cell for line in self.lines if line.decision.status == "FAIL"}
        return (
            f"release comparison: {self.status}, {len(failed)} of "
            f"{len({line.cell for line in self.lines})} cells significantly worse than "
            f"{self.baseline}"
        )


# --- The comparison -----------------------------------------------------------------------------


def compare_runs(candidate: Run, baseline: Run, terms: Terms | None = None) -> RunComparison:
    """Hold every cell that both runs measured against the baseline.

    Raises
    ------
    UsageError
        The runs did not answer the same questions (preset, seed, configuration, stimuli), or have
        no cell in common.
    """
    terms = terms or Terms()
    shared = _shared_cells(candidate, baseline)
    measured = [
        (now, before, name, cell_difference(now, before, name, terms.method))
        for now, before in shared
        for name in terms.statistics
    ]
    adjusted = holm([difference.p_worse for *_, difference in measured])
    lines = tuple(_line(*found, p, terms) for found, p in zip(measured, adjusted, strict=True))
    ours, theirs = ([row.cell for row in run.rows] for run in (candidate, baseline))
    return RunComparison(
        baseline=_described(baseline),
        candidate=_described(candidate),
        terms=terms,
        lines=lines,
        new=tuple(cell for cell in ours if cell not in theirs),
        orphaned=tuple(cell for cell in theirs if cell not in ours),
        notes=tuple(_run_notes(candidate, baseline)),
    )


def _shared_cells(candidate: Run, baseline: Run) -> list[tuple[SavedCell, SavedCell]]:
    """The cells of both runs, now and before."""
    for name in ("preset", "seed"):
        now, before = getattr(candidate, name), getattr(baseline, name)
        if now != before:
            raise UsageError(
                f"{name} {now} cannot be compared with baseline {baseline.title}, which has "
                f"{before}: the runs answered other questions"
            )
    known = baseline.cells
    shared = [(cell, known[name]) for name, cell in candidate.cells.items() if name in known]
    found = [(now.row.cell, _mismatch(now, before)) for now, before in shared]
    problems = [f"{cell}: {problem}" for cell, problem in found if problem]
    if problems:
        more = f" (and {len(problems) - 1} more cells)" if len(problems) > 1 else ""
        raise UsageError(f"not comparable with baseline {baseline.title}: {problems[0]}{more}")
    if not shared:
        raise UsageError(
            f"no cell of this run is in baseline {baseline.title}, which has: "
            + (", ".join(list(known)[:6]) or "none")
        )
    return shared


def _mismatch(now: SavedCell, before: SavedCell) -> str | None:
    first, second = ((cell.row.manifest, cell.record.configuration) for cell in (now, before))
    return mismatch(first, second)


def cell_difference(
    now: SavedCell, before: SavedCell, name: StatisticName = "srcc", method: Method = "jackknife"
) -> Difference:
    """The paired difference of a cell's headline, over the stimuli that both runs scored."""
    scores, earlier, quality, references = _aligned(now, before)
    clustered, paper = before.row.scenario == "fr", before.row.preset == "paper"
    averaged = clustered and (name == "srcc" or paper)
    return compare(
        scores,
        earlier,
        quality,
        statistic="srcc_after_logistic" if paper and name == "srcc" else name,
        direction="free" if paper else "increasing",
        undefined="zero" if paper else "exclude",
        cluster=references if clustered else None,
        summary="cluster_mean" if averaged else "pooled",
        method="jackknife" if averaged or paper else method,
    )


def _aligned(
    now: SavedCell, before: SavedCell
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Scores of both, human scores and references of the stimuli that both scored."""
    import numpy as np

    orders = [_order(cell.row) for cell in (now, before)]
    scores = [
        np.array([_score(cell.row, k) for k in order], dtype=np.float64)
        for cell, order in zip((now, before), orders, strict=True)
    ]
    record = before.record
    known = ~np.isnan(scores[0]) & ~np.isnan(scores[1])
    quality = np.array([record.quality[k] for k in orders[1]])[known]
    references = [record.references[k] for k, both in zip(orders[1], known, strict=True) if both]
    return scores[0][known], scores[1][known], quality, references


def _order(row: Row) -> list[int]:
    """Positions in the order of the stimuli's hashes, so that file order does not matter."""
    stimuli = row.per_stimulus
    return sorted(range(len(stimuli)), key=lambda k: (stimuli[k][1], stimuli[k][2], stimuli[k][0]))


def _score(row: Row, position: int) -> float:
    score = row.per_stimulus[position][3]
    return float("nan") if score is None else score


def _line(
    now: SavedCell,
    before: SavedCell,
    name: StatisticName,
    difference: Difference,
    p_adjusted: float | None,
    terms: Terms,
) -> CellComparison:
    decision = decide(
        difference,
        goal=terms.goal,
        margin=terms.margin,
        alpha=terms.alpha,
        p_adjusted=p_adjusted,
        strict=terms.strict,
        name=name.upper(),
    )
    decision = _own_replies(decision, same_replies(now, before), terms.strict)
    notes = _cell_notes(now, before, difference)
    return CellComparison(now.row.cell, name.upper(), difference, decision, tuple(notes))


def same_replies(now: SavedCell, before: SavedCell) -> float:
    """Share of the candidate's trials that hold the baseline's very replies, 0..1.

    Told by question and time of reply: an answer that was asked anew has another time, whatever
    it says.
    """
    ours, theirs = now.reply_times, before.reply_times
    if not ours:
        return 0.0
    return sum(theirs.get(key) == at and at > 0 for key, at in ours.items()) / len(ours)


def _own_replies(decision: Decision, share: float, strict: bool) -> Decision:
    """No PASS on the baseline's own replies; a FAIL stands, sharing only hides drops."""
    if share == 0 or decision.status == "FAIL":
        return decision
    if share == 1:
        why = "every reply is the baseline's own, so nothing was tested. Ask anew."
        return replace(
            decision,
            status="SAME REPLIES",
            passed=not strict,
            sentence=f"{why} {decision.sentence}",
        )
    why = f"{share:.0%} of the replies are the baseline's own, which hides differences. Ask anew."
    status = "INCONCLUSIVE" if decision.status == "PASS" else decision.status
    return replace(
        decision, status=status, passed=not strict, sentence=f"{why} {decision.sentence}"
    )


def _cell_notes(now: SavedCell, before: SavedCell, difference: Difference) -> list[str]:
    notes = []
    if difference.n < now.row.n and not difference.lost:
        notes.append(f"compared on the {difference.n} of {now.row.n} stimuli that can be.")
    if difference.reason and difference.value is not None:
        notes.append(f"{difference.reason}.")
    told = (_unparsed_changed(now.row, before.row), _trials_changed(now, before))
    return notes + [note for note in told if note]


def _unparsed_changed(now: Row, before: Row) -> str | None:
    """Whether unusable replies became more frequent, by Fisher's exact test, one-sided."""
    from scipy.stats import fisher_exact

    bad = [round(row.unparsed_rate * row.trials) for row in (now, before)]
    table = [[b, row.trials - b] for b, row in zip(bad, (now, before), strict=True)]
    p = float(fisher_exact(table, alternative="greater")[1])
    if p >= 0.05:
        return None
    return (
        f"unusable replies rose from {before.unparsed_rate:.1%} to {now.unparsed_rate:.1%} "
        f"(Fisher's exact test, one-sided p = {p:.2g})."
    )


def _trials_changed(now: SavedCell, before: SavedCell) -> str | None:
    """A fixed design must ask the same trials; an adaptive one must not be asked the baseline's.

    Swiss pairing follows the answers of the model that is asked. The baseline's pairs suit the
    baseline: asked the same pairs, a release as good scores .04 to .1 lower (docs/gates.md).
    """
    ours, theirs = set(now.reply_times), set(before.reply_times)
    if not _adaptive(now):
        other = len(ours - theirs)
        return f"{other} of {len(ours)} trials are not the baseline's." if other else None
    said = [[t.judgement for t in c.record.trials if t.usable] for c in (now, before)]
    if ours != theirs or said[0] == said[1]:
        return None
    return "both answered one adaptive trial list, which favours the one that it was made for."


def _adaptive(cell: SavedCell) -> bool:
    from iqa_checks.protocols import ROUND_ROBIN_LIMIT

    row = cell.row
    groups = Counter(cell.record.references if row.scenario == "fr" else [""] * row.n)
    swiss = row.protocol == "double" and row.preset == "sound"
    return swiss and max(groups.values(), default=0) > ROUND_ROBIN_LIMIT


def _run_notes(candidate: Run, baseline: Run) -> list[str]:
    notes = [
        f"the {which} is partial: {' '.join(run.partial)}"
        for which, run in (("baseline", baseline), ("candidate", candidate))
        if run.partial
    ]
    if candidate.model != baseline.model:
        notes.append(f"models differ: baseline {baseline.model}, now {candidate.model}")
    now, before = candidate.versions or {}, baseline.versions or {}
    changed = [f"{k} {before[k]} -> {v}" for k, v in now.items() if before.get(k, v) != v]
    return notes + ([f"versions changed: {', '.join(changed)}"] if changed else [])


def _described(run: Run) -> str:
    commit = f", commit {run.commit[:12]}" if run.commit else ""
    model = "" if run.title == run.model else f" ({run.model}{commit})"
    return f"{run.title}{model}"


# --- Power --------------------------------------------------------------------------------------


def cell_power(
    cell: SavedCell, drop: float, *, earlier: SavedCell | None = None, alpha: float = 0.05
) -> list[PlanOption]:
    """`power_plan` of one saved cell; its own size first.

    ``earlier``: the cell of another release, to see how much two releases resemble.

    Raises `ValueError` where the cell's data cannot tell.
    """
    now, _, quality, references = _aligned(cell, cell)
    clustered = cell.row.scenario == "fr"
    return power_plan(
        now,
        quality,
        drop=drop,
        cluster=references if clustered else None,
        summary="cluster_mean" if clustered else "pooled",
        n_trials=len(cell.record.trials),
        noise_variance=_noise(cell),
        typical=None if earlier is None else cell_difference(earlier, cell),
        alpha=alpha,
    )


def _noise(cell: SavedCell) -> float:
    """Variance of the SRCC from the judgements alone; 0 where the record cannot tell."""
    import numpy as np

    row, record = cell.row, cell.record
    cluster = record.references if row.scenario == "fr" else None
    judged = judged_of(record, row.protocol)
    if judged is not None:
        tie_weight = 0.5 if row.preset == "sound" else 1.0
        scaling = record.configuration.get("scaling", "thurstone_map")
        return judgement_noise(
            judged, record.quality, cluster=cluster, scaling=scaling, tie_weight=tie_weight
        )
    rated = [(t.stimuli[0], t.judgement) for t in record.trials if isinstance(t.judgement, float)]
    stimulus = np.array([k for k, _ in rated], dtype=np.int64)
    ratings = np.array([score for _, score in rated])
    return rating_noise(stimulus, ratings, record.quality, cluster=cluster)


def power_lines(
    run: Run, drop: float, *, earlier: Run | None = None, alpha: float = 0.05
) -> list[str]:
    """What this run's size can see, and what would see ``drop``, a line per cell and option."""
    if earlier is not None:
        _shared_cells(earlier, run)
    lines = [f"To find an SRCC drop of {drop:g} with 80 % power (one-sided alpha {alpha:g}):"]
    for name, cell in run.cells.items():
        other = None if earlier is None else earlier.cell(name)
        try:
            own, *enough = cell_power(cell, drop, earlier=other, alpha=alpha)
        except ValueError as error:
            lines.append(f"  {name}: cannot be planned: {error}")
            continue
        lines.append(
            f"  {name}: now {_size(own)}: power {own.power:.0%}, "
            f"sees drops from {number(own.detectable)}"
        )
        lines += [f"    enough: {_size(option)}" for option in enough]
        if {option.repeats for option in enough} == {1}:
            lines.append(
                "    repeats: unknown what they buy; a baseline with --iqa-repeats 2 tells"
            )
    return lines


def _size(option: PlanOption) -> str:
    references = "" if option.n_clusters is None else f" in {option.n_clusters} references"
    repeats = "" if option.repeats == 1 else f", each trial {option.repeats} times"
    return f"{option.n:,} stimuli{references}{repeats} ({option.trials:,} trials)"


# --- Command line -------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    from iqa_checks.report.comparison_table import markdown, terminal

    given = _parser().parse_args(arguments)
    statistics: tuple[StatisticName, ...] = (
        ("srcc", "plcc") if given.statistic == "both" else (given.statistic,)
    )
    try:
        baseline = read(given.baseline)
        if given.power is not None:
            _check_rate("--power", given.power)
            earlier = None if given.candidate is None else read(given.candidate)
            lines = power_lines(baseline, given.power, earlier=earlier, alpha=given.alpha)
            print("\n".join(lines))
            return 0
        if given.candidate is None:
            raise UsageError("give two runs: BASELINE.json NOW.json (or --power DROP for one)")
        _check_rate("--margin", given.margin)
        _check_rate("--alpha", given.alpha)
        terms = Terms(given.goal, given.margin, given.alpha, given.strict, given.method, statistics)
        comparison = compare_runs(read(given.candidate), baseline, terms)
    except IqaChecksError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show = markdown if given.markdown else terminal
    print(show(comparison), end="")
    return 0 if comparison.passed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m iqa_checks.compare",
        description="Compare two saved runs (results.json or baselines), stimulus by stimulus.",
    )
    add = parser.add_argument
    add("baseline", type=Path, metavar="BASELINE.json")
    add("candidate", type=Path, metavar="NOW.json", nargs="?")
    add("--goal", choices=get_args(Goal), default="regression", help="what PASS must show")
    add("--margin", type=float, default=DEFAULT_MARGIN, help="smallest drop that matters")
    add("--alpha", type=float, default=0.05, help="false-alarm rate of the whole comparison")
    add("--statistic", choices=("srcc", "plcc", "both"), default="srcc")
    add("--method", choices=get_args(Method), default="jackknife")
    add("--strict", action="store_true", help="exit 1 on INCONCLUSIVE and SAME REPLIES too")
    add("--markdown", action="store_true", help="for a pull-request comment")
    add(
        "--power",
        type=float,
        metavar="DROP",
        help="what would find this drop: from one run, or better from two releases",
    )
    return parser


def _check_rate(option: str, value: float) -> None:
    if not 0 < value < 1:
        raise UsageError(f"{option} {value:g}: expected a number between 0 and 1")


if __name__ == "__main__":
    raise SystemExit(main())
