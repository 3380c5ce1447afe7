"""The paper's Table 1 with this run's figures in it: SRCC of the nine prompting systems.

Columns are stimulus sets, sections are protocols, lines are models with a strategy. Where a column
is one of the paper's, its models' published figures stand beside ours (Wu et al. 2024, as
transcribed in ``data/paper_tables.yaml``). Our best figure of a section and column is bold; so is
the paper's own best, as printed there. Ours carry interval and unparsed rate, and each section
ends with what chance reaches.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from iqa_checks.paper import paper_tables
from iqa_checks.report.row import Interval, Row
from iqa_checks.report.tables import number, printable

_LETTER = {"standard": "S", "in_context": "I", "chain_of_thought": "C"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One figure; ``text`` of ours includes the interval, of the paper's only the value."""

    srcc: Interval
    unparsed_rate: float | None = None
    best: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A model with a strategy: one entry per column, None where it was not measured."""

    model: str
    strategy: str
    source: str  # "this run", "paper" or "chance"
    entries: tuple[Entry | None, ...]

    @property
    def label(self) -> str:
        if self.source == "chance":
            return "chance (95 %)"
        mark = " (paper)" if self.source == "paper" else ""
        return printable(f"{self.model}-{_LETTER.get(self.strategy, self.strategy)}{mark}")


@dataclass(frozen=True, slots=True)
class Table1:
    """``sections``: protocol name and its lines."""

    columns: tuple[str, ...]
    sections: tuple[tuple[str, tuple[Line, ...]], ...]


def table1(rows: Sequence[Row]) -> Table1:
    """Arrange rows (in table order) as the paper's Table 1."""
    columns = tuple(dict.fromkeys(_column(row) for row in rows))
    sections = []
    for protocol in dict.fromkeys(row.protocol for row in rows):
        members = [row for row in rows if row.protocol == protocol]
        ours = _with_best(_own_lines(members, columns))
        theirs = _with_best(_paper_lines(protocol, columns))
        chance = tuple(_chance(members, column) for column in columns)
        lines = (*theirs, *ours, Line("chance", "", "chance", chance))
        sections.append((protocol, lines))
    return Table1(columns, tuple(sections))


def _column(row: Row) -> str:
    if row.selection == "difficult":  # the paper's Table 1 is on uniform samples
        return printable(f"{row.stimuli} {row.scenario.upper()} difficult")
    published = row.stimuli in paper_tables()["table1"]["columns"]
    return printable(row.stimuli if published else f"{row.stimuli} {row.scenario.upper()}")


def _own_lines(rows: Sequence[Row], columns: Sequence[str]) -> list[Line]:
    lines = []
    for model, strategy in dict.fromkeys((row.model, row.strategy) for row in rows):
        found = {
            _column(row): Entry(row.srcc, row.unparsed_rate)
            for row in rows
            if (row.model, row.strategy) == (model, strategy)
        }
        lines.append(Line(model, strategy, "this run", tuple(map(found.get, columns))))
    return lines


def _paper_lines(protocol: str, columns: Sequence[str]) -> list[Line]:
    table = paper_tables()["table1"]
    places = [table["columns"].index(c) if c in table["columns"] else None for c in columns]
    if all(place is None for place in places):
        return []
    return [
        Line(
            published["model"],
            published["strategy"],
            "paper",
            tuple(
                None if k is None else Entry(Interval(published["srcc"][k], None, None, None))
                for k in places
            ),
        )
        for published in table["rows"]
        if published["protocol"] == protocol
    ]


def _with_best(lines: Sequence[Line]) -> list[Line]:
    best = {
        max(scored)[1:]
        for column in range(len(lines[0].entries) if lines else 0)
        if (
            scored := [
                (entry.srcc.value, k, column)
                for k, line in enumerate(lines)
                if (entry := line.entries[column]) is not None and entry.srcc.value is not None
            ]
        )
    }
    return [
        replace(
            line,
            entries=tuple(
                replace(e, best=True) if e is not None and (k, column) in best else e
                for column, e in enumerate(line.entries)
            ),
        )
        for k, line in enumerate(lines)
    ]


def _chance(rows: Sequence[Row], column: str) -> Entry | None:
    levels = [r.chance_srcc for r in rows if _column(r) == column and r.chance_srcc is not None]
    return Entry(Interval(max(levels), None, None, None)) if levels else None


def _text(entry: Entry | None) -> str:
    if entry is None:
        return ""
    text = "undefined" if entry.srcc.value is None else number(entry.srcc.value)
    if entry.srcc.low is not None:
        text += f" [{number(entry.srcc.low)}, {number(entry.srcc.high)}]"
    if entry.unparsed_rate:
        text += f" {entry.unparsed_rate:.0%} unparsed"
    return text


def terminal(table: Table1, *, color: bool = False) -> str:
    import rich.box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for name in ("SRCC", *table.columns):
        grid.add_column(name, justify="left" if name == "SRCC" else "right", no_wrap=True)
    for protocol, lines in table.sections:
        grid.add_row(Text(f"{protocol}-stimulus", style="italic"))
        for line in lines:
            texts = [Text(_text(e), style="bold" if e and e.best else "") for e in line.entries]
            grid.add_row(Text(line.label), *texts)
        grid.add_section()
    out = io.StringIO()
    colors: Any = "standard" if color else None
    Console(file=out, width=240, force_terminal=color, color_system=colors).print(grid)
    return out.getvalue()


def markdown(table: Table1) -> str:
    out = [
        "| SRCC | " + " | ".join(table.columns) + " |",
        "|" + " --- |" * (len(table.columns) + 1),
    ]
    for protocol, lines in table.sections:
        out.append(f"| *{protocol}-stimulus* |" + " |" * len(table.columns))
        for line in lines:
            texts = [f"**{_text(e)}**" if e and e.best else _text(e) for e in line.entries]
            out.append(f"| {line.label} | " + " | ".join(texts) + " |")
    return "\n".join(out) + "\n"


def csv_long(table: Table1) -> str:
    """One line per figure, full precision."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(
        ["protocol", "model", "strategy", "source", "stimuli", "srcc", "low", "high", "unparsed"]
    )
    for protocol, lines in table.sections:
        for line in lines:
            for column, e in zip(table.columns, line.entries, strict=True):
                if e is not None:
                    figures = [e.srcc.value, e.srcc.low, e.srcc.high, e.unparsed_rate]
                    head = [protocol, line.model, line.strategy, line.source, column]
                    writer.writerow([*head, *figures])
    return out.getvalue()


def latex(table: Table1) -> str:
    """A booktabs tabular, as the paper sets it."""
    width = len(table.columns) + 1
    out = [rf"\begin{{tabular}}{{l{'c' * (width - 1)}}}", r"\toprule"]
    out.append(" & ".join(["Method", *map(_escaped, table.columns)]) + r" \\")
    for protocol, lines in table.sections:
        title = f"{protocol.capitalize()}-stimulus Method"
        out += [r"\midrule", rf"\multicolumn{{{width}}}{{c}}{{{title}}} \\", r"\midrule"]
        for line in lines:
            texts = [_latex_entry(e) for e in line.entries]
            out.append(" & ".join([_escaped(line.label), *texts]) + r" \\")
    return "\n".join([*out, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_entry(entry: Entry | None) -> str:
    text = _escaped(_text(entry))
    return rf"\textbf{{{text}}}" if entry is not None and entry.best else text


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


TABLE1_FILES: dict[str, Callable[[Table1], str]] = {
    "table1.md": markdown,
    "table1.csv": csv_long,
    "table1.tex": latex,
}
