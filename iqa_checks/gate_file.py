"""Gates in YAML: which cells must reach what.

    - {stimuli: builtin, scenario: fr, min_srcc: 0.7}
    - {model: "gpt-*", protocol: double, strategy: chain_of_thought, min_srcc: 0.6, min_plcc: 0.6}
    - {scenario: nr, max_unparsed: 0.02, max_latency_s: 5}
    - {protocol: double, max_tie_rate: 0.5, min_consistency: 0.7}
    - {model: "gpt-*", max_cost_usd: 0.01}
    - {protocol: single, min_retest: 0.9}
    - {model: llava-v1.6, like_paper: true}
    - {model: "openai:*", like_paper: llava-v1.6}
    - {scenario: difference, min_srcc: 0.5, xfail: color differences are beyond every MLLM so far}

A line names cells by model, stimuli, scenario, protocol and strategy (shell patterns, all by
default) and what they must reach. Where several lines name a cell, the later one decides, value by
value. A line that can name no cell is an error, so that a misspelt gate does not pass for a kept
one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias

from iqa_checks.errors import UsageError, known_names

SELECTORS = ("model", "stimuli", "scenario", "protocol", "strategy")
#: what may be asked, and the range that a value must lie in
LIMITS: dict[str, tuple[float, float]] = {
    "min_srcc": (-1.0, 1.0),
    "min_plcc": (-1.0, 1.0),
    "max_unparsed": (0.0, 1.0),
    "max_tie_rate": (0.0, 1.0),
    "min_consistency": (0.0, 1.0),
    "min_retest": (-1.0, 1.0),
    "max_latency_s": (0.0, math.inf),
    "max_cost_usd": (0.0, math.inf),
}
#: further fields: a gate from the paper's figures (true: of the model asked), an expected failure
WORDS = ("like_paper", "xfail")
Limit: TypeAlias = "float | str | bool"


@dataclass(frozen=True, slots=True)
class GateLine:
    """One line: ``selectors`` are patterns by field, ``limits`` the values by name."""

    selectors: Mapping[str, str]
    limits: Mapping[str, Limit] = field(default_factory=dict)

    def names(self, cell: Mapping[str, str]) -> bool:
        return all(fnmatchcase(cell[name], pattern) for name, pattern in self.selectors.items())


def read_gates(path: Path, known: Mapping[str, Sequence[str]]) -> tuple[GateLine, ...]:
    """Read a gate file; ``known`` lists the existing names of each selector but the model.

    Raises `UsageError` naming file, line and remedy for anything that is not as described.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())  # PyYAML spreads its message over lines
        raise UsageError(
            f"--iqa-gates {path} cannot be read ({said}); expected a list of gates as in "
            "fixtures/gates"
        ) from None
    if not isinstance(document, list):
        raise UsageError(f"{path}: expected a list of gates, got {type(document).__name__}")
    return tuple(
        _line(entry, f"{path}, gate {k}", known) for k, entry in enumerate(document, start=1)
    )


def limits_for(lines: Sequence[GateLine], cell: Mapping[str, str]) -> dict[str, Limit]:
    """The limits of one cell, given its model, stimuli, scenario, protocol and strategy."""
    limits: dict[str, Limit] = {}
    for line in lines:
        if line.names(cell):
            limits |= line.limits
    return limits


def _line(entry: Any, where: str, known: Mapping[str, Sequence[str]]) -> GateLine:
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: expected {{selector: pattern, limit: value}}, got {entry!r}")
    for name in entry:
        if name not in (*SELECTORS, *LIMITS, *WORDS):
            raise known_names(f"field in {where}", str(name), (*SELECTORS, *LIMITS, *WORDS))
    selectors = {name: str(entry[name]) for name in SELECTORS if name in entry}
    limits: dict[str, Limit] = {
        name: _limit(name, entry[name], where) for name in LIMITS if name in entry
    }
    if "like_paper" in entry:
        limits["like_paper"] = _like_paper(entry["like_paper"], where)
    if "xfail" in entry:
        limits["xfail"] = _reason(entry["xfail"], where)
    if not limits:
        raise UsageError(f"{where} asks nothing: give one of {', '.join((*LIMITS, *WORDS))}")
    for name, pattern in selectors.items():
        names = known.get(name)
        if names is not None and not any(fnmatchcase(n, pattern) for n in names):
            raise UsageError(f"{where}: no {name} is called {pattern!r}: {', '.join(names)}")
    return GateLine(selectors, limits)


def _limit(name: str, value: Any, where: str) -> float:
    low, high = LIMITS[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise UsageError(f"{where}: {name} must be a number in {low:g}..{high:g}, got {value!r}")
    return float(value)


def _reason(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{where}: xfail says in words why a failure is expected, got {value!r}")
    return value.strip()


def _like_paper(value: Any, where: str) -> str | bool:
    from iqa_checks.paper import paper_models

    if isinstance(value, bool) or (isinstance(value, str) and value in paper_models()):
        return value
    raise UsageError(
        f"{where}: like_paper is true (the model asked) or one of {', '.join(paper_models())}, "
        f"got {value!r}"
    )
