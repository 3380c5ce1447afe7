"""Tables 2 and 3 of a run: its experts, and its model with its best prompting system."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from iqa_checks.best_system import System, best_system
from iqa_checks.paper import paper_tables
from iqa_checks.report.expert_tables import (
    ExpertRow,
    expert_table_files,
    markdown,
    mllm_row,
    table2,
    table3,
    terminal,
)

if TYPE_CHECKING:
    from iqa_checks.report.row import Row
    from iqa_checks.settings import Settings

LEGEND = (
    "bold: the best expert and the best MLLM of a column; *: trained on that set; "
    "(paper): as published, on the paper's own difficult samples"
)
TITLES = {
    "table2": "Table 2: experts and MLLMs on difficult samples, with reference",
    "table3": "Table 3: experts and MLLMs on difficult samples, without reference",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """The experts on the difficult samples of one set.

    ``absent`` says what was not measured and how to get it, ``failures`` which expert at hand gave
    no figure and why, ``notes`` how the samples were chosen; one line each.
    """

    scenario: str
    stimuli: str
    rows: tuple[ExpertRow, ...] = ()
    absent: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As nested dicts and lists; crosses processes."""
        lines = {name: list(getattr(self, name)) for name in ("absent", "failures", "notes")}
        rows = [row.plain() for row in self.rows]
        return {"scenario": self.scenario, "stimuli": self.stimuli, "rows": rows, **lines}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Measured:
        """The inverse of `plain`, also after a trip through JSON."""
        lines = {name: tuple(plain[name]) for name in ("absent", "failures", "notes")}
        rows = tuple(ExpertRow.from_plain(row) for row in plain["rows"])
        return cls(plain["scenario"], plain["stimuli"], rows, **lines)

    @property
    def faults(self) -> tuple[str, ...]:
        """Experts that were at hand and have no SRCC."""
        undefined = tuple(
            f"expert {row.name} on {row.stimuli}: SRCC undefined ({row.srcc.reason})"
            for row in self.rows
            if row.srcc.value is None
        )
        return self.failures + undefined


@dataclass(frozen=True, slots=True)
class Comparison:
    """MLLMs against experts. ``system`` is None where no model was asked on difficult samples."""

    rows: tuple[ExpertRow, ...]
    system: System | None
    notes: tuple[str, ...]

    @property
    def asked(self) -> str:
        """By which prompting system the model was asked, and why by that one."""
        if self.system is None:
            return ""
        return f"MLLM rows: {self.system} ({self.system.why})"

    def lines(self, *, color: bool = False) -> list[str]:
        """For the terminal; none where there is nothing to show."""
        lines: list[str] = []
        for name, arrange in (("table2", table2), ("table3", table3)):
            table = arrange(self.rows)
            if table.columns:
                lines += [TITLES[name], *terminal(table, color=color).splitlines()]
        return [*lines, *filter(None, (self.asked,)), LEGEND] if lines else []

    def markdown(self) -> str:
        """For results.md."""
        parts = []
        for name, arrange in (("table2", table2), ("table3", table3)):
            table = arrange(self.rows)
            if table.columns:
                parts.append(f"## {TITLES[name]}\n\n{markdown(table)}")
        return "\n".join([*parts, *filter(None, (self.asked,)), LEGEND]) + "\n" if parts else ""

    def files(self) -> dict[str, str]:
        """Contents of ``table2.*`` and ``table3.*`` by file name."""
        return expert_table_files(self.rows)


def in_order(plain: Iterable[Mapping[str, Any]]) -> list[Measured]:
    """What workers measured, in an order that does not depend on them."""
    return sorted(map(Measured.from_plain, plain), key=lambda one: (one.stimuli, one.scenario))


def compare_with_experts(
    rows: Iterable[Row], measured: Sequence[Measured], settings: Settings
) -> Comparison:
    """Expert rows, and the difficult cells of the model's best prompting system."""
    experts = tuple(row for one in measured for row in one.rows)
    notes = dict.fromkeys(f"{one.stimuli}: {note}" for one in measured for note in one.notes)
    difficult = [row for row in rows if row.selection == "difficult"]
    if not difficult:
        return Comparison(experts, None, tuple(notes))
    system = best_system(settings)
    models = (
        mllm_row(row, trained=row.stimuli in _trained_on(row.model))
        for row in difficult
        if system.asked(row)
    )
    return Comparison((*experts, *models), system, tuple(notes))


def _trained_on(model: str) -> set[str]:
    """The sets on which the paper says that a model of its tables was trained."""
    tables = (paper_tables()[name] for name in TITLES)
    return {
        name
        for table in tables
        for line in table["rows"]
        if line["model"] == model and line["kind"] == "mllm"
        for name in line["trained"]
    }
