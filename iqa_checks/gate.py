"""From a cell's statistics to a verdict that explains itself.

A gate fails on significance, never on a bare difference: an SRCC or PLCC gate fails when the value
is significantly below it. Without gates a cell is ABOVE CHANCE or INCONCLUSIVE, and fails only on
its rate of unusable replies or on an SRCC significantly below zero.

The error rate ``alpha`` holds for a run as a whole: each failure test of ``n_cells`` cells is made
at ``alpha / n_cells`` (Bonferroni), so that a long run does not cry wolf.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from iqa_checks.agreement import Correlation
    from iqa_checks.cell import CellResult

Status = Literal["PASS", "ABOVE CHANCE", "INCONCLUSIVE", "FAIL", "EXPECTED FAIL"]


@dataclass(frozen=True, slots=True)
class Gate:
    """What a cell must reach. ``min_srcc`` and ``min_plcc`` in (-1, 1), None for no such gate.

    ``max_unparsed`` is the largest share of unusable replies, ``max_tie_rate`` of "comparable"
    answers, ``min_consistency`` the smallest share of pairs that get the same answer in both
    orders (all in 0..1), ``max_latency_s`` the largest median time of a new reply, in seconds.
    ``strict`` makes INCONCLUSIVE fail. ``xfail`` is why a failure is expected, '' where it is not.
    """

    min_srcc: float | None = None
    min_plcc: float | None = None
    max_unparsed: float = 0.1
    max_tie_rate: float | None = None
    min_consistency: float | None = None
    max_latency_s: float | None = None
    xfail: str = ""
    strict: bool = False
    alpha: float = 0.05
    n_cells: int = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a cell: ``reasons`` are whole sentences with the figures behind it."""

    status: Status
    reasons: tuple[str, ...]
    passed: bool

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return f"{self.status}: {' '.join(self.reasons)}"


def judge(result: CellResult, gate: Gate) -> Verdict:
    """Hold a cell's result against its gate; an expected failure passes and says so."""
    verdict = _judged(result, gate)
    if not gate.xfail:
        return verdict
    if not verdict.passed:
        reasons = (f"expected ({gate.xfail}).", *verdict.reasons)
        return Verdict("EXPECTED FAIL", reasons, True)
    surprise = f"A failure was expected ({gate.xfail}): take the xfail away if this lasts."
    return Verdict(verdict.status, (*verdict.reasons, surprise), True)


def _judged(result: CellResult, gate: Gate) -> Verdict:
    failures = [*_unparsed(result, gate), *_manners(result, gate)]
    doubts: list[str] = []
    merits: list[str] = []
    gates = [("SRCC", result.srcc, gate.min_srcc), ("PLCC", result.plcc, gate.min_plcc)]
    for name, measured, least in gates:
        if least is not None:
            _against_threshold(name, measured, least, gate, failures, doubts, merits)
    gated = gate.min_srcc is not None or gate.min_plcc is not None
    if not gated:
        _against_chance(result, gate, failures, doubts, merits)
    if failures:
        return Verdict("FAIL", tuple(failures), False)
    if doubts:
        return Verdict("INCONCLUSIVE", tuple(doubts), not gate.strict)
    return Verdict("PASS" if gated else "ABOVE CHANCE", tuple(merits), True)


def _unparsed(result: CellResult, gate: Gate) -> list[str]:
    rate = result.unparsed_rate
    if rate <= gate.max_unparsed:
        return []
    reasons = ", ".join(f"{n} {reason}" for reason, n in result.unparsed.items())
    return [
        f"{rate:.0%} of {len(result.asked)} replies hold no usable answer ({reasons}); "
        f"at most {gate.max_unparsed:.0%} may (--iqa-max-unparsed)."
    ]


def _manners(result: CellResult, gate: Gate) -> list[str]:
    """How the model answered rather than what: ties, order effects, time."""
    latency = _median_latency_s(result)
    found: tuple[tuple[str, float | None, float | None, bool], ...] = (
        ("share of ties", result.tie_rate, gate.max_tie_rate, False),
        (
            "share of pairs judged alike in both orders",
            result.consistency,
            gate.min_consistency,
            True,
        ),
        ("median seconds of a reply", latency, gate.max_latency_s, False),
    )
    failures = []
    for what, value, limit, at_least in found:
        if value is None or limit is None:
            continue
        if (value < limit) if at_least else (value > limit):
            bound = "at least" if at_least else "at most"
            failures.append(f"{what} is {value:.3g}; the gate asks {bound} {limit:g}.")
    return failures


def _median_latency_s(result: CellResult) -> float | None:
    """Over new replies: a stored one says how fast the model once was."""
    from statistics import median

    times = [a.reply.latency_s for a in result.asked if a.reply.origin == "new"]
    return median(times) if times else None


def _against_threshold(
    name: str,
    measured: Correlation,
    least: float,
    gate: Gate,
    failures: list[str],
    doubts: list[str],
    merits: list[str],
) -> None:
    if measured.value is None:
        failures.append(f"{name} is undefined ({measured.reason}); the gate asks {least:g}.")
        return
    p = measured.p_below(least)
    said = f"{name} {describe(measured)}, gate {least:g}"
    if p is not None and p < gate.alpha / gate.n_cells:
        failures.append(f"{said}: significantly below (one-sided p = {p:.2g}).")
    elif p is None and measured.value < least:
        doubts.append(f"{said}: below, but {measured.reason}.")
    elif measured.value < least:
        doubts.append(f"{said}: below, but not significantly (p = {p:.2g}).")
    else:
        merits.append(f"{said}.")


def _against_chance(
    result: CellResult,
    gate: Gate,
    failures: list[str],
    doubts: list[str],
    merits: list[str],
) -> None:
    srcc, chance = result.srcc, result.chance
    if srcc.value is None:
        doubts.append(f"SRCC is undefined: {srcc.reason}.")
        return
    below = srcc.p_below(0.0)
    said = f"SRCC {describe(srcc)}"
    if below is not None and below < gate.alpha / gate.n_cells:
        failures.append(f"{said} is significantly below zero (one-sided p = {below:.2g}).")
    elif chance.p_value is not None and chance.p_value < gate.alpha:
        merits.append(f"{said}; chance reaches {chance.upper:.3f} in 1 of 20 permutations.")
    else:
        doubts.append(f"{said}; not above the chance level {chance.upper or 0:.3f}.")


def describe(measured: Correlation) -> str:
    """ "0.812 [0.640, 0.905]", or why it is undefined."""
    if measured.value is None:
        return f"undefined ({measured.reason})"
    if measured.low is None or measured.high is None:
        return f"{measured.value:.3f}"
    return f"{measured.value:.3f} [{measured.low:.3f}, {measured.high:.3f}]"
