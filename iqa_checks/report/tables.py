"""Tables of rows, one function per format behind `TABLE_FORMATS`.

All formats show the same columns (`columns`); to add a format, add a function and a line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

from iqa_checks.report.row import Interval, Row

COLUMNS: dict[str, Callable[[Row], str]] = {
    "stimuli": lambda row: " ".join(
        [
            row.stimuli,
            row.scenario.upper(),
            *(["difficult"] if row.selection == "difficult" else []),
        ]
    ),
    "protocol": lambda row: row.protocol,
    "strategy": lambda row: row.strategy.replace("_", "-"),
    "n": lambda row: str(row.n),
    "SRCC [95 %]": lambda row: interval(row.srcc),
    "pooled": lambda row: number(row.srcc_pooled.value) if row.n_references else "",
    "PLCC [95 %]": lambda row: interval(row.plcc),
    "chance": lambda row: number(row.chance_srcc),
    "unparsed": lambda row: f"{row.unparsed_rate:.0%}",
    "trials": lambda row: str(row.trials),
    "verdict": lambda row: row.verdict,
}


#: Shown only where some row has them.
SOMETIMES: dict[str, Callable[[Row], str]] = {
    "retest": lambda row: number(row.retest),
}


def columns(rows: Sequence[Row]) -> dict[str, Callable[[Row], str]]:
    """The columns of a table of ``rows``: the verdict is always the last."""
    *always, verdict = COLUMNS
    shown = [name for name in SOMETIMES if any(getattr(row, name) is not None for row in rows)]
    both = COLUMNS | SOMETIMES
    return {name: both[name] for name in (*always, *shown, verdict)}


def printable(text: str) -> str:
    """A name as it may be shown: control characters are spelt out, not obeyed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def number(value: float | None) -> str:
    """ ".812", "-.120", or "-" for what is undefined."""
    if value is None:
        return "-"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def interval(measured: Interval) -> str:
    if measured.value is None:
        return "undefined"
    if measured.low is None or measured.high is None:
        return number(measured.value)
    return f"{number(measured.value)} [{number(measured.low)}, {number(measured.high)}]"


def cells(rows: Sequence[Row]) -> list[list[str]]:
    return [[printable(read(row)) for read in columns(rows).values()] for row in rows]


def terminal_table(rows: Sequence[Row], *, color: bool = False) -> str:
    """A table for a terminal, as wide as it needs to be: a cut figure is worse than a long line."""
    import rich.box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for name in columns(rows):
        right = name not in ("stimuli", "protocol", "strategy", "verdict")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for row, line in zip(rows, cells(rows), strict=True):
        style = {"FAIL": "bold red", "INCONCLUSIVE": "yellow"}.get(row.verdict, "green")
        table.add_row(*map(Text, line[:-1]), Text(line[-1], style=style))
    out = io.StringIO()
    colors: Any = "standard" if color else None
    console = Console(file=out, width=240, force_terminal=color, color_system=colors)
    console.print(table)
    return out.getvalue()


def markdown_table(rows: Sequence[Row]) -> str:
    def escaped(text: str) -> str:
        return text.replace("|", "\\|")

    heads = columns(rows)
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(map(escaped, line)) + " |" for line in cells(rows)]
    return "\n".join(lines) + "\n"


def csv_table(rows: Sequence[Row]) -> str:
    """Full precision, one column per number: for spreadsheets and scripts."""
    out = io.StringIO()
    writer = csv.writer(out)
    names = ("srcc", "srcc_pooled", "plcc", "plcc_raw", "krcc")
    parts = [f"{name}{part}" for name in names for part in ("", "_low", "_high")]
    plain = ("model", "stimuli", "scenario", "protocol", "strategy", "preset", "n", "trials")
    rates = ("chance_srcc", "chance_plcc", "unparsed_rate", "tie_rate", "position_bias", "retest")
    writer.writerow([*plain, *parts, *rates, "verdict"])
    for row in rows:
        intervals = [getattr(row, name) for name in names]
        values = [v for i in intervals for v in (i.value, i.low, i.high)]
        writer.writerow(
            [
                *(_csv_text(getattr(row, name)) for name in plain),
                *values,
                *(getattr(row, name) for name in rates),
                row.verdict,
            ]
        )
    return out.getvalue()


def _csv_text(value: object) -> object:
    """A name that a spreadsheet would take for a formula is quoted."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text[:1] in "=+-@" else text


TABLE_FORMATS: dict[str, Callable[[Sequence[Row]], str]] = {
    "terminal": terminal_table,
    "markdown": markdown_table,
    "csv": csv_table,
}
