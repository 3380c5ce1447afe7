"""The paper's Tables 2 and 3 with this run's figures: MLLMs against experts, difficult samples.

Table 2 is full-reference and colour difference, Table 3 no-reference. Each stimulus set has an
SRCC and a PLCC column; sections are experts and MLLMs, each MLLM with its best prompting system.
Where a set is one of the paper's, the published figures stand beside ours. The best expert and
the best MLLM of a column are bold, of ours and of the paper's each; a star marks a model that was
trained on the set.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from iqa_checks.paper import paper_tables
from iqa_checks.report.row import Interval, Row
from iqa_checks.report.table1 import _LETTER, _escaped
from iqa_checks.report.tables import number, printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from iqa_checks.agreement import Correlation
    from iqa_checks.protocols import Preset
    from iqa_checks.stimuli import StimulusSet

Kind = Literal["expert", "mllm"]
STATISTICS = ("srcc", "plcc")
SECTIONS: dict[Kind, str] = {"expert": "experts", "mllm": "MLLMs"}


@dataclass(frozen=True, slots=True)
class ExpertRow:
    """One model on one stimulus set, in plain Python; ``name`` includes an MLLM's system.

    ``trained``: the model was trained on this set. ``source`` is "this run" or "paper".
    """

    name: str
    kind: Kind
    stimuli: str
    scenario: str
    srcc: Interval
    plcc: Interval
    n: int | None = None
    trained: bool = False
    source: str = "this run"

    def plain(self) -> dict[str, Any]:
        """As nested dicts."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> ExpertRow:
        """The inverse of `plain`, also after a trip through JSON."""
        read = {name: Interval(**plain[name]) for name in STATISTICS}
        return cls(**{**plain, **read})

    @property
    def column(self) -> str:
        paper = {c for table in ("table2", "table3") for c in paper_tables()[table]["columns"]}
        published = self.stimuli in paper
        return printable(self.stimuli if published else f"{self.stimuli} {self.scenario.upper()}")


@dataclass(frozen=True, slots=True)
class Figure:
    """One entry of a table."""

    value: Interval
    best: bool = False
    trained: bool = False

    @property
    def text(self) -> str:
        text = "undefined" if self.value.value is None else number(self.value.value)
        if self.trained:
            text += "*"
        if self.value.low is not None:
            text += f" [{number(self.value.low)}, {number(self.value.high)}]"
        return text


@dataclass(frozen=True, slots=True)
class Line:
    """A model: a figure per column, None where it was not measured."""

    name: str
    source: str
    figures: tuple[Figure | None, ...]

    @property
    def label(self) -> str:
        return printable(f"{self.name} (paper)" if self.source == "paper" else self.name)


@dataclass(frozen=True, slots=True)
class ExpertTable:
    """``columns``: stimulus set and statistic; ``sections``: kind of model and its lines."""

    columns: tuple[tuple[str, str], ...]
    sections: tuple[tuple[Kind, tuple[Line, ...]], ...]

    @property
    def heads(self) -> list[str]:
        return [f"{stimuli} {statistic.upper()}" for stimuli, statistic in self.columns]


def expert_row(
    name: str,
    stimuli: StimulusSet,
    scenario: str,
    scores: NDArray[np.float64],
    *,
    trained: bool = False,
    preset: Preset = "sound",
) -> ExpertRow:
    """How well an expert's scores agree with people, as a cell measures it for an MLLM."""
    from iqa_checks.summary_statistics import summarise

    references = stimuli.references if scenario == "fr" else None
    shown = summarise(scores, stimuli.quality, references, preset)
    return ExpertRow(
        name,
        "expert",
        stimuli.name,
        scenario,
        _interval(shown.srcc),
        _interval(shown.plcc),
        len(stimuli),
        trained,
    )


def mllm_row(row: Row, *, trained: bool = False) -> ExpertRow:
    """A cell's row as a line of Table 2 or 3."""
    system = f"{row.protocol}-{_LETTER.get(row.strategy, row.strategy)}"
    name = f"{row.model} {system}"
    return ExpertRow(name, "mllm", row.stimuli, row.scenario, row.srcc, row.plcc, row.n, trained)


def _interval(measured: Correlation) -> Interval:
    ends = (measured.value, measured.low, measured.high)
    value, low, high = (None if x is None else float(x) for x in ends)
    return Interval(value, low, high, measured.reason)


def table2(rows: Sequence[ExpertRow]) -> ExpertTable:
    """Full-reference and colour-difference rows as the paper's Table 2."""
    return _arranged([row for row in rows if row.scenario != "nr"], "table2")


def table3(rows: Sequence[ExpertRow]) -> ExpertTable:
    """No-reference rows as the paper's Table 3."""
    return _arranged([row for row in rows if row.scenario == "nr"], "table3")


def _arranged(rows: Sequence[ExpertRow], published: str) -> ExpertTable:
    sets = tuple(dict.fromkeys(row.column for row in rows))
    columns = tuple((name, statistic) for name in sets for statistic in STATISTICS)
    theirs = _paper_rows(published, sets)
    sections = []
    for kind in SECTIONS:
        lines = [
            line
            for source in (theirs, rows)
            for line in _with_best(_lines([r for r in source if r.kind == kind], columns))
        ]
        if lines:
            sections.append((kind, tuple(lines)))
    return ExpertTable(columns, tuple(sections))


def _paper_rows(published: str, sets: Sequence[str]) -> list[ExpertRow]:
    table = paper_tables()[published]
    scenario = "nr" if published == "table3" else "fr"
    return [
        ExpertRow(
            line["model"],
            line["kind"],
            name,
            scenario,
            srcc=_published(line["srcc"][k]),
            plcc=_published(line["plcc"][k]),
            trained=name in line["trained"],
            source="paper",
        )
        for line in table["rows"]
        for k, name in enumerate(table["columns"])
        if name in sets
    ]


def _published(value: float) -> Interval:
    return Interval(value, None, None, None)


def _lines(rows: Sequence[ExpertRow], columns: Sequence[tuple[str, str]]) -> list[Line]:
    lines = []
    for name, source in dict.fromkeys((row.name, row.source) for row in rows):
        found = {
            (row.column, statistic): Figure(getattr(row, statistic), trained=row.trained)
            for row in rows
            if (row.name, row.source) == (name, source)
            for statistic in STATISTICS
        }
        lines.append(Line(name, source, tuple(map(found.get, columns))))
    return lines


def _with_best(lines: Sequence[Line]) -> list[Line]:
    """The highest figure of each column, all of several equal ones."""
    width = len(lines[0].figures) if lines else 0
    highest = [
        max((v for line in lines if (v := _value(line.figures[k])) is not None), default=None)
        for k in range(width)
    ]
    return [
        replace(
            line,
            figures=tuple(
                replace(figure, best=True)
                if figure is not None and best is not None and _value(figure) == best
                else figure
                for figure, best in zip(line.figures, highest, strict=True)
            ),
        )
        for line in lines
    ]


def _value(figure: Figure | None) -> float | None:
    return None if figure is None else figure.value.value


def terminal(table: ExpertTable, *, color: bool = False) -> str:
    """A table for a terminal, as wide as it needs to be."""
    import rich.box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column("", no_wrap=True)
    for stimuli, statistic in table.columns:
        grid.add_column(f"{stimuli}\n{statistic.upper()}", justify="right", no_wrap=True)
    for kind, lines in table.sections:
        grid.add_row(Text(SECTIONS[kind], style="italic"))
        for line in lines:
            texts = [
                Text(f.text if f else "", style="bold" if f and f.best else "")
                for f in line.figures
            ]
            grid.add_row(Text(line.label), *texts)
        grid.add_section()
    out = io.StringIO()
    colors: Any = "standard" if color else None
    width = 40 + 28 * len(table.columns)
    Console(file=out, width=width, force_terminal=color, color_system=colors).print(grid)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def markdown(table: ExpertTable) -> str:
    def escaped(text: str) -> str:
        return text.replace("|", "\\|")

    lines = [
        "| | " + " | ".join(map(escaped, table.heads)) + " |",
        "|" + " --- |" * (len(table.columns) + 1),
    ]
    for kind, members in table.sections:
        lines.append(f"| *{SECTIONS[kind]}* |" + " |" * len(table.columns))
        for line in members:
            texts = [_starred(f, "**{}**", r"\*") for f in line.figures]
            lines.append(f"| {escaped(line.label)} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def latex(table: ExpertTable) -> str:
    """A booktabs tabular, as the paper sets it."""
    width = len(table.columns) + 1
    lines = [rf"\begin{{tabular}}{{l{'c' * (width - 1)}}}", r"\toprule"]
    lines.append(" & ".join(["Method", *map(_escaped, table.heads)]) + r" \\")
    for kind, members in table.sections:
        title = SECTIONS[kind].capitalize() if kind == "expert" else SECTIONS[kind]
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{c}}{{{title}}} \\", r"\midrule"]
        for line in members:
            texts = [_starred(f, r"\textbf{{{}}}", "*") for f in line.figures]
            lines.append(" & ".join([_escaped(line.label), *texts]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _starred(figure: Figure | None, bold: str, star: str) -> str:
    if figure is None:
        return ""
    text = figure.text.replace("*", star)
    return bold.format(text) if figure.best else text


def csv_long(table: ExpertTable) -> str:
    """One line per figure, full precision."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(
        ["kind", "model", "source", "stimuli", "statistic", "value", "low", "high", "trained"]
    )
    for kind, lines in table.sections:
        for line in lines:
            for (stimuli, statistic), figure in zip(table.columns, line.figures, strict=True):
                if figure is not None:
                    ends = (figure.value.value, figure.value.low, figure.value.high)
                    head = [kind, line.name, line.source, stimuli, statistic]
                    writer.writerow([*head, *ends, figure.trained])
    return out.getvalue()


EXPERT_TABLE_FORMATS: dict[str, Callable[[ExpertTable], str]] = {
    "md": markdown,
    "csv": csv_long,
    "tex": latex,
}


def expert_table_files(rows: Sequence[ExpertRow]) -> dict[str, str]:
    """Contents by file name, "table2.md" and so on; a table without rows is left out."""
    tables = {"table2": table2(rows), "table3": table3(rows)}
    return {
        f"{name}.{suffix}": render(table)
        for name, table in tables.items()
        if table.columns
        for suffix, render in EXPERT_TABLE_FORMATS.items()
    }
