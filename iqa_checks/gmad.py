"""gMAD: which unrated images tell two quality models apart (Ma et al. 2020, TPAMI 42(4)).

For each of the two as defender: among images it calls equally good, the pair that the other, the
attacker, finds most different. If people see that difference the defender is wrong, else the
attacker. It needs no human scores, so it finds the images that are worth rating. The "models" may
be two experts, or an expert and a multimodal LLM's stored scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from iqa_checks.errors import UsageError

N_LEVELS, PAIRS_PER_LEVEL = 5, 1


@dataclass(frozen=True, slots=True, eq=False)
class GmadPairs:
    """Pairs of positions (P, 2): the image that the attacker finds worse, then the better one.

    ``defender`` is "first" or "second", ``level`` 0 for the lowest quality of the defender.
    ``gap`` is the attacker's difference and ``defended`` the defender's, in percent of the images
    that lie between the two, so that scales do not matter.
    """

    pairs: NDArray[np.intp]
    defender: NDArray[np.str_]
    level: NDArray[np.intp]
    gap: NDArray[np.float64]
    defended: NDArray[np.float64]

    @property
    def images(self) -> NDArray[np.intp]:
        """Positions of all images that occur, ascending: what to have rated."""
        return np.unique(self.pairs)


def select_gmad(
    first: ArrayLike,
    second: ArrayLike,
    *,
    n_levels: int = N_LEVELS,
    pairs_per_level: int = PAIRS_PER_LEVEL,
) -> GmadPairs:
    """Pairs of images on which two quality models disagree most, for people to look at.

    Parameters
    ----------
    first, second : (M,)
        Scores of the two, higher = better, each on its own scale. Only their order counts.
    n_levels, pairs_per_level
        Levels of the defender's quality, each of equally many images and no wider than a tenth of
        all, and pairs at each; no image occurs twice for one defender.

    Raises
    ------
    UsageError
        Different lengths, scores that are not finite or all equal, or too few images.
    """
    ranks = (_percent(first, "first"), _percent(second, "second"))
    if len(ranks[0]) != len(ranks[1]):
        raise UsageError(
            f"{len(ranks[1])} scores of the second for {len(ranks[0])} of the first: "
            "expected both for the same images"
        )
    if n_levels < 1 or pairs_per_level < 1:
        raise UsageError("gMAD: expected at least one level and one pair at each")
    needed = 2 * n_levels * pairs_per_level
    if len(ranks[0]) < needed:
        raise UsageError(
            f"gMAD with {n_levels} levels of {pairs_per_level} pairs needs at least {needed} "
            f"images, got {len(ranks[0])}"
        )
    found: list[tuple[int, int, str, int]] = []
    for name, defender, attacker in (("first", *ranks), ("second", ranks[1], ranks[0])):
        for level, members in enumerate(_levels(defender, n_levels, pairs_per_level)):
            by_attacker = members[np.argsort(attacker[members], kind="stable")].tolist()
            found += [
                (by_attacker[k], by_attacker[-1 - k], name, level) for k in range(pairs_per_level)
            ]
    pairs = np.array([(a, b) for a, b, _, _ in found], dtype=np.intp)
    of_first = np.array([name == "first" for _, _, name, _ in found])
    by_first, by_second = (rank[pairs[:, 1]] - rank[pairs[:, 0]] for rank in ranks)
    return GmadPairs(
        pairs,
        np.array([name for _, _, name, _ in found]),
        np.array([level for _, _, _, level in found], dtype=np.intp),
        np.where(of_first, by_second, by_first),
        np.abs(np.where(of_first, by_first, by_second)),
    )


def _levels(
    defender: NDArray[np.float64], n_levels: int, pairs_per_level: int
) -> list[NDArray[np.intp]]:
    """Images around the centre of each level, at most a tenth of all, in ascending quality."""
    order = np.argsort(defender, kind="stable")
    width = max(2 * pairs_per_level, min(len(order) // n_levels, len(order) // 10))
    centres = (np.arange(n_levels) + 0.5) / n_levels * len(order)
    starts = np.clip(np.round(centres - width / 2).astype(int), 0, len(order) - width)
    return [order[start : start + width] for start in starts]


def _percent(scores: ArrayLike, name: str) -> NDArray[np.float64]:
    """Mid-ranks on 0..100."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise UsageError(f"scores of the {name} are not finite numbers, one per image")
    if len(values) and np.ptp(values) == 0:
        raise UsageError(f"the {name} says the same for all {len(values)} images")
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, "left")
    up_to = np.searchsorted(ordered, values, "right")
    return 50.0 * (below + up_to - 1) / max(1, len(values) - 1)
