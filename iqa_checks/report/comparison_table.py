"""Two releases side by side: a line per cell, and the sentence behind every verdict but PASS.

Terminal and Markdown show the same columns (`COLUMNS`).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from iqa_checks.report.tables import number

if TYPE_CHECKING:
    from iqa_checks.compare import CellComparison, RunComparison
    from iqa_checks.comparison import Difference

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
