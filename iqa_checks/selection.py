"""Which stimuli a cell asks about; arrays only, no images.

Uniform selection takes equal steps of rank over the sorted human scores, both ends included (the
released code's issue 1; Wu et al. 2024, section 4.2). The released lists tell how a step between
two ranks is rounded: to the nearest rank over a whole table (SPAQ, AGIQA-3K, NR-KADID, SPCD: all
150 scores of each list come out again), downwards inside a reference (FR-KADID, Aug-KADID:
likewise). Difficult selection (Eqs. 3-5) is in `iqa_checks.difficult`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray


def select_uniform(
    mos: NDArray[np.float64],
    n: int,
    keys: Sequence[str],
    *,
    rounding: Literal["nearest", "down"] = "nearest",
) -> NDArray[np.intp]:
    """``n`` positions at equal steps of rank over ``mos``, shape (min(n, M),), in input order.

    Equal scores are put in the order of ``keys`` (stimulus hashes or names), so that the order of
    the table does not matter. ``rounding`` is of ranks that fall between two stimuli.
    """
    order = np.lexsort((np.asarray(keys), mos))
    if n >= len(order):
        return np.arange(len(order))
    ranks = np.linspace(0, len(order) - 1, n)
    steps = (np.round(ranks) if rounding == "nearest" else np.floor(ranks + 1e-9)).astype(int)
    return np.sort(order[steps])


def select_uniform_by_reference(
    mos: NDArray[np.float64],
    references: Sequence[str],
    n_references: int,
    per_reference: int,
    keys: Sequence[str],
    *,
    seed: int,
) -> NDArray[np.intp]:
    """``per_reference`` equally spaced ranks inside each of ``n_references`` references.

    The references are drawn by ``seed`` from the sorted names, all of them where there are no
    more; ranks are rounded down, as in the released lists. Returns positions in input order.
    """
    names = sorted(set(references))
    if n_references < len(names):
        draw = np.random.default_rng(seed).permutation(len(names))[:n_references]
        names = [names[k] for k in sorted(draw)]
    chosen = []
    for name in names:
        member = np.array([i for i, r in enumerate(references) if r == name])
        own_keys = [keys[i] for i in member]
        local = select_uniform(mos[member], per_reference, own_keys, rounding="down")
        chosen.append(member[local])
    return np.sort(np.concatenate(chosen))


def select_exemplars(quality: NDArray[np.float64], n: int, *, seed: int) -> NDArray[np.intp]:
    """``n`` positions near equal steps of rank inside the range of ``quality`` (0..100), shuffled.

    The ends are avoided: an exemplar should leave room on both sides. Shuffled, because an order
    from worst to best would tell a model where to put its answer.
    """
    order = np.argsort(quality, kind="stable")
    fractions = (np.arange(n) + 0.5) / n
    picks = order[np.round(fractions * (len(order) - 1)).astype(int)]
    return np.asarray(np.random.default_rng(seed).permutation(picks))
