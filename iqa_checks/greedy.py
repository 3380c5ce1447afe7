"""The greedy argmax of Eqs. 3 and 5 of Wu et al. 2024: difficulty plus a weight times diversity.

    pick_n = argmax over x not yet picked of  difficulty(x) / a + lam * Div(x, picks) / b

It is exact. Candidates are held in descending order of difficulty, and a block of them is only
looked at when its upper bound can still win; the result is that of looking at all of them.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from iqa_checks.errors import UsageError

Div = Literal["min", "mean", "cosine_to_mean"]
DIVS: tuple[Div, ...] = ("min", "mean", "cosine_to_mean")

FloatArray = NDArray[np.float64]
Features = NDArray[np.float32]

BLOCK = 1024  # candidates looked at together
KEPT_BYTES = 256 * 2**20  # of features copied into memory; the rest is read again when needed
_SLACK = 1e-6  # rounding of a float32 dot product of unit vectors


def pick_greedily(
    difficulty: FloatArray,
    features: NDArray[np.floating] | None,
    n: int,
    *,
    div: Div = "mean",
    lam: float = 0.01,
    scaled: bool = True,
) -> tuple[NDArray[np.intp], FloatArray]:
    """The ``n`` picks in order, and the objective of each when it was picked; shapes (n,).

    Parameters
    ----------
    difficulty : (M,)
        First term of Eqs. 3 and 5, >= 0.
    features : (M, D) or None
        Any scale: rows are L2-normalised here. May be memory-mapped: it is read in blocks, and at
        most 256 MB of it are kept. None only with ``lam`` 0.
    div
        Div of Eqs. 3 and 5, 0 for no picks. 'min' and 'mean': squared distance to the nearest
        pick, mean squared distance to all picks. 'cosine_to_mean': 1 - cosine to their mean.
    scaled
        Divide difficulty by ``a``, its largest value, and Div by ``b``, the largest Div of any
        candidate to the first pick (at least a quarter of the largest there can be). Without,
        a = b = 1, as in the released code.

    Equal objectives go to the more difficult candidate, then to the first row.
    """
    order = np.argsort(-difficulty, kind="stable")
    ordered = difficulty[order].astype(np.float64)
    if scaled and len(ordered) and ordered[0] > 0:
        ordered = ordered / ordered[0]
    n = min(n, len(ordered))
    if lam == 0 or n <= 1:
        return order[:n], ordered[:n]
    if features is None:
        raise UsageError("a diversity term (lam > 0) needs features, one row per candidate")
    rows = _Rows(features, order)
    diversity = _Diversity(rows, div, scaled)
    places, objective = _greedy(ordered, diversity, n, lam)
    return order[places], objective


def _greedy(
    ordered: FloatArray, diversity: _Diversity, n: int, lam: float
) -> tuple[NDArray[np.intp], FloatArray]:
    """Picks as places in the descending order of difficulty."""
    left = ordered.copy()  # -inf once picked
    starts = range(0, len(left), BLOCK)
    hardest = np.array([left[a] for a in starts])
    ceiling = lam * diversity.ceiling
    places, objective = [0], [float(left[0])]
    for _ in range(n - 1):
        left[places[-1]] = -np.inf
        home = places[-1] // BLOCK
        hardest[home] = left[home * BLOCK : (home + 1) * BLOCK].max()
        diversity.add(places[-1])
        best, place = -np.inf, -1
        for k, start in enumerate(starts):
            if ordered[start] + ceiling <= best:
                break  # the blocks after it are easier still
            if hardest[k] + ceiling <= best:
                continue
            block = left[start : start + BLOCK]
            if diversity.may_exceed(k, block, lam, best):
                total = block + lam * diversity.of(k)
                highest = int(np.argmax(total))
                if total[highest] > best:
                    best, place = float(total[highest]), start + highest
        places.append(place)
        objective.append(best)
    return np.array(places, dtype=np.intp), np.array(objective)


class _Rows:
    """Unit-norm feature rows in a given order, block by block; the first blocks stay in memory."""

    def __init__(self, features: NDArray[np.floating], order: NDArray[np.intp]) -> None:
        self.features, self.order = features, order
        n_kept = max(1, KEPT_BYTES // (4 * BLOCK * features.shape[1]))
        # One array rather than one per block: numpy asks for huge pages for it.
        self._kept = np.empty((min(n_kept * BLOCK, len(order)), features.shape[1]), np.float32)
        self._filled: set[int] = set()

    def __len__(self) -> int:
        return len(self.order)

    def block(self, k: int) -> Features:
        start, end = k * BLOCK, min((k + 1) * BLOCK, len(self))
        if end > len(self._kept):
            return _unit(self.features[self.order[start:end]])
        if k not in self._filled:
            self._kept[start:end] = _unit(self.features[self.order[start:end]])
            self._filled.add(k)
        return self._kept[start:end]

    def row(self, place: int) -> Features:
        only: Features = _unit(self.features[self.order[place]][None])[0]
        return only

    def dots(self, vector: Features) -> Features:
        """Product of every row with a vector, read in the order of the file and once."""
        products = np.empty(len(self), np.float32)
        for start in range(0, len(self), BLOCK):
            products[start : start + BLOCK] = _unit(self.features[start : start + BLOCK]) @ vector
        return products[self.order]


def _unit(rows: NDArray[np.floating]) -> Features:
    """Rows with L2 norm 1; `UsageError` for a row that has none."""
    chosen = np.asarray(rows, dtype=np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", chosen, chosen))
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise UsageError(
            "a feature row is zero or not finite: compute the features of that image again"
        )
    unit: Features = chosen / norms[:, None]
    return unit


class _Diversity:
    """Div of blocks of candidates to the picks so far, divided by ``b`` of `pick_greedily`.

    With unit rows every Div is affine in a dot product: squared distance = 2 - 2 x.s, and the mean
    of squared distances = 2 - 2 x.(mean of s).
    """

    def __init__(self, rows: _Rows, div: Div, scaled: bool) -> None:
        self.rows, self.div = rows, div
        self.picks: list[Features] = []
        self.total = np.zeros(rows.features.shape[1])
        self._first = rows.dots(rows.row(0))  # to the most difficult candidate, the first pick
        self.unit = 1.0
        if scaled:
            self.unit = max(float(self._div(self._first.min())), 1e-12)
        self.ceiling = self._ceiling(float(self._div(self._first.min()))) / self.unit + _SLACK
        self._nearest: dict[int, tuple[Features, int]] = {}

    def _div(self, dots: NDArray[np.floating]) -> FloatArray:
        factor = 1.0 if self.div == "cosine_to_mean" else 2.0
        return factor - factor * np.asarray(dots, dtype=np.float64)

    def _ceiling(self, widest: float) -> float:
        """No Div exceeds this, where none to the first pick exceeds ``widest``.

        'min' includes the first pick. Else by the triangle inequality: two candidates are at most
        twice as far apart as the widest is from the first pick, so 4 times in squares.
        """
        if self.div == "min":
            return widest
        return min(2.0 if self.div == "cosine_to_mean" else 4.0, 4 * widest)

    def add(self, place: int) -> None:
        pick = self.rows.row(place)
        self.picks.append(pick)
        self.total += pick
        mean = self.total / len(self.picks)
        if self.div == "cosine_to_mean":
            mean = mean / max(float(np.linalg.norm(mean)), 1e-12)
        self.direction = mean.astype(np.float32)

    def of(self, k: int) -> FloatArray:
        """Div of each candidate of block ``k``."""
        nearest = self.div == "min"
        dots = self._nearest_dots(k) if nearest else self.rows.block(k) @ self.direction
        return self._div(dots) / self.unit

    def may_exceed(self, k: int, left: FloatArray, lam: float, best: float) -> bool:
        """Whether a candidate of the block can beat ``best``, by what is known of it.

        The distance to the nearest pick only shrinks, so an old one is an upper bound (lazy
        evaluation, Minoux 1978).
        """
        if self.div != "min" or best == -np.inf:
            return True
        dots, _ = self._known(k)
        bound = left + lam * (self._div(dots) / self.unit + _SLACK)
        return bool(bound.max() > best)

    def _known(self, k: int) -> tuple[Features, int]:
        return self._nearest.get(k) or (self._first[k * BLOCK : (k + 1) * BLOCK], 1)

    def _nearest_dots(self, k: int) -> Features:
        dots, counted = self._known(k)
        if counted < len(self.picks):
            newer = np.stack(self.picks[counted:])
            block = self.rows.block(k)
            dots = np.maximum(dots, block @ newer[0] if len(newer) == 1 else _largest(block, newer))
            self._nearest[k] = dots, len(self.picks)
        return dots


def _largest(block: Features, picks: Features) -> Features:
    largest: Features = (block @ picks.T).max(axis=1)
    return largest
