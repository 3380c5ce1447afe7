"""From a cell's statistics to a verdict that explains itself.

A gate fails on significance, never on a bare difference: an SRCC or PLCC gate fails when the value
is significantly below it. Without gates a cell is ABOVE CHANCE or INCONCLUSIVE, and fails only on
its rate of unusable replies or on an SRCC significantly below zero.

The error rate ``alpha`` holds for a run as a whole: a cell gets ``alpha / n_cells`` of it, shared
by its tests (Bonferroni), so that a long run does not cry wolf. Holm's method would need the
p-values of all cells, and a test has to be red before the others are known.

Ties, order effects, time and cost are no estimates of anything else: they are what this run's
replies were, and are held against their limits as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from iqa_checks.agreement import Correlation
    from iqa_checks.cell import CellResult
    from iqa_checks.paper import PaperFigure

Status = Literal["PASS", "ABOVE CHANCE", "INCONCLUSIVE", "FAIL", "EXPECTED FAIL"]


@dataclass(frozen=True, slots=True)
class Gate:
    """What a cell must reach. ``min_srcc`` and ``min_plcc`` in (-1, 1), None for no such gate.

    ``max_unparsed`` is the largest share of unusable replies, ``max_tie_rate`` of "comparable"
    answers, ``min_consistency`` the smallest share of pairs that get the same answer in both
    orders (all in 0..1), ``min_retest`` the smallest test-retest reliability of repeated trials,
    ``max_latency_s`` the largest median time of a new reply, in seconds, ``max_cost_usd`` the
    largest cost of a usable judgement, in US dollars at ``price_per_million`` prompt and reply
    tokens. ``paper`` is the published figure that the SRCC must not be significantly below.
    ``strict`` makes INCONCLUSIVE fail. ``xfail`` is why a failure is expected, '' where it is not.
    ``remarks`` go into every verdict of this gate.
    """

    min_srcc: float | None = None
    min_plcc: float | None = None
    max_unparsed: float = 0.1
    max_tie_rate: float | None = None
    min_consistency: float | None = None
    min_retest: float | None = None
    max_latency_s: float | None = None
    max_cost_usd: float | None = None
    price_per_million: tuple[float, float] | None = None
    paper: PaperFigure | None = None
    remarks: tuple[str, ...] = ()
    xfail: str = ""
    strict: bool = False
    alpha: float = 0.05
    n_cells: int = 1

    @property
    def alpha_of_a_test(self) -> float:
        """The share of ``alpha`` of each test of this cell that can fail it."""
        asked = (self.min_srcc, self.min_plcc, self.paper)
        return self.alpha / self.n_cells / max(1, sum(limit is not None for limit in asked))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a cell: ``reasons`` are whole sentences with the figures behind it.

    ``remarks`` are sentences that a reader of the results should see whatever the outcome.
    """

    status: Status
    reasons: tuple[str, ...]
    passed: bool
    remarks: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return f"{self.status}: {' '.join((*self.reasons, *self.remarks))}"


def judge(result: CellResult, gate: Gate) -> Verdict:
    """Hold a cell's result against its gate; an expected failure passes and says so."""
    status, reasons = _judged(result, gate)
    passed = status != "FAIL" and not (status == "INCONCLUSIVE" and gate.strict)
    if not gate.xfail:
        return Verdict(status, reasons, passed, gate.remarks)
    if not passed:
        reasons = (f"expected ({gate.xfail}).", *reasons)
        return Verdict("EXPECTED FAIL", reasons, True, gate.remarks)
    if status == "INCONCLUSIVE":  # neither failing nor passing: no news about the expectation
        return Verdict(status, reasons, True, gate.remarks)
    surprise = (
        f"{result.cell.id}: {status}, though a failure was expected ({gate.xfail}); take the xfail "
        "away if this lasts."
    )
    return Verdict(status, reasons, True, (*gate.remarks, surprise))


def _judged(result: CellResult, gate: Gate) -> tuple[Status, tuple[str, ...]]:
    failures = [*_unparsed(result, gate), *_manners(result, gate)]
    doubts: list[str] = []
    merits: list[str] = []
    targets = _targets(result, gate)
    for target in targets:
        _against(target, gate.alpha_of_a_test, failures, doubts, merits)
    if not targets:
        _against_chance(result, gate, failures, doubts, merits)
    doubts += _unmeasured(result, gate)
    if failures:
        return "FAIL", tuple(failures)
    if doubts:
        return "INCONCLUSIVE", tuple(doubts)
    return "PASS" if targets else "ABOVE CHANCE", tuple(merits)


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
    """How the model answered rather than what: ties, order effects, reliability, time, cost."""
    at_most = (
        ("share of ties", result.tie_rate, gate.max_tie_rate),
        ("median seconds of a reply", median_latency_s(result), gate.max_latency_s),
        ("US dollars per usable judgement", _cost(result, gate), gate.max_cost_usd),
    )
    at_least = (
        ("share of pairs judged alike in both orders", result.consistency, gate.min_consistency),
        ("test-retest reliability", result.retest, gate.min_retest),
    )
    return [
        f"{what} is {value:.3g}; the gate asks at {bound} {limit:g}."
        for bound, measured in (("most", at_most), ("least", at_least))
        for what, value, limit in measured
        if value is not None
        and limit is not None
        and (value > limit if bound == "most" else value < limit)
    ]


def _unmeasured(result: CellResult, gate: Gate) -> list[str]:
    """Limits that this cell's replies cannot be held against, though they should be.

    Ties and order effects that a protocol does not have, and the time of replies that were stored
    before, are no doubt about the model.
    """
    doubts = []
    if gate.max_cost_usd is not None and _cost(result, gate) is None:
        doubts.append("cost is unknown: the endpoint counts no tokens, or no reply is usable.")
    if gate.min_retest is not None and result.retest is None:
        doubts.append("test-retest reliability is undefined: too few repeats, or no spread.")
    return doubts


def median_latency_s(result: CellResult) -> float | None:
    """Over new replies: a stored one says how fast the model once was."""
    from statistics import median

    times = [a.reply.latency_s for a in result.asked if a.reply.origin == "new"]
    return median(times) if times else None


def _cost(result: CellResult, gate: Gate) -> float | None:
    if gate.max_cost_usd is None or gate.price_per_million is None:
        return None
    return cost_per_judgement(result, gate.price_per_million)


def cost_per_judgement(result: CellResult, price_per_million: tuple[float, float]) -> float | None:
    """US dollars for a usable judgement; unusable replies are paid for too.

    None where a reply does not say how many tokens it took, or none is usable: unknown is not 0.
    """
    usable = len(result.asked) - sum(result.unparsed.values())
    total = 0.0
    for asked in result.asked:
        for tokens, price in zip(
            (asked.reply.prompt_tokens, asked.reply.completion_tokens),
            price_per_million,
            strict=True,
        ):
            if tokens is None and price > 0:
                return None
            total += (tokens or 0) * price / 1e6
    return total / usable if usable else None


@dataclass(frozen=True, slots=True)
class _Target:
    """A value that a correlation must not be significantly below; ``p`` of being below it."""

    name: str
    measured: Correlation
    least: float
    p: float | None
    what: str


def _targets(result: CellResult, gate: Gate) -> list[_Target]:
    found = [
        _Target(name, measured, least, measured.p_below(least), f"gate {least:g}")
        for name, measured, least in (
            ("SRCC", result.srcc, gate.min_srcc),
            ("PLCC", result.plcc, gate.min_plcc),
        )
        if least is not None
    ]
    if gate.paper is not None:
        p = gate.paper.p_below(result.srcc)
        found.append(_Target("SRCC", result.srcc, gate.paper.srcc, p, str(gate.paper)))
    return found


def _against(
    target: _Target, alpha: float, failures: list[str], doubts: list[str], merits: list[str]
) -> None:
    measured, p = target.measured, target.p
    if measured.value is None:
        failures.append(
            f"{target.name} is undefined ({measured.reason}); the gate asks {target.least:g}."
        )
        return
    said = f"{target.name} {describe(measured)}, {target.what}"
    if p is not None and p < alpha:
        failures.append(f"{said}: significantly below (one-sided p = {p:.2g}).")
    elif measured.value >= target.least:
        merits.append(f"{said}.")
    elif p is None:
        doubts.append(f"{said}: below, but {measured.reason}.")
    else:
        doubts.append(f"{said}: below, but not significantly (p = {p:.2g}).")


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
    if below is not None and below < gate.alpha_of_a_test:
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
