"""The end of a run, and a run beside an earlier release: ``--iqa-save`` and ``--iqa-compare``.

The baseline is read, and refused, before anything is asked; each cell is held against it before
its first question; the comparison itself waits for all cells, since Holm's correction needs them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from iqa_checks.baseline import (
    CellRecord,
    Run,
    SavedCell,
    baselines,
    current_commit,
    find,
    read,
    save,
)
from iqa_checks.compare import (
    RunComparison,
    Terms,
    cell_difference,
    compare_runs,
    power_lines,
)
from iqa_checks.errors import IqaChecksError, UsageError

if TYPE_CHECKING:
    from iqa_checks.broker import LocalAsker
    from iqa_checks.report.difficult import Measured
    from iqa_checks.settings import Settings


def baseline_of(settings: Settings) -> Run | None:
    """The baseline of ``--iqa-compare``; `UsageError` where this run could not be compared."""
    if settings.compare is None:
        return None
    baseline = _read(find(settings.compare, settings.storage))
    for name in ("preset", "seed"):
        now, before = getattr(settings, name), getattr(baseline, name)
        if now != before:
            raise UsageError(
                f"--iqa-compare {baseline.title}: its {name} is {before}, this run's {now}; "
                f"give the same, or save a new baseline"
            )
    return baseline


def namesakes(settings: Settings) -> list[str]:
    """A line where the name of ``--iqa-compare`` means several baselines: the newest is taken."""
    if settings.compare is None or not settings.storage.is_dir():
        return []
    suffix = f"_{settings.compare}.json"
    same = [path.stem for path in baselines(settings.storage) if path.name.endswith(suffix)]
    if len(same) < 2:
        return []
    return [f"note: {len(same)} baselines are called {settings.compare}: {same[-1]}, the newest, "
            f"is taken; name another by its number"]  # fmt: skip


@cache
def _read(path: Path) -> Run:
    return read(path)


def run_of(
    rows: Sequence[Mapping[str, Any]],
    records: Mapping[str, Mapping[str, Any]],
    settings: Settings,
    asker: LocalAsker | None,
    *,
    started_at: float,
    partial: Sequence[str],
    folder: Path,
    experts: Sequence[Measured] = (),
) -> Run:
    """The whole run as one record: what is written, saved and compared."""
    from iqa_checks.report.summary import in_order, versions

    totals = None if asker is None else asker.broker.totals
    price = settings.spec.price_per_million
    cost = None
    counted = totals is not None and (totals.prompt_tokens > 0 or totals.new == 0)
    if totals is not None and counted and price is not None:  # tokens nobody counted are not free
        cost = (totals.prompt_tokens * price[0] + totals.completion_tokens * price[1]) / 1e6
    return Run(
        model=", ".join(dict.fromkeys(row["model"] for row in rows)) or settings.model,
        fingerprint=None if asker is None else asker.broker.backend.fingerprint,
        preset=settings.preset,
        seed=settings.seed,
        rows=tuple(in_order(rows)),
        records={cell: CellRecord.from_plain(dict(plain)) for cell, plain in records.items()},
        started_at=started_at,
        saved_at=time.time(),
        replies=None if totals is None else asdict(totals),
        cost=cost,
        commit=current_commit(folder),
        versions=versions(),
        partial=tuple(partial),
        experts=tuple(experts),
    )


def properties_of(cell: SavedCell, baseline: Run | None) -> list[tuple[str, float | str | None]]:
    """What JUnit XML holds of a cell: its figures, and how they differ from the baseline's.

    ``iqa_p_worse`` is one-sided and the cell's own: Holm's correction needs all cells, and stands
    in the comparison at the end of the run.
    """
    row = cell.row
    found: list[tuple[str, float | str | None]] = [
        ("iqa_srcc", row.srcc.value),
        ("iqa_srcc_low", row.srcc.low),
        ("iqa_srcc_high", row.srcc.high),
        ("iqa_plcc", row.plcc.value),
        ("iqa_unparsed_rate", row.unparsed_rate),
        ("iqa_verdict", row.verdict),
    ]
    before = None if baseline is None else baseline.cell(row.cell)
    if before is None:
        return found
    difference = cell_difference(cell, before)
    return [
        *found,
        ("iqa_baseline_srcc", difference.baseline),
        ("iqa_difference", difference.value),
        ("iqa_p_worse", difference.p_worse),
    ]


@dataclass
class Conclusion:
    """What the end of a run says and means for its exit status.

    ``problem``: 'worse' where the comparison failed, 'usage' where something could not be compared,
    written or saved, '' otherwise.
    """

    lines: list[str] = field(default_factory=list)
    problem: Literal["", "worse", "usage"] = ""


def conclude(
    run: Run,
    settings: Settings,
    *,
    save_as: str | None,
    allow_partial: bool,
    environment: Mapping[str, str],
) -> Conclusion:
    """Compare, write and save a finished run, and tell the workflow that it ran in.

    ``environment``: GITHUB_ACTIONS asks for annotations, GITHUB_STEP_SUMMARY names the file that a
    job's summary is appended to.
    """
    from iqa_checks.report.annotations import workflow_commands
    from iqa_checks.report.comparison_table import terminal
    from iqa_checks.report.summary import append_summary, write_results

    done = Conclusion()
    try:
        comparison = compared(run, settings)
        if comparison is not None:
            done.lines += [*namesakes(settings), *terminal(comparison).splitlines()]
            done.lines.append(comparison.headline)
            if not comparison.passed:
                done.problem = "worse"
                run = replace(run, partial=(*run.partial, f"{comparison.headline}."))
        if settings.out is not None:
            paths = write_results(settings.out, run, settings, comparison)
            done.lines.append("wrote " + ", ".join(map(str, paths)))
        if environment.get("GITHUB_ACTIONS") == "true":
            done.lines += workflow_commands(run.rows, comparison)
        if environment.get("GITHUB_STEP_SUMMARY"):
            append_summary(Path(environment["GITHUB_STEP_SUMMARY"]), run, settings, comparison)
        if save_as:
            path = save(run, settings.storage, save_as, allow_partial=allow_partial)
            done.lines.append(f"saved baseline {path}")
    except (IqaChecksError, OSError) as error:
        done.lines.append(f"error: {error}")
        done.problem = done.problem or "usage"
    return done


def compared(run: Run, settings: Settings) -> RunComparison | None:
    """The run held against its baseline; None without ``--iqa-compare`` or without cells."""
    baseline = baseline_of(settings)
    if baseline is None or not run.rows:
        return None
    terms = Terms(
        goal=settings.goal,
        margin=settings.margin,
        alpha=settings.alpha,
        strict=settings.strict,
        method=settings.method,
        statistics=settings.statistics,
    )
    return compare_runs(run, baseline, terms)


def power(settings: Settings, drop: float) -> list[str]:
    """``--iqa-power``: what the baseline's size can see, and what would see ``drop``."""
    baseline = baseline_of(settings)
    if baseline is None:
        raise UsageError("--iqa-power needs the baseline to plan from: add --iqa-compare NAME")
    if not 0 < drop < 1:
        raise UsageError(f"--iqa-power {drop:g}: expected a drop of SRCC between 0 and 1")
    return power_lines(baseline, drop, alpha=settings.alpha)
