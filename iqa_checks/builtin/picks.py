"""Which of the possible stimuli a generated set holds; scores and names only, no pixels.

Equal steps of rank over the scores, as uniform selection takes them (Wu et al. 2024, section 4.2),
but within half a step either way the rarest kind so far is taken. Many cells of a generated set
share nearly the same score, and the exact rank would fill a set of 30 with a few types.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence


def spread(
    scores: Sequence[float],
    n: int,
    kinds: Sequence[tuple[Hashable, ...]],
    keys: Sequence[str],
    used: Counter[Hashable] | None = None,
) -> list[int]:
    """Up to ``n`` positions, spread over ``scores`` and over ``kinds``, in order of score.

    Parameters
    ----------
    kinds
        What must not repeat too often (distortion type, content), most important first.
    keys
        Settle what is left, so that the order of the table does not matter.
    used
        How often each kind was taken before; counted on.
    """
    order = sorted(range(len(scores)), key=lambda k: (scores[k], keys[k]))
    if n >= len(order):
        return order
    counts: Counter[Hashable] = Counter() if used is None else used
    step = (len(order) - 1) / max(1, n - 1)
    picks: list[int] = []
    for i in range(n):
        first = max(0, round((i - 0.5) * step) + (i > 0))
        last = min(len(order) - 1, round((i + 0.5) * step))
        window = [k for k in order[first : last + 1] if k not in picks]
        pick = min(window, key=lambda k: (*(counts[kind] for kind in kinds[k]), keys[k]))
        counts.update(kinds[pick])
        picks.append(pick)
    return picks


def shares(n: int, n_groups: int) -> list[int]:
    """``n`` dealt to ``n_groups`` as evenly as can be."""
    return [n // n_groups + (k < n % n_groups) for k in range(n_groups)]


def n_references(n: int, most: int) -> int:
    """How many references ``n`` stimuli are for: at least 3 each, since ranks are within one."""
    return max(1, min(most, n // 3))
