"""Two saved runs against each other: ``python -m iqa_checks.compare BASELINE.json NOW.json``.

Cells are compared stimulus by stimulus, by the statistic that is their headline: pooled SRCC (NR),
mean SRCC over references (FR). Exit status: 0, 1 where a cell fails, 2 where the runs cannot be
compared or read.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from iqa_checks.baseline import CellRecord, Run, judged_of, mismatch, read
from iqa_checks.comparison import (
    DEFAULT_MARGIN,
    Decision,
    Difference,
    Goal,
    Method,
    Status,
    compare,
    decide,
    holm,
)
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
    """How two runs are held against each other; see `iqa_checks.comparison.decide`.

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

    def of_cell(self, cell: str) -> tuple[CellComparison, ...]:
        return tuple(line for line in self.lines if line.cell == cell)


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
        (cell, name, _difference(candidate, baseline, cell, name, terms))
        for cell in shared
        for name in terms.statistics
    ]
    adjusted = holm([difference.p_worse for _, _, difference in measured])
    lines = tuple(
        _line(candidate, baseline, cell, name, difference, p, terms)
        for (cell, name, difference), p in zip(measured, adjusted, strict=True)
    )
    now, before = ([row.cell for row in run.rows] for run in (candidate, baseline))
    return RunComparison(
        baseline=_described(baseline),
        candidate=_described(candidate),
        terms=terms,
        lines=lines,
        new=tuple(cell for cell in now if cell not in before),
        orphaned=tuple(cell for cell in before if cell not in now),
        notes=tuple(_run_notes(candidate, baseline)),
    )


def _shared_cells(candidate: Run, baseline: Run) -> list[str]:
    for name in ("preset", "seed"):
        now, before = getattr(candidate, name), getattr(baseline, name)
        if now != before:
            raise UsageError(
                f"{name} {now} cannot be compared with baseline {baseline.title}, which has "
                f"{before}: the runs answered other questions"
            )
    before = {row.cell: row for row in baseline.rows}
    shared = [row for row in candidate.rows if row.cell in before]
    problems = []
    for row in shared:
        found = mismatch(
            (row.manifest, candidate.records[row.cell].configuration),
            (before[row.cell].manifest, baseline.records[row.cell].configuration),
        )
        problems += [f"{row.cell}: {found}"] if found else []
    if problems:
        more = f" (and {len(problems) - 1} more cells)" if len(problems) > 1 else ""
        raise UsageError(f"not comparable with baseline {baseline.title}: {problems[0]}{more}")
    if not shared:
        raise UsageError(
            f"no cell of this run is in baseline {baseline.title}, which has: "
            + (", ".join(list(before)[:6]) or "none")
        )
    return [row.cell for row in shared]


def _difference(
    candidate: Run, baseline: Run, cell: str, name: StatisticName, terms: Terms
) -> Difference:
    """The paired difference of a cell's headline, over the stimuli that both runs scored."""
    now, before, quality, references = _aligned(candidate, baseline, cell)
    row = baseline.row(cell)
    clustered, paper = row.scenario == "fr", row.preset == "paper"
    options: dict[str, Any] = {
        "statistic": "srcc_after_logistic" if paper and name == "srcc" else name,
        "direction": "free" if paper else "increasing",
        "undefined": "zero" if paper else "exclude",
    }
    if clustered:
        averaged = name == "srcc" or paper
        options["cluster"] = references
        options["summary"] = "cluster_mean" if averaged else "pooled"
        options["method"] = "jackknife" if averaged else terms.method
    elif not paper:
        options["method"] = terms.method
    return compare(now, before, quality, **options)


def _aligned(
    candidate: Run, baseline: Run, cell: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Scores of both, human scores and references of the stimuli that both scored."""
    import numpy as np

    orders = [_order(run.row(cell)) for run in (candidate, baseline)]
    scores = [
        np.array([_score(run.row(cell), k) for k in order], dtype=np.float64)
        for run, order in zip((candidate, baseline), orders, strict=True)
    ]
    record = baseline.records[cell]
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
    candidate: Run,
    baseline: Run,
    cell: str,
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
    decision = _own_replies(decision, same_replies(candidate, baseline, cell), terms.strict)
    notes = _cell_notes(candidate, baseline, cell, difference)
    return CellComparison(cell, name.upper(), difference, decision, tuple(notes))


def same_replies(candidate: Run, baseline: Run, cell: str) -> float:
    """Share of the candidate's trials that hold the baseline's very replies, 0..1.

    Told by question and time of reply: an answer that was asked anew has another time, whatever
    it says.
    """
    now, before = (_reply_times(run, cell) for run in (candidate, baseline))
    if not now:
        return 0.0
    return sum(before.get(key) == at and at > 0 for key, at in now.items()) / len(now)


def _reply_times(run: Run, cell: str) -> dict[tuple[tuple[str, ...], int], float]:
    hashes = [item[1] for item in run.row(cell).per_stimulus]
    return {
        (tuple(hashes[i] for i in trial.stimuli), trial.repeat): trial.replied_at
        for trial in run.records[cell].trials
    }


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


def _cell_notes(candidate: Run, baseline: Run, cell: str, difference: Difference) -> list[str]:
    notes = []
    row = candidate.row(cell)
    if difference.n < row.n and not difference.lost:
        notes.append(f"compared on the {difference.n} of {row.n} stimuli that can be.")
    if difference.reason and difference.value is not None:
        notes.append(f"{difference.reason}.")
    told = (_unparsed_changed(row, baseline.row(cell)), _trials_changed(candidate, baseline, cell))
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


def _trials_changed(candidate: Run, baseline: Run, cell: str) -> str | None:
    """A fixed design must ask the same trials; an adaptive one must not be asked the baseline's.

    Swiss pairing follows the answers of the model that is asked. The baseline's pairs suit the
    baseline: asked the same pairs, a release as good scores .04 to .1 lower (docs/gates.md).
    """
    now, before = (set(_reply_times(run, cell)) for run in (candidate, baseline))
    row, record = candidate.row(cell), candidate.records[cell]
    if not _adaptive(row, record):
        other = len(now - before)
        return f"{other} of {len(now)} trials are not the baseline's." if other else None
    said = [
        [t.judgement for t in run.records[cell].trials if t.usable] for run in (candidate, baseline)
    ]
    if now != before or said[0] == said[1]:
        return None
    return "both answered one adaptive trial list, which favours the one that it was made for."


def _adaptive(row: Row, record: CellRecord) -> bool:
    from iqa_checks.protocols import ROUND_ROBIN_LIMIT

    groups = Counter(record.references if row.scenario == "fr" else [""] * row.n)
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
    run: Run, cell: str, drop: float, *, earlier: Run | None = None, alpha: float = 0.05
) -> list[PlanOption]:
    """`power_plan` of one cell of a saved run; its own size first.

    ``earlier``: another release on the same stimuli, to see how much two releases resemble.

    Raises `ValueError` where the cell's data cannot tell.
    """
    now, _, quality, references = _aligned(run, run, cell)
    row, record = run.row(cell), run.records[cell]
    clustered = row.scenario == "fr"
    typical = None
    if earlier is not None and any(other.cell == cell for other in earlier.rows):
        typical = _difference(earlier, run, cell, "srcc", Terms())
    return power_plan(
        now,
        quality,
        drop=drop,
        cluster=references if clustered else None,
        summary="cluster_mean" if clustered else "pooled",
        n_trials=len(record.trials),
        noise_variance=0.0 if clustered else _noise(row, record),
        typical=typical,
        alpha=alpha,
    )


def _noise(row: Row, record: CellRecord) -> float:
    """Variance of Fisher's z from the judgements alone, as far as the record can tell."""
    import numpy as np

    judged = judged_of(record, row.protocol)
    if judged is not None:
        tie_weight = 0.5 if row.preset == "sound" else 1.0
        scaling = record.configuration.get("scaling", "thurstone_map")
        return judgement_noise(judged, record.quality, scaling=scaling, tie_weight=tie_weight)
    rated = [(t.stimuli[0], t.judgement) for t in record.trials if isinstance(t.judgement, float)]
    stimulus = np.array([k for k, _ in rated], dtype=np.int64)
    return rating_noise(stimulus, np.array([score for _, score in rated]), record.quality)


def power_lines(
    run: Run, drop: float, *, earlier: Run | None = None, alpha: float = 0.05
) -> list[str]:
    """What this run's size can see, and what would see ``drop``, a line per cell and option."""
    if earlier is not None:
        _shared_cells(earlier, run)
    lines = [f"To find an SRCC drop of {drop:g} with 80 % power (one-sided alpha {alpha:g}):"]
    for row in run.rows:
        try:
            options = cell_power(run, row.cell, drop, earlier=earlier, alpha=alpha)
        except ValueError as error:
            lines.append(f"  {row.cell}: cannot be planned: {error}")
            continue
        own, *enough = options
        lines.append(
            f"  {row.cell}: now {_size(own)}: power {own.power:.0%}, "
            f"sees drops from {number(own.detectable)}"
        )
        lines += [f"    enough: {_size(option)}" for option in enough]
    return lines


def _size(option: PlanOption) -> str:
    references = "" if option.n_clusters is None else f" in {option.n_clusters} references"
    repeats = "" if option.repeats == 1 else f", each trial {option.repeats} times"
    return f"{option.n:,} stimuli{references}{repeats} ({option.trials:,} trials)"


# --- Tables -------------------------------------------------------------------------------------

COLUMNS: dict[str, Callable[[CellComparison], str]] = {
    "cell": lambda line: line.cell,
    "": lambda line: line.statistic,
    "baseline": lambda line: number(line.difference.baseline),
    "now": lambda line: number(line.difference.candidate),
    "difference [95 %]": lambda line: _interval(line.difference),
    "p (Holm)": lambda line: _p_value(line.decision.p_adjusted),
    "detectable": lambda line: number(line.decision.detectable),
    "verdict": lambda line: line.decision.status,
}
_STYLES = {"FAIL": "bold red", "PASS": "green"}


def terminal(comparison: RunComparison, *, color: bool = False) -> str:
    """The table and the sentences behind every verdict that is not PASS."""
    import rich.box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for name in COLUMNS:
        left = name in ("cell", "", "verdict")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for line in comparison.lines:
        *texts, status = (read(line) for read in COLUMNS.values())
        table.add_row(*map(Text, texts), Text(status, style=_STYLES.get(status, "yellow")))
    out = io.StringIO()
    colors: Any = "standard" if color else None
    console = Console(file=out, width=240, force_terminal=color, color_system=colors)
    console.print(table)
    head = f"{comparison.candidate} against {comparison.baseline}"
    return "\n".join([head, out.getvalue().rstrip("\n"), *_sentences(comparison)]) + "\n"


def markdown(comparison: RunComparison) -> str:
    """For a pull-request comment or a job summary."""
    head = (
        f"### Image quality: {comparison.status}\n\n"
        f"{comparison.candidate} against {comparison.baseline}"
    )
    rows = [
        "| " + " | ".join(COLUMNS) + " |",
        "|" + " --- |" * len(COLUMNS),
    ]
    for line in comparison.lines:
        *texts, status = (read(line).replace("|", "\\|") for read in COLUMNS.values())
        rows.append("| " + " | ".join([*texts, f"**{status}**"]) + " |")
    sentences = [f"- {text.replace('|', chr(92) + '|')}" for text in _sentences(comparison)]
    return "\n".join([head, "", *rows, "", *sentences]) + "\n"


def _sentences(comparison: RunComparison) -> list[str]:
    said = [
        f"{line.decision.status} {line.cell}: {line.decision.sentence}"
        for line in sorted(comparison.lines, key=lambda line: line.decision.status != "FAIL")
        if line.decision.status != "PASS"
    ]
    said += [f"note: {line.cell}: {note}" for line in comparison.lines for note in line.notes]
    said += [f"new, not in the baseline: {cell}" for cell in comparison.new]
    said += [f"orphaned, only in the baseline: {cell}" for cell in comparison.orphaned]
    return said + [f"note: {note}" for note in comparison.notes]


def _interval(difference: Difference) -> str:
    if difference.value is None:
        return "-"
    if difference.low is None or difference.high is None:
        return _signed(difference.value)
    return f"{_signed(difference.value)} [{_signed(difference.low)}, {_signed(difference.high)}]"


def _signed(value: float) -> str:
    text = number(round(value, 3) + 0.0)
    return text if text.startswith("-") else f"+{text}"


def _p_value(p: float | None) -> str:
    if p is None:
        return "-"
    return "<.0001" if p < 1e-4 else f"{p:.4f}".replace("0.", ".", 1)


# --- Command line -------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
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
