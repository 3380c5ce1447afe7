"""What a difference means for a release: PASS, FAIL or INCONCLUSIVE, never from a bare drop.

Source: Piaggio et al. 2012 (non-inferiority, three-way reading of an interval against a margin).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from iqa_checks.comparison import _NO_VARIATION, Difference, minimum_detectable_drop

Goal: TypeAlias = Literal["regression", "non_inferiority", "superiority"]
Status: TypeAlias = Literal["PASS", "FAIL", "INCONCLUSIVE", "SAME REPLIES"]

DEFAULT_MARGIN = 0.05
_LOST = "the candidate gave all their stimuli one score, the baseline did not"


@dataclass(frozen=True, slots=True)
class Decision:
    """What a difference means for a release.

    ``sentence`` states the figures and what they show; ``passed`` is False for FAIL, and for
    INCONCLUSIVE and SAME REPLIES under ``strict``. ``detectable`` is the smallest drop that this
    comparison would have found with 80 % power, ``p_adjusted`` the p-value after Holm.
    """

    status: Status
    sentence: str
    passed: bool
    p_adjusted: float | None = None
    detectable: float | None = None

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return f"{self.status}: {self.sentence}"


def decide(
    difference: Difference,
    *,
    goal: Goal = "regression",
    margin: float = DEFAULT_MARGIN,
    alpha: float = 0.05,
    p_adjusted: float | None = None,
    strict: bool = False,
    name: str = "SRCC",
) -> Decision:
    """PASS, FAIL or INCONCLUSIVE, with the sentence that defends it.

    Parameters
    ----------
    goal
        'regression': FAIL when significantly worse; PASS when a drop of `margin` is excluded;
        INCONCLUSIVE between. 'non_inferiority': PASS whenever a drop of `margin` is excluded,
        even where a smaller drop is significant. 'superiority': PASS only when significantly
        better.
    margin
        The smallest drop that matters, in (0, 1).
    alpha
        One-sided error rate of each of these statements.
    p_adjusted
        p-value of "worse" after `holm` over the cells of a run; the difference's own without.
    strict
        INCONCLUSIVE does not pass.
    """
    if goal not in get_args(Goal):
        raise ValueError(f"goal must be one of {', '.join(get_args(Goal))}; got {goal!r}")
    if not 0 < margin < 1:
        raise ValueError(f"margin must be between 0 and 1, got {margin}")
    p = difference.p_worse if p_adjusted is None else p_adjusted
    detectable = minimum_detectable_drop(difference, alpha=alpha)
    said = _said(difference, name)

    def made(status: Status, why: str) -> Decision:
        passed = status == "PASS" or (status == "INCONCLUSIVE" and not strict)
        return Decision(status, f"{said} {why}", passed, p, detectable)

    if p is None:
        return _untested(difference, made)
    said_p = _p(p) + (" after Holm" if p != difference.p_worse else "")
    excluded = difference.p_not_worse_than(margin)
    within = _no_difference(difference) or (excluded is not None and excluded < alpha)
    worse = p < alpha
    if worse and not (goal == "non_inferiority" and within):
        return made("FAIL", f"is significantly worse (one-sided p {said_p}, alpha {alpha:g}).")
    if difference.lost:
        return made("INCONCLUSIVE", f"leaves out {difference.lost} references: {_LOST}.")
    if goal == "superiority":
        return _superior(difference, alpha, made)
    if within:
        return made("PASS", _excluded(margin, excluded, worse))
    return made("INCONCLUSIVE", _doubt(margin, said_p, detectable))


def _no_difference(difference: Difference) -> bool:
    """Both sides order every stimulus alike."""
    error = difference.std_error
    return error is not None and error < _NO_VARIATION and difference.value == 0.0


def _untested(difference: Difference, made: Callable[[Status, str], Decision]) -> Decision:
    lost = difference.candidate is None and difference.baseline is not None
    if lost:
        return made("FAIL", f"cannot be computed any more: {difference.reason}.")
    return made("INCONCLUSIVE", f"cannot be tested: {difference.reason}.")


def _superior(
    difference: Difference, alpha: float, made: Callable[[Status, str], Decision]
) -> Decision:
    p = difference.p_better
    if p is not None and p < alpha:
        return made("PASS", f"is significantly better (one-sided p {_p(p)}).")
    return made("INCONCLUSIVE", f"is not significantly better (one-sided p {_p(p or 1.0)}).")


def _excluded(margin: float, p: float | None, worse: bool) -> str:
    if p is None or p == 1.0:
        return "shows no difference: both order all stimuli alike."
    tolerated = " although it is significantly worse" if worse else ""
    return f"excludes a drop of {margin:g} or more (one-sided p {_p(p)}){tolerated}."


def _doubt(margin: float, said_p: str, detectable: float | None) -> str:
    seen = "" if detectable is None else f"; alone it would see drops from {detectable:.3f} on"
    return f"shows neither a drop (p {said_p}) nor that none of {margin:g} happened{seen}."


def _said(difference: Difference, name: str) -> str:
    """ "SRCC 0.812 -> 0.790, difference -0.022 [-0.050, 0.006]"."""
    sides = (difference.baseline, difference.candidate)
    before, now = ("undefined" if v is None else f"{v:.3f}" for v in sides)
    text = f"{name} {before} -> {now}"
    if difference.value is None:
        return text
    text += f", difference {difference.value:+.3f}"
    if difference.low is not None:
        text += f" [{difference.low:+.3f}, {difference.high:+.3f}]"
    return text


def _p(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"= {p:.2g}"
