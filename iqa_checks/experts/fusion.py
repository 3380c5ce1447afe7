"""Several experts as one, on the scale of the human scores (the d_w and q_w of Eqs. 3-5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from iqa_checks.agreement import fit_logistic4
from iqa_checks.errors import UsageError, known_names

FloatArray = NDArray[np.float64]
Align = Literal["logistic", "rank"]
ALIGNMENTS: tuple[Align, ...] = ("logistic", "rank")

# Section 4.1 of Wu et al. 2024: one expert that is good within a data set, one across data sets.
PAPER_EXPERTS: dict[str, tuple[str, ...]] = {
    "FR-KADID": ("topiq_fr", "lpips"),
    "TQD": ("dists", "lpips"),
    "Aug-KADID": ("dists", "lpips"),
    "SPCD": ("cdnet", "lpips"),
    "SPAQ": ("liqe_mix", "maniqa"),
    "NR-KADID": ("liqe_mix", "maniqa"),
    "AGIQA-3K": ("qalign", "maniqa"),
}

# By scenario, for sets of one's own and the built-in ones: no weights, no torch.
OFFLINE_EXPERTS: dict[str, tuple[str, ...]] = {
    "fr": ("gmsd", "ms_ssim"),
    "nr": ("blur_effect", "noise_sigma"),
    "difference": ("ciede2000",),
}


def default_experts(stimuli: str, scenario: str) -> tuple[str, ...]:
    """The experts that select difficult samples of a set unless others are named.

    The paper's pair for its data sets, whose weights must then be at hand; else a pair that runs
    offline.
    """
    if stimuli in PAPER_EXPERTS:
        return PAPER_EXPERTS[stimuli]
    if scenario not in OFFLINE_EXPERTS:
        raise known_names("scenario", scenario, OFFLINE_EXPERTS)
    return OFFLINE_EXPERTS[scenario]


def fuse(
    experts: Mapping[str, ArrayLike],
    mos: ArrayLike,
    *,
    align: Align = "logistic",
    n_folds: int | None = None,
    groups: Sequence[Any] | None = None,
    preset: Literal["sound", "paper"] = "sound",
    seed: int = 0,
) -> FloatArray:
    """Mean of the experts with equal weights after each is aligned to the MOS, shape (M,).

    Parameters
    ----------
    experts
        Scores by name, each (M,), higher = better.
    mos : (M,)
        Human scores on 0..100, higher = better.
    align
        'logistic': the increasing four-parameter logistic that predicts the MOS best. 'rank': the
        k-th best score becomes the k-th best MOS.
    n_folds
        Align each part of the stimuli on the others. None aligns on all of them, as the paper
        does, which lets each MOS take part in its own prediction.
    groups : (M,), optional
        References, say: stimuli of one group stay in one fold.
    preset
        'paper': logistic of free sign on all stimuli, as the released code.

    Raises
    ------
    UsageError
        No expert, lengths that differ, scores that are not finite, an expert that gives one score
        to all, an unknown ``align``, or fewer than two stimuli or groups for the folds.
    """
    if not experts:
        raise UsageError("no expert to fuse: name at least one")
    if align not in ALIGNMENTS:
        raise known_names("alignment", align, ALIGNMENTS)
    human = np.asarray(mos, dtype=np.float64)
    scores = {name: _checked(name, values, len(human)) for name, values in experts.items()}
    if preset == "paper":
        aligned = [fit_logistic4(x, human, "free") for x in scores.values()]
        return _mean(aligned)
    if n_folds is None:
        return _mean([_aligned(x, human, x, align) for x in scores.values()])
    fold = _folds(len(human), n_folds, groups, seed)
    aligned = []
    for x in scores.values():
        values = np.empty_like(human)
        for k in range(int(fold.max()) + 1):
            out = fold == k
            values[out] = _aligned(x[~out], human[~out], x[out], align)
        aligned.append(values)
    return _mean(aligned)


def _aligned(x: FloatArray, mos: FloatArray, asked: FloatArray, align: Align) -> FloatArray:
    """The increasing map from ``x`` to ``mos``, at ``asked``; flat outside the scores seen."""
    mapped = fit_logistic4(x, mos, "increasing") if align == "logistic" else _rank_mapped(x, mos)
    places, first = np.unique(x, return_index=True)
    return np.interp(asked, places, mapped[first])


def _rank_mapped(x: FloatArray, mos: FloatArray) -> FloatArray:
    """MOS of the same rank; equal scores get the mean of theirs."""
    order = np.argsort(x, kind="stable")
    values = np.empty_like(mos)
    values[order] = np.sort(mos)
    _, which = np.unique(x, return_inverse=True)
    mapped: FloatArray = (np.bincount(which, values) / np.bincount(which))[which]
    return mapped


def _folds(n: int, n_folds: int, groups: Sequence[Any] | None, seed: int) -> NDArray[np.intp]:
    """Fold of each stimulus, equally many groups in each, drawn by seed."""
    of_group = np.arange(n)
    if groups is not None:
        if len(groups) != n:
            raise UsageError(f"{len(groups)} groups for {n} stimuli: expected one for each")
        of_group = np.unique(np.asarray(groups), return_inverse=True)[1]
    n_groups = int(of_group.max()) + 1 if n else 0
    if not 2 <= n_folds <= n_groups:
        raise UsageError(
            f"{n_folds} folds for {n_groups} stimuli or groups: expected 2 to as many as there are"
        )
    shuffled = np.random.default_rng(seed).permutation(n_groups)
    return (shuffled % n_folds)[of_group]


def _checked(name: str, values: ArrayLike, n: int) -> FloatArray:
    scores = np.asarray(values, dtype=np.float64)
    if scores.shape != (n,):
        raise UsageError(f"expert {name}: scores of shape {scores.shape} for {n} MOS")
    if not np.isfinite(scores).all():
        raise UsageError(f"expert {name}: {(~np.isfinite(scores)).sum()} scores are not finite")
    if n and np.ptp(scores) == 0:
        raise UsageError(f"expert {name} gives {scores[0]:g} to all {n} stimuli: take another")
    return scores


def _mean(aligned: Sequence[FloatArray]) -> FloatArray:
    mean: FloatArray = np.mean(aligned, axis=0)
    return mean
