"""Which prompting system a model is compared with experts by: the best that is known for it.

The paper takes, for each model, the system (protocol x strategy) that did best in its Table 1, and
puts it beside expert metrics in Tables 2 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from iqa_checks.errors import UsageError, known_names

if TYPE_CHECKING:
    from iqa_checks.baseline import Run
    from iqa_checks.report.row import Row
    from iqa_checks.settings import Settings

DEFAULT = ("double", "chain_of_thought")  # GPT-4V's, the best of the paper's models


@dataclass(frozen=True, slots=True)
class System:
    """A prompting system, and why it is the one."""

    protocol: str
    strategy: str
    why: str

    def asked(self, row: Row) -> bool:
        """Whether a row was measured with it."""
        return (row.protocol, row.strategy) == (self.protocol, self.strategy)

    def __str__(self) -> str:
        return f"{self.protocol}-stimulus, {self.strategy.replace('_', '-')}"


def best_system(settings: Settings) -> System:
    """From the stored run of ``--iqa-best``, else models.yaml, else `DEFAULT`; says which.

    Raises `UsageError` for a file that is no run, or none of this model, or whose best strategy is
    not known here.
    """
    from iqa_checks.models import find_model
    from iqa_checks.prompts import load_strategies

    if settings.best is not None:
        system = _from_run(_read(settings.best), settings.model, settings.best)
    else:
        best = find_model(settings.model).best
        why = f"the paper's best for {settings.model}"
        if best is None:
            best = DEFAULT
            why = (
                "GPT-4V's in the paper, for want of a better; --iqa-best results.json takes this "
                "model's own"
            )
        system = System(best[0], best[1], why)
    strategies = load_strategies(settings.strategies)
    if system.strategy not in strategies:
        raise known_names(f"strategy ({system.why}; --iqa-strategies FILE adds some)",
                          system.strategy, strategies)  # fmt: skip
    return system


@cache
def _read(path: Path) -> Run:
    from iqa_checks.baseline import read

    return read(path)


def _from_run(run: Run, model: str, path: Path) -> System:
    """The system with the highest mean SRCC over the sets that all of the model's systems saw."""
    rows = [row for row in run.rows if row.model == model and row.selection == "uniform"]
    if not rows:
        there = ", ".join(dict.fromkeys(row.model for row in run.rows)) or "no model"
        raise UsageError(
            f"--iqa-best {path}: no cell of {model} on uniform samples in it, but of {there}; "
            "give the results.json of that model's run of pytest suites"
        )
    measured = _by_system(rows)
    shared = set.intersection(*(set(found) for found in measured.values()))
    means = {
        system: mean(values)
        for system, found in measured.items()
        if (values := _defined([found[name] for name in sorted(shared)]))
    }
    if not means:
        raise UsageError(
            f"--iqa-best {path}: no prompting system of {model} has a defined SRCC on the sets "
            "that all of them saw; measure Table 1 again"
        )
    best = max(means, key=lambda system: means[system])
    return System(
        *best,
        f"mean SRCC {means[best]:.3f} over {len(shared)} sets, the best of {len(measured)} "
        f"systems in {path.name}",
    )


def _by_system(
    rows: Sequence[Row],
) -> Mapping[tuple[str, str], dict[tuple[str, str], float | None]]:
    """SRCC by (protocol, strategy), then by (scenario, stimuli)."""
    found: dict[tuple[str, str], dict[tuple[str, str], float | None]] = {}
    for row in rows:
        sets = found.setdefault((row.protocol, row.strategy), {})
        sets[row.scenario, row.stimuli] = row.srcc.value
    return found


def _defined(values: Sequence[float | None]) -> list[float]:
    """All of them, or none where one is undefined: that is not 0, and no mean without it."""
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else []
