"""Failures as workflow commands, which GitHub shows beside the change that caused them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from iqa_checks.report.row import Row

if TYPE_CHECKING:
    from iqa_checks.compare import RunComparison


def workflow_commands(rows: Sequence[Row], comparison: RunComparison | None = None) -> list[str]:
    """One ``::error`` a failed cell or comparison of a cell, one ``::warning`` an inconclusive
    cell."""
    lines = [
        _command("error" if not row.passed else "warning", row.cell, row.explanation)
        for row in rows
        if not row.passed or row.verdict == "INCONCLUSIVE"
    ]
    return lines + [
        _command("error", f"{line.cell} against {comparison.baseline}", str(line.decision))
        for line in (comparison.lines if comparison else ())
        if comparison and not line.decision.passed
    ]


def _command(kind: str, title: str, text: str) -> str:
    return f"::{kind} title={_escaped(title, property_=True)}::{_escaped(text)}"


def _escaped(text: str, *, property_: bool = False) -> str:
    special = {"%": "%25", "\r": "%0D", "\n": "%0A"} | (
        {":": "%3A", ",": "%2C"} if property_ else {}
    )
    return "".join(special.get(c, c) for c in text)
