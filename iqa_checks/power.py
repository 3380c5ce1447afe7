"""How many stimuli and repeats find a drop? Planned from a baseline's own data; arrays only.

The standard error of a comparison falls with the square root of the number of stimuli (references
where they cluster). What it is at the baseline's size is taken from a comparison of two earlier
releases, or from synthetic candidates that are as good as the baseline.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from iqa_checks.agreement import (
    _cluster_codes,
    _count,
    _measure,
    _members,
    _mid_ranks,
    _paired,
    _value,
)
from iqa_checks.comparison import (
    _NO_VARIATION,
    DEFAULT_POWER,
    Cluster,
    Difference,
    FloatArray,
    IntArray,
    Judged,
    Summary,
    _fisher_zs,
    _quantile,
    _tail,
    _trial_counts,
    compare,
    minimum_detectable_drop,
)

__all__ = ["PlanOption", "judgement_noise", "power_plan", "rating_noise"]

# Correlation of the errors of two releases; their scores then have an SRCC of about .9.
_RESEMBLANCE = 0.64
_SYNTHETIC_RELEASES = 40


@dataclass(frozen=True, slots=True)
class PlanOption:
    """A sample size and what it can see.

    ``n`` stimuli in ``n_clusters`` references (None: independent), every trial asked ``repeats``
    times, ``trials`` in all; ``power`` for the drop asked about, ``detectable`` drop at the power
    asked for.
    """

    n: int
    n_clusters: int | None
    repeats: int
    trials: int
    power: float
    detectable: float


def power_plan(
    scores: ArrayLike,
    mos: ArrayLike,
    *,
    drop: float,
    cluster: Cluster = None,
    summary: Summary = "pooled",
    n_trials: int | None = None,
    noise_variance: float = 0.0,
    repeats: Sequence[int] = (1, 2, 3, 5),
    resemblance: float = _RESEMBLANCE,
    typical: Difference | None = None,
    alpha: float = 0.05,
    power: float = DEFAULT_POWER,
    seed: int = 0,
) -> list[PlanOption]:
    """How many stimuli and repeats find a drop, from a baseline's own data.

    The first option is the baseline's own size; then, for each number of repeats, the fewest
    stimuli (or references of the baseline's size) that reach `power`.

    Parameters
    ----------
    scores, mos, cluster, summary
        Of the baseline; as in `compare`.
    drop
        The drop of the correlation to be found, > 0.
    n_trials
        Trials of the baseline; as many as stimuli when not given. Scales with the stimuli.
    noise_variance
        Variance of the baseline's correlation on `Difference.scale` that comes from its
        judgements' noise (`judgement_noise`); only that part shrinks with repeats, and where it
        is 0 (unknown) no repeats are proposed.
    resemblance
        Correlation of the errors that baseline and candidate make on a stimulus, in [0, 1). Their
        releases are unknown before money is spent: .64 is cautious, since a release that
        resembles its baseline more needs fewer stimuli.
    typical
        A comparison of two earlier releases on these stimuli, whose standard error then replaces
        the assumption.
    alpha, power, seed
        One-sided error rate, power to reach, seed of the synthetic candidates.

    Raises
    ------
    ValueError
        Bad arrays or options, or a baseline whose correlation is undefined.
    """
    if not 0 < drop < 1:
        raise ValueError(f"drop must be between 0 and 1, got {drop}")
    if not 0 <= resemblance < 1:
        raise ValueError(f"resemblance must be in [0, 1), got {resemblance}")
    x, y = _paired(scores, mos)
    codes = _cluster_codes(cluster, len(y))
    if typical is None or not typical.std_error:
        typical = _typical_difference(x, y, codes, summary, resemblance, seed)
    planner = _Planner(typical, drop, alpha, power, noise_variance, n_trials or len(y))
    units = len(y) if codes is None else _count(codes)
    options = [planner.option(units, units, 1)]
    useful = repeats if noise_variance > 0 else [1]
    options += [planner.option(planner.fewest(units, r), units, r) for r in useful]
    return options


def judgement_noise(
    baseline: Judged,
    mos: ArrayLike,
    *,
    cluster: Cluster = None,
    scaling: str = "thurstone_map",
    tie_weight: float = 0.5,
    n_resamples: int = 100,
    seed: int = 0,
) -> float:
    """Variance of a cell's SRCC from its judgements' noise, by resampling trials.

    On the scale of its comparison: Fisher's z, or with `cluster` the mean over clusters as it is.
    """
    counts = _trial_counts(baseline, baseline, n_resamples, seed)[0]
    drawn = (baseline.scores(c, method=scaling, tie_weight=tie_weight) for c in counts)
    return _variance(drawn, mos, cluster)


def rating_noise(
    stimulus: ArrayLike,
    rating: ArrayLike,
    mos: ArrayLike,
    *,
    cluster: Cluster = None,
    n_resamples: int = 100,
    seed: int = 0,
) -> float:
    """As `judgement_noise`, for ratings: from how repeated ratings of a stimulus differ.

    0 where no stimulus was rated twice, since nothing is known then.

    Parameters
    ----------
    stimulus, rating : (T,)
        Position in `mos` and score of each rating.
    mos, cluster : (M,)
    """
    y = _paired(mos, mos)[1]
    who, given = np.asarray(stimulus, dtype=np.int64), np.asarray(rating, dtype=np.float64)
    counts = np.bincount(who, minlength=len(y))
    means = np.bincount(who, given, minlength=len(y)) / np.maximum(counts, 1)
    freedom = int(np.maximum(counts - 1, 0).sum())
    rated = counts > 0
    if freedom == 0 or rated.sum() < 4:
        return 0.0
    within = float(np.sum(np.square(given - means[who])) / freedom)
    rng = np.random.default_rng(seed)
    spread = np.sqrt(within / counts[rated])
    drawn = (means[rated] + spread * rng.standard_normal(len(spread)) for _ in range(n_resamples))
    return _variance(drawn, y[rated], None if cluster is None else np.asarray(cluster)[rated])


def _variance(drawn: Iterable[FloatArray], mos: ArrayLike, cluster: Cluster) -> float:
    """Variance of the SRCC over draws of the scores; 0 where fewer than two have one."""
    y = _paired(mos, mos)[1]
    codes = _cluster_codes(cluster, len(y))
    measure = _measure("srcc", "none", "increasing")
    members = [np.arange(len(y))] if codes is None else _members(codes)
    table = np.array([[_value(measure, x[m], y[m]) for m in members] for x in drawn])
    whole = table[:, ~np.isnan(table).all(axis=0)]
    values = whole[~np.isnan(whole).any(axis=1)].mean(axis=1) if whole.size else np.empty(0)
    if len(values) < 2:
        return 0.0
    return float(np.var(values if codes is not None else _fisher_zs(values, len(y)), ddof=1))


@dataclass(frozen=True, slots=True)
class _Planner:
    """Scales a typical comparison to other sizes: its variance falls as 1 / units."""

    typical: Difference
    drop: float
    alpha: float
    target: float
    noise: float
    n_trials: int

    def error(self, units: int, own_units: int, repeats: int) -> float:
        """Standard error with `units` units; the noise part (of both sides) shrinks by repeats."""
        whole = (self.typical.std_error or 0.0) ** 2
        noise = min(2 * self.noise, 0.9 * whole)
        return float(np.sqrt((whole - noise + noise / repeats) * own_units / units))

    def option(self, units: int, own_units: int, repeats: int) -> PlanOption:
        sized = self._sized(units, own_units, repeats)
        share = units / own_units
        found = minimum_detectable_drop(sized, alpha=self.alpha, power=self.target)
        return PlanOption(
            n=round(self.typical.n * share),
            n_clusters=None if self.typical.n_clusters is None else units,
            repeats=repeats,
            trials=round(self.n_trials * share * repeats),
            power=self._power(sized),
            detectable=1.0 if found is None else found,
        )

    def fewest(self, own_units: int, repeats: int) -> int:
        """The fewest units that reach the target, by doubling and halving."""
        fewest = 4
        most = fewest
        while self._power(self._sized(most, own_units, repeats)) < self.target and most < 10**7:
            fewest, most = most, 2 * most
        while most - fewest > 1:
            middle = (fewest + most) // 2
            enough = self._power(self._sized(middle, own_units, repeats)) >= self.target
            fewest, most = (fewest, middle) if enough else (middle, most)
        return most

    def _sized(self, units: int, own_units: int, repeats: int) -> Difference:
        df = None if self.typical.df is None else units - 1
        return replace(self.typical, std_error=self.error(units, own_units, repeats), df=df)

    def _power(self, sized: Difference) -> float:
        """Probability that a true drop is found."""
        if not sized.std_error:
            return 1.0
        z = sized.z_baseline
        gap = self.drop
        if sized.scale == "fisher_z":
            gap = z - float(np.arctanh(max(np.tanh(z) - self.drop, -0.999999)))
        return 1 - _tail(gap / sized.std_error - _quantile(1 - self.alpha, sized.df), sized.df)


def _typical_difference(
    x: FloatArray,
    y: FloatArray,
    codes: IntArray | None,
    summary: Summary,
    resemblance: float,
    seed: int,
) -> Difference:
    """The comparison with synthetic candidates as good as the baseline, median standard error.

    Normal scores of the baseline are split into what opinions explain and a residual; a candidate
    keeps the first and shares `resemblance` of the second with the baseline.
    """
    rng = np.random.default_rng(seed)
    explained, residual = _split(x, y)
    fresh = float(np.sqrt(1 - resemblance**2))
    found: list[Difference] = []
    for _ in range(_SYNTHETIC_RELEASES):
        other = resemblance * residual + fresh * _shuffled(residual, codes, rng)
        found.append(
            compare(
                explained + other, explained + residual, y, cluster=codes, summary=summary,
                statistic="srcc",
            )
        )  # fmt: skip
    usable = [d for d in found if d.std_error is not None and d.std_error > _NO_VARIATION]
    if not usable:
        why = next((d.reason for d in found if d.reason), "the baseline's scores never vary")
        raise ValueError(f"no power can be planned from this baseline: {why}")
    return sorted(usable, key=lambda d: d.std_error or 0.0)[len(usable) // 2]


def _shuffled(residual: FloatArray, codes: IntArray | None, rng: np.random.Generator) -> FloatArray:
    """Residuals of another release; what is common to a reference stays common to one."""
    if codes is None:
        return rng.permutation(residual)
    sizes = np.bincount(codes)
    common = np.bincount(codes, residual) / sizes
    own = residual - common[codes]
    return np.asarray(rng.permutation(common)[codes] + rng.permutation(own))


def _split(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Normal scores of `x` as a multiple of those of `y` and the rest."""
    from scipy.special import ndtri

    a, b = (ndtri((_mid_ranks(v) - 0.5) / max(len(v), 1)) for v in (x, y))
    square = float(b @ b)
    explained = b * (float(a @ b) / square if square > 0 else 0.0)
    return np.asarray(explained), np.asarray(a - explained)
