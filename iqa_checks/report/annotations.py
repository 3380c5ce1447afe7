"""Failures as workflow commands, which GitHub shows beside the change that caused them."""

from __future__ import annotations

from collections.abc import Sequence

from iqa_checks.report.row import Row


def workflow_commands(rows: Sequence[Row], failures: Sequence[str]) -> list[str]:
    """One ``::error`` a failed cell or comparison, one ``::warning`` an inconclusive cell."""
    lines = [
        _command("error" if not row.passed else "warning", row.cell, row.explanation)
        for row in rows
        if not row.passed or row.verdict == "INCONCLUSIVE"
    ]
    return lines + [_command("error", "release comparison", failure) for failure in failures]


def _command(kind: str, title: str, text: str) -> str:
    return f"::{kind} title={_escaped(title, property_=True)}::{_escaped(text)}"


def _escaped(text: str, *, property_: bool = False) -> str:
    special = {"%": "%25", "\r": "%0D", "\n": "%0A"} | (
        {":": "%3A", ",": "%2C"} if property_ else {}
    )
    return "".join(special.get(c, c) for c in text)
