"""The end of a run: the summary in the terminal and the files of ``--iqa-out``."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_checks.report.row import Row
from iqa_checks.report.table1 import TABLE1_FILES, table1, terminal
from iqa_checks.report.tables import csv_table, markdown_table, printable, terminal_table

if TYPE_CHECKING:
    from iqa_checks.baseline import Run
    from iqa_checks.broker import Totals
    from iqa_checks.compare import RunComparison
    from iqa_checks.settings import Settings


def summary_lines(
    rows: Sequence[Mapping[str, Any]],
    absent: Mapping[str, str],
    settings: Settings,
    totals: Totals | None,
    *,
    color: bool,
    experts: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """Who was asked, the table, what must be known to read it, and what was not measured."""
    from iqa_checks.report import difficult

    ordered = in_order(rows)
    only_experts = bool(experts) and not ordered and totals is None
    lines = [] if only_experts else headline(settings).splitlines()
    lines += replies_line(totals) if totals else ()
    if ordered:
        lines += terminal_table(ordered, color=color).rstrip().splitlines()
    if len({row.strategy for row in ordered}) > 1:
        arranged = table1(ordered)
        published = any(line.source == "paper" for _, ls in arranged.sections for line in ls)
        lines += [
            "SRCC beside the paper's Table 1" if published else "SRCC by prompting system",
            *terminal(arranged, color=color).splitlines(),
        ]
    measured = difficult.in_order(experts)
    compared = difficult.compare_with_experts(ordered, measured, settings)
    lines += compared.lines(color=color)
    said = [f"note: {note}" for note in dict.fromkeys((*_notes(ordered), *compared.notes))]
    said += [f"warning: {text}" for text in _not_as_asked(ordered)]
    said += [f"warning: {row.cell}: {w}" for row in ordered for w in row.warnings]
    lacking = {reason for one in measured for reason in one.absent} | set(absent)
    said += [f"not measured: {reason}" for reason in sorted(lacking)]
    return [*lines, *map(printable, said)]


def plan_lines(planned: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of ``--iqa-plan``, cells in name order."""
    from iqa_checks.report.plan import PlanLine, plan_table

    lines = sorted((PlanLine(**line) for line in planned), key=lambda line: line.cell)
    return plan_table(lines) if lines else []


def headline(settings: Settings) -> str:
    """Who was asked, and why or by whom served: a name that stands for another says which."""
    from iqa_checks.models import SIMULATED, find_model, is_served_here

    spec = find_model(settings.model)
    asked = "simulated observer" if spec.provider in SIMULATED else spec.model
    known = [*(() if asked in settings.model else (asked,)), settings.model_reason]
    if is_served_here(spec, settings.access):
        from iqa_checks.models.engines import engine_line

        known.append(engine_line(spec, settings.access.serving))
    said = "; ".join(filter(None, known))
    model = f"{settings.model} ({said})" if said else settings.model
    note = f"\nnote: {settings.model}: {spec.note}" if spec.note else ""
    soft = ", soft answers (rankings as written)" if settings.soft else ""
    return f"model {model}, preset {settings.preset}, seed {settings.seed}{soft}{note}"


def replies_line(totals: Totals) -> list[str]:
    line = f"replies: {totals.new} new, {totals.resumed} resumed, {totals.reused} reused"
    if totals.oldest_reused_at:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(totals.oldest_reused_at))
        line += f" (the oldest from {when})"
    tokens = totals.prompt_tokens + totals.completion_tokens
    retries = f"; {totals.retries} retries" if totals.retries else ""
    return [line + (f"; {tokens:,} tokens" if tokens else "") + retries]


def in_order(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows in the order of their cells, whatever order workers finished in."""
    read = [Row.from_plain(dict(row)) for row in rows]
    protocols = ("single", "double", "multiple")
    strategies = ("standard", "in_context", "chain_of_thought")

    def place(row: Row) -> tuple[object, ...]:
        known = row.strategy in strategies
        strategy = strategies.index(row.strategy) if known else len(strategies)
        return row.stimuli, row.scenario, protocols.index(row.protocol), strategy, row.cell

    return sorted(read, key=place)


def write_results(
    folder: Path, run: Run, settings: Settings, comparison: RunComparison | None = None
) -> list[Path]:
    """Write ``results.{json,md,csv}``, and Tables 1 to 3 as Markdown, CSV and LaTeX.

    ``results.json`` is a run as baselines hold it (``data/results.schema.json``).
    """
    from iqa_checks.baseline import dumped
    from iqa_checks.report import difficult

    ordered = run.rows
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "results.json": dumped(run),
        "results.md": markdown_summary(run, settings, comparison),
        "results.csv": csv_table(ordered),
    }
    if ordered:
        arranged = table1(ordered)
        files |= {name: render(arranged) for name, render in TABLE1_FILES.items()}
    files |= difficult.compare_with_experts(ordered, run.experts, settings).files()
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in files]


def append_summary(
    path: Path, run: Run, settings: Settings, comparison: RunComparison | None
) -> None:
    """Add the Markdown summary to a job's, where other steps may have written before."""
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(f"{markdown_summary(run, settings, comparison)}\n")


def markdown_summary(run: Run, settings: Settings, comparison: RunComparison | None = None) -> str:
    """For a pull-request comment or a job summary: the table, what failed and why, and the
    comparison with the baseline."""
    from iqa_checks.report import difficult
    from iqa_checks.report.comparison_table import markdown

    compared = difficult.compare_with_experts(run.rows, run.experts, settings)
    why = [f"**{row.verdict}** {row.cell}: {row.explanation}" for row in run.rows if not row.passed]
    notes = dict.fromkeys((*_notes(run.rows), *compared.notes))
    said = "".join(f"- {printable(text)}\n" for text in (*why, *_not_as_asked(run.rows), *notes))
    cells = f"{headline(settings)}\n\n{markdown_table(run.rows)}" if run.rows else ""
    text = "\n".join(filter(None, (cells, compared.markdown(), said)))
    return text if comparison is None else f"{text}\n{markdown(comparison)}\n"


def _not_as_asked(rows: Sequence[Row]) -> list[str]:
    """What the endpoint would not take or give, said once for the run."""
    said = list(dict.fromkeys(f"{row.model}: {text}" for row in rows for text in row.parameters))
    softly = [(row.soft, row.trials - sum(row.unparsed.values())) for row in rows]
    usable = sum(n for share, n in softly if share is not None)
    read = round(sum(share * n for share, n in softly if share is not None))
    if read < usable:
        said.append(
            f"--iqa-soft: {usable - read} of {usable} usable ratings and preferences are read as "
            "written, since no log-probabilities came with them or none that fit"
        )
    return said


def _notes(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(f"{row.stimuli}: {note}" for row in rows for note in row.notes))


def versions() -> dict[str, str]:
    from importlib.metadata import version

    packages = ("iqa_checks", "numpy", "scipy", "pillow", "openai", "pytest")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
