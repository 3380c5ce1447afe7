"""Saved baselines as a history: ``python -m iqa_checks.history .iqa/baselines``.

Releases stand in the order of their numbers, never of a clock. Each cell has its SRCC with its
95 % interval, and every release is held against the one before it: what became worse or better is
significant after Holm's correction over the cells of that step.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from iqa_checks.baseline import Run, baselines, read
from iqa_checks.compare import CellComparison, Terms, compare_runs
from iqa_checks.comparison import holm
from iqa_checks.errors import IqaChecksError, UsageError
from iqa_checks.report.tables import interval, number


@dataclass(frozen=True, slots=True)
class Step:
    """What one release changed against the one before.

    ``refused`` says why they cannot be compared; the lists hold sentences.
    """

    before: str
    now: str
    worse: tuple[str, ...] = ()
    better: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class History:
    """Runs in order, the steps between them, and what could not be read."""

    runs: tuple[Run, ...]
    steps: tuple[Step, ...]
    unreadable: tuple[str, ...]

    @property
    def cells(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.cell for run in self.runs for row in run.rows))


def history(folder: Path, *, alpha: float = 0.05) -> History:
    """Read all baselines of a folder and compare each with the one before it.

    Raises `UsageError` where the folder holds no readable baseline.
    """
    runs, unreadable = [], []
    for path in baselines(folder):
        try:
            runs.append(read(path))
        except IqaChecksError as error:
            unreadable.append(str(error))
    if not runs:
        raise UsageError(
            unreadable[0] if unreadable else f"no baselines in {folder}; save one: --iqa-save NAME"
        )
    steps = [step_between(before, now, alpha=alpha) for before, now in itertools.pairwise(runs)]
    return History(tuple(runs), tuple(steps), tuple(unreadable))


def step_between(before: Run, now: Run, *, alpha: float = 0.05) -> Step:
    """Cells that became significantly worse or better."""
    try:
        compared = compare_runs(now, before, Terms(alpha=alpha))
    except UsageError as error:
        return Step(before.title, now.title, refused=str(error))
    better = holm([line.difference.p_better for line in compared.lines])
    return Step(
        before=before.title,
        now=now.title,
        worse=tuple(_said(x) for x in compared.lines if x.decision.status == "FAIL"),
        better=tuple(
            _said(x)
            for x, p in zip(compared.lines, better, strict=True)
            if p is not None and p < alpha
        ),
        new=compared.new,
        gone=compared.orphaned,
    )


def _said(line: CellComparison) -> str:
    found = line.difference
    return f"{line.cell} {number(found.baseline)} -> {number(found.candidate)}"


def table(found: History) -> list[list[str]]:
    """Cells by releases; the first line is the head."""
    rows = [{row.cell: row for row in run.rows} for run in found.runs]
    head = ["SRCC [95 %]", *(run.title for run in found.runs)]
    body = [
        [cell, *(interval(row[cell].srcc) if cell in row else "" for row in rows)]
        for cell in found.cells
    ]
    return [head, *body]


def terminal(found: History) -> str:
    lines = table(found)
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    text = ["  ".join(f"{t:{w}}" for t, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([*(line.rstrip() for line in text), "", *sentences(found)]) + "\n"


def markdown(found: History) -> str:
    head, *body = table(found)
    lines = ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *body)]
    return "\n".join([*lines, "", *(f"- {said}" for said in sentences(found))]) + "\n"


def sentences(found: History) -> list[str]:
    """Which release changed what, and what could not be told."""
    said = []
    for run in found.runs:
        commit = f", commit {run.commit[:12]}" if run.commit else ""
        partial = f", partial: {' '.join(run.partial)}" if run.partial else ""
        said.append(f"{run.title}: {run.model}{commit}{partial}")
    for step in found.steps:
        said += _of_step(step)
    return said + [f"unreadable: {reason}" for reason in found.unreadable]


def _of_step(step: Step) -> list[str]:
    if step.refused:
        return [f"{step.now}: not compared with {step.before}: {step.refused}"]
    parts = [("worse", step.worse), ("better", step.better), ("new", step.new), ("gone", step.gone)]
    changed = [f"{step.now} {what}: {', '.join(cells)}" for what, cells in parts if cells]
    return changed or [f"{step.now}: nothing changed significantly since {step.before}"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m iqa_checks.history", description="Saved baselines as a history."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="where --iqa-save writes")
    parser.add_argument("--alpha", type=float, default=0.05, help="false-alarm rate of a step")
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args(arguments)
    try:
        if not 0 < given.alpha < 1:
            raise UsageError(f"--alpha {given.alpha:g}: expected a number between 0 and 1")
        found = history(given.folder, alpha=given.alpha)
    except IqaChecksError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print((markdown if given.markdown else terminal)(found), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
