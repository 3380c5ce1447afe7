"""Agreement of quality scores with human opinion. Arrays in, numbers out.

Plain functions (`srcc`, `krcc`, `plcc`, `rmse`) return a float, nan where the statistic is
undefined: fewer than three stimuli, or scores or opinions that are all equal. Undefined is never 0.
`correlation`, `cluster_mean` and `chance_level` return records that say so in words.

Full-reference stimuli of one reference are not independent: pass `cluster` (the reference of each
stimulus) and intervals come from leaving out references instead of stimuli.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "ChanceLevel",
    "Correlation",
    "Direction",
    "Mapping",
    "Statistic",
    "chance_level",
    "cluster_mean",
    "correlation",
    "fit_logistic4",
    "krcc",
    "plcc",
    "rmse",
    "srcc",
    "srcc_after_logistic",
]

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
Statistic: TypeAlias = Literal["srcc", "krcc", "plcc", "srcc_after_logistic"]
Mapping: TypeAlias = Literal["logistic4", "linear", "none"]
Direction: TypeAlias = Literal["increasing", "decreasing", "free"]

# Four parameters through four points fit anything.
_MIN_LOGISTIC_POINTS = 5
# Above this many stimuli, leaving one out keeps the fitted curve: by the envelope theorem the
# refit changes the correlation only to second order, and n refits of n points cost too much.
_REFIT_LIMIT = 200
_MAX_FIT_STEPS = 40
# Gain in explained variance below which a fit is finished.
_FIT_TOLERANCE = 1e-7
# Elements of the largest temporary array, 16 MB as float64.
_CHUNK = 2_000_000


@dataclass(frozen=True, slots=True)
class Correlation:
    """A correlation with its interval.

    Attributes
    ----------
    value : float or None
        In [-1, 1]: 1 same order, 0 unrelated, negative reversed; None when undefined.
    low, high : float or None
        Two-sided interval of coverage `level`; None when the data cannot give one.
    level : float
        Coverage, such as 0.95.
    n : int
        Number of stimuli.
    n_clusters : int or None
        Number of clusters that the interval rests on; None when stimuli are independent.
    std_error : float or None
        Standard error of `value` on `scale`.
    df : int or None
        Degrees of freedom of Student's t; None for the normal distribution.
    scale : {'fisher_z', 'identity'}
        Where `std_error` applies: to ``artanh(value)`` or to `value` itself.
    reason : str or None
        Why the value or its interval is missing, or what was done to give one.
    """

    value: float | None
    low: float | None
    high: float | None
    level: float
    n: int
    n_clusters: int | None = None
    std_error: float | None = None
    df: int | None = None
    scale: Literal["fisher_z", "identity"] = "fisher_z"
    reason: str | None = None

    @property
    def fisher_z(self) -> float | None:
        """``artanh(value)``, finite for a perfect correlation too; None when undefined."""
        return None if self.value is None else _fisher_z(self.value, self.n)

    @property
    def p_above_zero(self) -> float | None:
        """One-sided p-value of "the true correlation is above 0"."""
        return self.p_above(0.0)

    def p_above(self, threshold: float) -> float | None:
        """One-sided p-value of "the true correlation is above `threshold`".

        Small: significantly above. None when there is no standard error.

        Raises
        ------
        ValueError
            `threshold` is not strictly between -1 and 1.
        """
        statistic = self._distance(threshold)
        return None if statistic is None else _upper_tail(statistic, self.df)

    def p_below(self, threshold: float) -> float | None:
        """One-sided p-value of "the true correlation is below `threshold`", as `p_above`."""
        statistic = self._distance(threshold)
        return None if statistic is None else _upper_tail(-statistic, self.df)

    def _distance(self, threshold: float) -> float | None:
        """Standard errors from `threshold` up to the value."""
        if not -1 < threshold < 1:
            raise ValueError(f"threshold must be between -1 and 1, got {threshold}")
        if self.value is None or self.std_error is None:
            return None
        if self.scale == "identity":
            return (self.value - threshold) / self.std_error
        return (_fisher_z(self.value, self.n) - float(np.arctanh(threshold))) / self.std_error


@dataclass(frozen=True, slots=True)
class ChanceLevel:
    """What unrelated scores would reach, by permutation of the opinions.

    Attributes
    ----------
    value : float or None
        The statistic observed; None when undefined.
    mean : float or None
        Mean over permutations; not 0 when a curve is fitted.
    upper : float or None
        Quantile `level` of the permutations: an observed value above it is significant.
    level : float
        Such as 0.95.
    p_value : float or None
        One-sided: share of permutations that reach `value`, the observed order included.
    n_permutations : int
    reason : str or None
        Why `value` is missing.
    """

    value: float | None
    mean: float | None
    upper: float | None
    level: float
    p_value: float | None
    n_permutations: int
    reason: str | None = None


# --- Plain statistics ---------------------------------------------------------------------------


def srcc(scores: ArrayLike, mos: ArrayLike) -> float:
    """Spearman's rank correlation: raw scores, mid-ranks for ties, signed.

    Parameters
    ----------
    scores, mos : (n,)
        Scores and mean opinion scores, any units, finite.

    Returns
    -------
    float
        In [-1, 1]; nan when n < 3 or either side is constant.

    Raises
    ------
    ValueError
        Lengths differ, or a value is not finite.
    """
    return _value(_Measure("srcc"), *_paired(scores, mos))


def krcc(scores: ArrayLike, mos: ArrayLike) -> float:
    """Kendall's tau-b. Arguments, range and errors as `srcc`."""
    return _value(_Measure("krcc"), *_paired(scores, mos))


def plcc(
    scores: ArrayLike,
    mos: ArrayLike,
    mapping: Mapping = "logistic4",
    direction: Direction = "increasing",
) -> float:
    """Pearson's linear correlation after mapping scores to opinions.

    Parameters
    ----------
    scores, mos : (n,)
        Scores and mean opinion scores, any units, finite.
    mapping
        'logistic4': after `fit_logistic4`, or without a curve where no such curve does better.
        'linear': after a straight line. 'none': as the numbers are.
    direction
        'increasing': opinions rise with scores (preset `sound`); unrelated scores can only gain
        what an increasing curve gains, and reversed scores stay negative. 'decreasing': scores
        are negated first. 'free': the sign is fitted too, so the result is never negative
        (preset `paper`). 'none' ignores it.

    Returns
    -------
    float
        In [-1, 1]; nan when n < 3 or either side is constant. A fitted curve inflates it: compare
        it with `chance_level`, not with 0.

    Raises
    ------
    ValueError
        Lengths differ, a value is not finite, or an unknown choice.
    """
    return _value(_measure("plcc", mapping, direction), *_paired(scores, mos))


def srcc_after_logistic(scores: ArrayLike, mos: ArrayLike) -> float:
    """SRCC after a logistic fit of free sign, as the code of Wu et al. 2024 computes it.

    For comparison with its tables only: the fit turns a reversed order around, so unrelated
    scores do not centre on 0. Arguments and errors as `srcc`.
    """
    return _value(_Measure("srcc_after_logistic", direction="free"), *_paired(scores, mos))


def fit_logistic4(
    scores: ArrayLike, mos: ArrayLike, direction: Direction = "increasing"
) -> FloatArray:
    """Scores mapped to opinions by the least-squares four-parameter logistic.

    ``f(s) = b2 + (b1 - b2) / (1 + exp(-(s - b3) / b4))``, b4 > 0, and b1 >= b2 unless `direction`
    is 'free'. With a fixed direction, b4 is at least a tenth of the spread of the scores, so that
    the curve cannot shrink to a step, and the best of three starts is taken. 'free' repeats the
    fit in the code of Wu et al. 2024: MINPACK from the mean and a quarter of the standard
    deviation of the scores, whatever local optimum that ends in.

    Returns
    -------
    (n,) float64
        In the units of `mos`. A straight line when n < 5 or, with a fixed direction, when that
        does better; the mean opinion when nothing of the direction asked does better than that.

    Raises
    ------
    ValueError
        Lengths differ, a value is not finite, or an unknown `direction`.
    """
    measure = _measure("plcc", "logistic4", direction)
    x, y = _paired(scores, mos)
    if len(x) == 0:
        return x
    mapped: FloatArray = _logistic_rows(measure.oriented(x)[None], y[None], direction)[0][0]
    return mapped


def rmse(
    scores: ArrayLike,
    mos: ArrayLike,
    mapping: Mapping = "logistic4",
    direction: Direction = "increasing",
) -> float:
    """Root mean square error of the mapped scores, in the units of `mos`; nan when n = 0.

    Parameters and errors as `plcc`.
    """
    measure = _measure("plcc", mapping, direction)
    x, y = _paired(scores, mos)
    if len(x) == 0:
        return float("nan")
    if mapping == "logistic4":
        x = fit_logistic4(x, y, direction)
    elif mapping == "linear":
        x = _linear_rows(measure.oriented(x)[None], y[None], measure.direction)[0][0]
    return float(np.sqrt(np.mean(np.square(x - y))))


# --- Statistics with intervals ------------------------------------------------------------------


def correlation(
    scores: ArrayLike,
    mos: ArrayLike,
    *,
    statistic: Statistic = "srcc",
    mapping: Mapping = "logistic4",
    direction: Direction = "increasing",
    cluster: Sequence[Any] | NDArray[Any] | None = None,
    interval: Literal["jackknife", "bootstrap"] = "jackknife",
    level: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Correlation:
    """A correlation over all stimuli with its interval.

    Parameters
    ----------
    scores, mos : (n,)
        Scores and mean opinion scores, finite.
    statistic, mapping, direction
        What to compute; the last two are `plcc`'s.
    cluster : (n,), optional
        Cluster of each stimulus, such as its reference; intervals then resample clusters.
    interval
        'jackknife': leave one stimulus (or cluster) out, Student's t on the Fisher-z scale;
        deterministic. 'bootstrap': percentiles; SRCC and PLCC only, with the curve of a fitted
        PLCC kept.
    level
        Coverage, in (0, 1).
    n_resamples, seed
        Of the bootstrap.

    Returns
    -------
    Correlation
        A perfect correlation, and a jackknife that finds no variation at all, say nothing about
        their error: the interval is then that of Fisher's z, at the nearest value below 1.

    Raises
    ------
    ValueError
        Bad arrays or options.
    """
    measure = _measure(statistic, mapping, direction)
    _check_level(level)
    x, y = _paired(scores, mos)
    codes = _cluster_codes(cluster, len(x))
    report = _Report(len(x), None if codes is None else _count(codes), level)
    value = _value(measure, x, y)
    if np.isnan(value):
        return report.undefined(_why_undefined(x, y))
    units, unit_name = (len(x), "stimuli") if codes is None else (_count(codes), "clusters")
    fewest = 4 if codes is None else 3
    if units < fewest:
        return report.without_interval(
            value, f"an interval needs at least {fewest} {unit_name}, got {units}"
        )
    if interval == "bootstrap":
        replicates = _bootstrap(measure, x, y, codes, n_resamples, seed)
        return report.from_bootstrap(value, replicates)
    if interval != "jackknife":
        raise ValueError(f"interval must be 'jackknife' or 'bootstrap', got {interval!r}")
    return report.from_jackknife(value, _leave_out(measure, x, y, codes), unit_name)


def cluster_mean(
    scores: ArrayLike,
    mos: ArrayLike,
    cluster: Sequence[Any] | NDArray[Any],
    *,
    statistic: Statistic = "srcc",
    mapping: Mapping = "logistic4",
    direction: Direction = "increasing",
    undefined: Literal["exclude", "zero"] = "exclude",
    level: float = 0.95,
) -> Correlation:
    """Mean over clusters of the correlation within each; t interval over clusters.

    Parameters
    ----------
    scores, mos : (n,)
        Scores and mean opinion scores, finite.
    cluster : (n,)
        Cluster of each stimulus, such as its reference.
    statistic, mapping, direction, level
        As in `correlation`.
    undefined
        A cluster without a correlation: 'exclude' it, and say so in `reason`, or count it as
        'zero' as the code of Wu et al. 2024 does (preset `paper`).

    Returns
    -------
    Correlation
        On the identity scale; `n_clusters` counts the clusters averaged.

    Raises
    ------
    ValueError
        Bad arrays or options.
    """
    if undefined not in ("exclude", "zero"):
        raise ValueError(f"undefined must be 'exclude' or 'zero', got {undefined!r}")
    measure = _measure(statistic, mapping, direction)
    _check_level(level)
    x, y = _paired(scores, mos)
    codes = _cluster_codes(cluster, len(x))
    values = np.array([_value(measure, x[m], y[m]) for m in _members(codes)])
    missing = int(np.sum(np.isnan(values)))
    values = values[~np.isnan(values)] if undefined == "exclude" else np.nan_to_num(values)
    done = "left out" if undefined == "exclude" else "counted as 0"
    note = f"{missing} clusters without a correlation {done}" if missing else None
    return _Report(len(x), len(values), level).from_mean(values, note)


def chance_level(
    scores: ArrayLike,
    mos: ArrayLike,
    *,
    statistic: Statistic = "srcc",
    mapping: Mapping = "logistic4",
    direction: Direction = "increasing",
    cluster: Sequence[Any] | NDArray[Any] | None = None,
    summary: Literal["pooled", "cluster_mean"] = "pooled",
    level: float = 0.95,
    n_permutations: int = 1_000,
    seed: int = 0,
) -> ChanceLevel:
    """What a statistic reaches when scores and opinions are unrelated, fits redone each time.

    Parameters
    ----------
    scores, mos : (n,)
        Scores and mean opinion scores, finite.
    statistic, mapping, direction
        As in `correlation`.
    cluster : (n,), optional
        Opinions are then permuted within each cluster only.
    summary
        'pooled': one correlation over all stimuli. 'cluster_mean': mean over clusters, an
        undefined one counting as 0.
    level
        Quantile reported as `upper`, in (0, 1).
    n_permutations, seed
        Number of permutations, >= 1, and the seed that draws them.

    Returns
    -------
    ChanceLevel

    Raises
    ------
    ValueError
        Bad arrays or options, or 'cluster_mean' without `cluster`.
    """
    measure = _measure(statistic, mapping, direction)
    _check_level(level)
    if n_permutations < 1:
        raise ValueError(f"n_permutations must be at least 1, got {n_permutations}")
    if summary not in ("pooled", "cluster_mean"):
        raise ValueError(f"summary must be 'pooled' or 'cluster_mean', got {summary!r}")
    x, y = _paired(scores, mos)
    codes = _cluster_codes(cluster, len(x))
    if summary == "cluster_mean" and codes is None:
        raise ValueError("summary='cluster_mean' needs cluster")
    if len(x) < 3:
        return ChanceLevel(None, None, None, level, None, n_permutations, _why_undefined(x, y))
    parts = _members(codes) if summary == "cluster_mean" else [np.arange(len(x))]
    observed = _summary(measure, x, y, parts, np.arange(len(x))[None])
    if np.isnan(observed[0]):
        reason = _why_undefined(x, y)
        return ChanceLevel(None, None, None, level, None, n_permutations, reason)
    rng = np.random.default_rng(seed)
    values = np.concatenate(
        [
            _summary(measure, x, y, parts, _permutations(rng, size, codes, len(x)))
            for size in _chunks(n_permutations, len(x))
        ]
    )
    values = values[~np.isnan(values)]
    # A tolerance, so that a permutation that restores the observed order counts as reaching it.
    reached = int(np.sum(values >= observed[0] - 1e-12))
    return ChanceLevel(
        value=float(observed[0]),
        mean=float(np.mean(values)),
        upper=float(np.quantile(values, level)),
        level=level,
        p_value=(1 + reached) / (1 + len(values)),
        n_permutations=n_permutations,
    )


# --- One correlation ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Measure:
    """Which correlation; SRCC and KRCC have no mapping."""

    statistic: Statistic
    mapping: Mapping = "logistic4"
    direction: Direction = "increasing"

    @property
    def fitted(self) -> bool:
        return self.statistic == "srcc_after_logistic" or (
            self.statistic == "plcc" and self.mapping == "logistic4"
        )

    def oriented(self, x: FloatArray) -> FloatArray:
        """Scores with a 'decreasing' direction turned into an increasing one."""
        turned = self.statistic == "plcc" and self.mapping != "none"
        return -x if turned and self.direction == "decreasing" else x


def _measure(statistic: Statistic, mapping: Mapping, direction: Direction) -> _Measure:
    for name, choice, known in (
        ("statistic", statistic, get_args(Statistic)),
        ("mapping", mapping, get_args(Mapping)),
        ("direction", direction, get_args(Direction)),
    ):
        if choice not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got {choice!r}")
    if statistic == "srcc_after_logistic":
        return _Measure(statistic, direction="free")
    return _Measure(statistic, mapping, direction)


def _value(measure: _Measure, x: FloatArray, y: FloatArray) -> float:
    if len(x) < 3 or _constant(x) or _constant(y):
        return float("nan")
    return float(_row_values(measure, *_ranked(measure, x[None], y[None]))[0])


def _ranked(measure: _Measure, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Rows of mid-ranks for SRCC, and the rows themselves otherwise."""
    if measure.statistic != "srcc":
        return measure.oriented(x), y
    return _row_ranks(x), _row_ranks(y)


def _row_values(measure: _Measure, x: FloatArray, y: FloatArray) -> FloatArray:
    """(B,) correlations of rows prepared by `_ranked`: x (1, n) or (B, n), y (B, n)."""
    if measure.statistic == "krcc":
        both = zip(np.broadcast_to(x, y.shape), y, strict=True)
        return np.array([_kendall(a, b) for a, b in both])
    if not measure.fitted:
        values = _row_pearson(x, y)
        free = measure.mapping == "linear" and measure.direction == "free"
        return np.abs(values) if free and measure.statistic == "plcc" else values
    mapped, fitted = _logistic_rows(x, y, measure.direction)
    if measure.statistic == "plcc":
        return fitted
    return _row_pearson(_row_ranks(mapped), _row_ranks(y))


def _mid_ranks(values: FloatArray) -> FloatArray:
    """Ranks 1 .. n; equal values share the mean of their ranks."""
    order = np.argsort(values, kind="stable")
    starts, sizes = _runs(values[order])
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + 0.5 * (sizes + 1), sizes)
    return ranks


def _runs(ordered: FloatArray) -> tuple[IntArray, IntArray]:
    """Start and length of each run of equal values in a sorted array."""
    new = np.ones(len(ordered), dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(new)
    return starts, np.diff(starts, append=len(ordered))


def _row_ranks(rows: FloatArray) -> FloatArray:
    return np.array([_mid_ranks(row) for row in rows])


def _row_pearson(x: FloatArray, y: FloatArray) -> FloatArray:
    """(B,) Pearson correlations of rows; nan where one side is constant."""
    x, y = _centred_rows(x), _centred_rows(y)
    product = np.einsum("ij,ij->i", np.broadcast_to(x, y.shape), y)
    return _ratio(product, np.einsum("ij,ij->i", x, x), np.einsum("ij,ij->i", y, y))


def _centred_rows(rows: FloatArray) -> FloatArray:
    """Rows minus their means; exact zeros for a constant row, whose mean may be rounded."""
    varied = rows.max(axis=1, keepdims=True) > rows.min(axis=1, keepdims=True)
    centred: FloatArray = (rows - rows.mean(axis=1, keepdims=True)) * varied
    return centred


def _ratio(product: FloatArray, square_x: FloatArray, square_y: FloatArray) -> FloatArray:
    """``product / sqrt(square_x * square_y)`` in [-1, 1]; nan where a square is 0."""
    size = np.sqrt(np.maximum(square_x, 0.0)) * np.sqrt(np.maximum(square_y, 0.0))
    defined = size > 0
    return np.clip(np.where(defined, product / np.where(defined, size, 1.0), np.nan), -1.0, 1.0)


def _kendall(x: FloatArray, y: FloatArray) -> float:
    concordance, untied_x, untied_y = _kendall_terms(x, y)
    return float(_ratio(concordance.sum(), untied_x.sum(), untied_y.sum()))


def _kendall_terms(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """For each stimulus: concordant minus discordant pairs, pairs untied in x, and in y."""
    terms = []
    for rows in _row_blocks(len(x)):
        sign_x = np.sign(x[rows, None] - x)
        sign_y = np.sign(y[rows, None] - y)
        terms.append(
            (np.einsum("ij,ij->i", sign_x, sign_y), (sign_x != 0).sum(1), (sign_y != 0).sum(1))
        )
    concordance, untied_x, untied_y = (
        np.concatenate(term).astype(np.float64) for term in zip(*terms, strict=True)
    )
    return concordance, untied_x, untied_y


# --- The logistic fit: many rows at once, by variable projection --------------------------------


def _logistic_rows(
    x: FloatArray, y: FloatArray, direction: Direction
) -> tuple[FloatArray, FloatArray]:
    """Mapped scores (B, n) and their correlation (B,) with y; x is (1, n) or (B, n).

    A 'decreasing' direction has been turned into an increasing one before.
    """
    mapped, best = _linear_rows(x, y, direction)
    n = y.shape[1]
    if n < _MIN_LOGISTIC_POINTS:
        return mapped, best
    if direction == "free":
        mapped = _published_fits(np.broadcast_to(x, y.shape), y)
        return mapped, _row_pearson(mapped, y)
    shared = len(x) == 1
    for rows in _slices(len(y), n):
        own_x = x if shared else x[rows]
        for start in _starts(own_x):
            fit, value = _fit_sigmoid(own_x, y[rows], start)
            better = value > np.nan_to_num(best[rows], nan=np.inf) + 1e-12
            best[rows] = np.where(better, value, best[rows])
            mapped[rows] = np.where(better[:, None], fit, mapped[rows])
    return mapped, best


def _linear_rows(
    x: FloatArray, y: FloatArray, direction: Direction
) -> tuple[FloatArray, FloatArray]:
    """Least-squares line of the direction asked, as `_logistic_rows`.

    Where the best such line is flat, the correlation is that of the scores as they are.
    """
    centred = x - x.mean(axis=1, keepdims=True)
    mean = y.mean(axis=1, keepdims=True)
    square = np.einsum("ij,ij->i", centred, centred)[:, None]
    product = np.einsum("ij,ij->i", np.broadcast_to(centred, y.shape), y - mean)[:, None]
    slope = product / np.where(square > 0, square, 1.0)
    if direction != "free":
        slope = np.maximum(slope, 0.0)
    values = _row_pearson(x, y)
    return mean + slope * centred, np.abs(values) if direction == "free" else values


def _published_fits(x: FloatArray, y: FloatArray) -> FloatArray:
    """Mapped scores of rows, by the fit in the code of Wu et al. 2024.

    Unrelated scores have many local optima, some of them saturated; only the same solver from the
    same start falls into the same ones. Scores are put on 0..100 first, as theirs are: the
    solver's steps are relative to a parameter's size, so that scores centred on 0 would leave the
    location where it starts.
    """
    from scipy.optimize import leastsq
    from scipy.special import expit

    def curve(b: FloatArray, s: FloatArray) -> FloatArray:
        return np.asarray(b[1] + (b[0] - b[1]) * expit((s - b[2]) / max(abs(b[3]), 1e-300)))

    def residual(b: FloatArray, s: FloatArray, o: FloatArray) -> FloatArray:
        return curve(b, s) - o

    low, high = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
    x = 100.0 * (x - low) / np.where(high > low, high - low, 1.0)
    mapped = np.empty(y.shape)
    for row, (s, opinions) in enumerate(zip(x, y, strict=True)):
        start = (opinions.max(), opinions.min(), s.mean(), max(s.std() / 4, 1e-300))
        # Slow valleys are cut short (full_output: without a warning); the value has settled there.
        found = leastsq(partial(residual, s=s, o=opinions), start, maxfev=2_000, full_output=True)
        fitted = curve(found[0], s)
        mapped[row] = fitted if np.all(np.isfinite(fitted)) else opinions.mean()
    return mapped


@dataclass(frozen=True, slots=True, eq=False)
class _Start:
    """Where a fit starts and how far its log width may go; (1 or B, 1) arrays."""

    centre: FloatArray
    log_width: FloatArray
    lowest: FloatArray
    highest: FloatArray


def _starts(x: FloatArray) -> list[_Start]:
    mean = x.mean(axis=1, keepdims=True)
    deviation = np.maximum(x.std(axis=1, keepdims=True), np.finfo(float).tiny)
    low, median, high = np.quantile(x, (0.25, 0.5, 0.75), axis=1)[..., None]
    # One far outlier inflates the standard deviation, and ties can make the quartiles equal.
    quartiles = (high - low) / 1.35
    spread = np.where(quartiles > 0, np.minimum(quartiles, deviation), deviation)
    lowest, highest = np.log(spread / 10), np.log(deviation * 30)
    published = np.clip(np.log(deviation / 4), lowest, highest)
    return [
        _Start(mean, published, lowest, highest),
        _Start(median, np.log(spread / 2), lowest, highest),
        _Start(median, np.log(spread * 2), lowest, highest),
    ]


def _fit_sigmoid(x: FloatArray, y: FloatArray, start: _Start) -> tuple[FloatArray, FloatArray]:
    """Levenberg-Marquardt on offset and log width, level and amplitude projected out.

    Returns the fitted (B, n) curves and their (B,) correlation with y, -inf in rows that start
    on a falling curve: descent does not turn a curve around.
    """
    y_mean = y.mean(axis=1, keepdims=True)
    x, y = x - start.centre, y - y_mean
    shape = (len(y), 1)
    point = np.stack([np.zeros(shape), np.broadcast_to(start.log_width, shape)])
    bounds = np.stack([np.broadcast_to(v, shape) for v in (start.lowest, start.highest)])
    first = _sigmoid(x, y, point)
    active = first.amplitude[:, 0] > 0
    if active.any():
        own_x = x if len(x) == 1 else x[active]
        point[:, active] = _levenberg_marquardt(
            own_x, y[active], point[:, active], bounds[:, active], first.rows(active)
        )
    fit = _sigmoid(x, y, point)
    value = np.where(fit.amplitude > 0, np.sqrt(np.clip(fit.explained, 0.0, 1.0)), -np.inf)
    return y_mean + fit.amplitude * fit.curve, value[:, 0]


def _levenberg_marquardt(
    x: FloatArray,
    y: FloatArray,
    point: FloatArray,
    bounds: FloatArray,
    current: _Sigmoids,
) -> FloatArray:
    """Best (offset, log width), (2, B, 1), from `point`, where the curves are `current`."""
    best = point.copy()
    rows = np.arange(len(y))
    damping = np.full((len(y), 1), 1e-2)
    active = np.ones(len(y), dtype=bool)
    for _ in range(_MAX_FIT_STEPS):
        # Rows converge at very different speeds: drop the finished ones once they are many.
        if 4 * np.count_nonzero(active) <= 3 * len(rows):
            best[:, rows] = point
            rows, y, damping = rows[active], y[active], damping[active]
            x = x if len(x) == 1 else x[active]
            point, bounds, current = point[:, active], bounds[:, active], current.rows(active)
            active = active[active]
        if not len(rows):
            break
        moved = _moved(x, point, bounds, _marquardt_step(current, y, damping))
        trial = _sigmoid(x, y, moved)
        gain = (trial.explained - current.explained)[:, 0]
        rising = trial.amplitude[:, 0] > 0
        better = active & rising & (gain > 0)
        point[:, better] = moved[:, better]
        current.replace(better, trial)
        # A heavily damped step gains little anywhere: only a free one tells that nothing is left.
        finished = rising & (np.abs(gain) <= _FIT_TOLERANCE) & (damping[:, 0] <= 1e-2)
        active &= ~finished & (damping[:, 0] < 1e3)
        damping *= np.where(better, 0.2, 5.0)[:, None]
    best[:, rows] = point
    return best


def _moved(
    x: FloatArray, point: FloatArray, bounds: FloatArray, step: tuple[FloatArray, FloatArray]
) -> FloatArray:
    """The point after a step, limited to where the curve still changes."""
    offset, log_width = point
    new_width = np.clip(log_width + np.clip(step[1], -1.0, 1.0), *bounds)
    steepness = np.exp(-new_width)
    reach = 2 + x.std(axis=1, keepdims=True) * steepness
    # Twelve widths outside the scores the curve is an exponential to six digits.
    low = x.min(axis=1, keepdims=True) * steepness - 12
    high = x.max(axis=1, keepdims=True) * steepness + 12
    return np.stack([np.clip(offset + np.clip(step[0], -reach, reach), low, high), new_width])


@dataclass(frozen=True, slots=True, eq=False)
class _Sigmoids:
    """Centred curves (B, n), their derivatives by offset and log width, and the linear fit.

    A curve is ``1 / (1 + exp(offset - x / width))``. With the offset in place of the location,
    the exponential that the curve tends to far from its centre is a limit in one unknown.

    `amplitude` (B, 1) is the least-squares factor of the curve, `explained` (B, 1) the share of
    the variance of y that it explains.
    """

    curve: FloatArray
    by_offset: FloatArray
    by_width: FloatArray
    amplitude: FloatArray
    explained: FloatArray

    def rows(self, take: NDArray[np.bool_]) -> _Sigmoids:
        """The rows of `take` (B,)."""
        return _Sigmoids(*(getattr(self, name)[take] for name in self.__slots__))

    def replace(self, take: NDArray[np.bool_], other: _Sigmoids) -> None:
        """Write the rows of `take` (B,) of `other` over one's own."""
        for name in self.__slots__:
            getattr(self, name)[take] = getattr(other, name)[take]


def _sigmoid(x: FloatArray, y: FloatArray, point: FloatArray) -> _Sigmoids:
    """Curves at `point`, (offset, log width) of each row, for centred y (B, n)."""
    from scipy.special import expit

    offset, log_width = point
    scaled = x * np.exp(-log_width)
    curve = expit(scaled - offset)
    slope = curve * (1 - curve)
    curve -= curve.mean(axis=1, keepdims=True)
    square = _dot(curve, curve)
    usable = square > 1e-20
    square = np.where(usable, square, 1.0)
    product = np.where(usable, _dot(curve, y), 0.0)
    total = _dot(y, y)
    return _Sigmoids(
        curve,
        -slope,
        -slope * scaled,
        product / square,
        product**2 / (square * np.where(total > 0, total, 1.0)),
    )


def _marquardt_step(
    fit: _Sigmoids, y: FloatArray, damping: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Damped Gauss-Newton step of (offset, log width), (B, 1) each; Kaufman's Jacobian."""
    residual = y - fit.amplitude * fit.curve
    square = np.maximum(_dot(fit.curve, fit.curve), 1e-20)

    def projected(derivative: FloatArray) -> FloatArray:
        derivative = derivative - derivative.mean(axis=1, keepdims=True)
        derivative -= fit.curve * (_dot(fit.curve, derivative) / square)
        derivative *= fit.amplitude
        return derivative

    a, b = projected(fit.by_offset), projected(fit.by_width)
    tiny = np.finfo(float).tiny
    aa, bb = (_dot(v, v) * (1 + damping) + tiny for v in (a, b))
    ab, right_a, right_b = _dot(a, b), _dot(a, residual), _dot(b, residual)
    # Each unknown in units of its own column: the plain determinant underflows.
    scale_a, scale_b = np.sqrt(aa), np.sqrt(bb)
    cosine = ab / (scale_a * scale_b)
    right_a, right_b = right_a / scale_a, right_b / scale_b
    determinant = np.maximum(1 - cosine**2, 1e-12)
    return (
        (right_a - cosine * right_b) / determinant / scale_a,
        (right_b - cosine * right_a) / determinant / scale_b,
    )


def _dot(a: FloatArray, b: FloatArray) -> FloatArray:
    """Row-wise inner products, (B, 1)."""
    return np.asarray(np.einsum("ij,ij->i", a, b)[:, None], dtype=np.float64)


# --- Leaving out, resampling, permuting ---------------------------------------------------------


def _leave_out(
    measure: _Measure, x: FloatArray, y: FloatArray, codes: IntArray | None
) -> FloatArray:
    """The correlation without each cluster, or without each stimulus."""
    if codes is not None:
        kept = (codes != code for code in range(_count(codes)))
        return np.array([_value(measure, x[keep], y[keep]) for keep in kept])
    if measure.fitted and len(x) <= _REFIT_LIMIT:
        others = ~np.eye(len(x), dtype=bool)
        shape = (len(x), len(x) - 1)
        rows = [np.broadcast_to(v, others.shape)[others].reshape(shape) for v in (x, y)]
        return _row_values(measure, measure.oriented(rows[0]), rows[1])
    return _leave_one_out(measure)(_frozen_fit(measure, x, y), y)


def _frozen_fit(measure: _Measure, x: FloatArray, y: FloatArray) -> FloatArray:
    """Scores after the fit, so that the fit need not be redone."""
    if not measure.fitted:
        return measure.oriented(x)
    mapped = _logistic_rows(measure.oriented(x)[None], y[None], measure.direction)[0][0]
    # A flat line is no mapping: the value was that of the scores as they are.
    return measure.oriented(x) if _constant(mapped) else mapped


def _leave_one_out(measure: _Measure) -> Callable[[FloatArray, FloatArray], FloatArray]:
    if measure.statistic == "krcc":
        return _leave_one_out_kendall
    if measure.statistic == "plcc":
        free = measure.mapping == "linear" and measure.direction == "free"
        return _leave_one_out_pearson_size if free else _leave_one_out_pearson
    return _leave_one_out_spearman


def _leave_one_out_pearson(x: FloatArray, y: FloatArray) -> FloatArray:
    x, y = x - x.mean(), y - y.mean()
    factor = len(x) / (len(x) - 1)
    squares = [v @ v - factor * np.square(v) for v in (x, y)]
    # When the only different value leaves, a rounding error stays.
    squares = [np.where(s > 1e-12 * s.max(), s, 0.0) for s in squares]
    return _ratio(x @ y - factor * x * y, *squares)


def _leave_one_out_pearson_size(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.abs(_leave_one_out_pearson(x, y))


def _leave_one_out_spearman(x: FloatArray, y: FloatArray) -> FloatArray:
    """A rank falls by 1 when a smaller value leaves, by 1/2 when an equal one does."""
    rank_x, rank_y = _mid_ranks(x), _mid_ranks(y)
    middle = 0.5 * len(x)
    values = []
    for rows in _row_blocks(len(x)):
        left = []
        for rank in (rank_x, rank_y):
            centred = rank - middle - 0.5 - 0.5 * np.sign(rank - rank[rows, None])
            centred[np.arange(len(rows)), rows] = 0.0
            left.append(centred)
        a, b = left
        values.append(_ratio(_dot(a, b)[:, 0], _dot(a, a)[:, 0], _dot(b, b)[:, 0]))
    return np.concatenate(values)


def _leave_one_out_kendall(x: FloatArray, y: FloatArray) -> FloatArray:
    concordance, untied_x, untied_y = _kendall_terms(x, y)
    return _ratio(
        concordance.sum() - 2 * concordance,
        untied_x.sum() - 2 * untied_x,
        untied_y.sum() - 2 * untied_y,
    )


def _bootstrap(
    measure: _Measure,
    x: FloatArray,
    y: FloatArray,
    codes: IntArray | None,
    n_resamples: int,
    seed: int,
) -> FloatArray:
    """Correlations of resamples, drawn as multinomial counts; nan where undefined.

    Values are sorted once: with counts c in sorted order, the mid-rank of a value is
    ``cumsum(c) - (c - 1) / 2``, and the correlation is Pearson's with weights c.
    """
    if measure.statistic not in ("srcc", "plcc"):
        raise ValueError(f"interval='bootstrap' does not cover {measure.statistic}")
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1, got {n_resamples}")
    rng = np.random.default_rng(seed)
    units = len(x) if codes is None else _count(codes)
    ranked = measure.statistic == "srcc"
    x = x if ranked else _frozen_fit(measure, x, y)
    values = []
    for size in _chunks(n_resamples, len(x)):
        counts = rng.multinomial(units, np.full(units, 1 / units), size=size).astype(np.float64)
        if codes is not None:
            counts = counts[:, codes]
        sides = [_weighted_ranks(v, counts) if ranked else v[None] for v in (x, y)]
        values.append(_weighted_pearson(sides[0], sides[1], counts))
    drawn = np.concatenate(values)
    free = not ranked and measure.mapping == "linear" and measure.direction == "free"
    return np.abs(drawn) if free else drawn


def _weighted_ranks(values: FloatArray, counts: FloatArray) -> FloatArray:
    """(B, n) mid-ranks of `values` in resamples that hold value j `counts[:, j]` times."""
    order = np.argsort(values, kind="stable")
    starts, sizes = _runs(values[order])
    in_run = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks = np.cumsum(in_run, axis=1) - 0.5 * (in_run - 1)
    run_of = np.empty(len(values), dtype=np.int64)
    run_of[order] = np.repeat(np.arange(len(starts)), sizes)
    return np.asarray(ranks[:, run_of], dtype=np.float64)


def _weighted_pearson(x: FloatArray, y: FloatArray, weight: FloatArray) -> FloatArray:
    total = weight.sum(axis=1, keepdims=True)
    x = x - (weight * x).sum(axis=1, keepdims=True) / total
    y = y - (weight * y).sum(axis=1, keepdims=True) / total
    weighted = weight * x
    square_x, square_y = _dot(weighted, x)[:, 0], _dot(weight * y, y)[:, 0]
    # A resample of one value leaves rounding errors, not zeros.
    square_x[square_x < 1e-12 * square_x.max()] = 0.0
    square_y[square_y < 1e-12 * square_y.max()] = 0.0
    return _ratio(_dot(weighted, y)[:, 0], square_x, square_y)


def _permutations(rng: np.random.Generator, size: int, codes: IntArray | None, n: int) -> IntArray:
    """(size, n) permutations of 0 .. n - 1, each within clusters."""
    if codes is None:
        return np.argsort(rng.random((size, n)), axis=1)
    places = np.argsort(codes, kind="stable")
    orders = np.empty((size, n), dtype=np.int64)
    orders[:, places] = np.argsort(codes + rng.random((size, n)), axis=1)
    return orders


def _summary(
    measure: _Measure, x: FloatArray, y: FloatArray, parts: list[IntArray], orders: IntArray
) -> FloatArray:
    """(B,) mean over `parts` of the correlation with the opinions reordered by each row."""
    total = np.zeros(len(orders))
    for part in parts:
        if len(parts) == 1 or not np.isnan(_value(measure, x[part], y[part])):
            total += _reordered(measure, x, y, part, orders)
    undefined = all(len(p) < 3 or _constant(x[p]) or _constant(y[p]) for p in parts)
    return np.full(len(orders), np.nan) if undefined else total / len(parts)


def _reordered(
    measure: _Measure, x: FloatArray, y: FloatArray, part: IntArray, orders: IntArray
) -> FloatArray:
    """Correlations within `part`, the ranks taken once for all permutations of SRCC."""
    own_x = x[part][None]
    if measure.statistic != "srcc":
        return _row_values(measure, measure.oriented(own_x), y[orders[:, part]])
    ranks = np.zeros(len(y))
    ranks[part] = _mid_ranks(y[part])
    return _row_values(measure, _row_ranks(own_x), ranks[orders[:, part]])


# --- Intervals ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Report:
    """Builds `Correlation` records of one analysis."""

    n: int
    n_clusters: int | None
    level: float

    def undefined(self, reason: str) -> Correlation:
        return Correlation(None, None, None, self.level, self.n, self.n_clusters, reason=reason)

    def without_interval(self, value: float, reason: str) -> Correlation:
        return Correlation(value, None, None, self.level, self.n, self.n_clusters, reason=reason)

    def from_jackknife(self, value: float, left_out: FloatArray, unit_name: str) -> Correlation:
        if np.any(np.isnan(left_out)):
            reason = f"undefined without {int(np.isnan(left_out).sum())} of the {unit_name}"
            return self.without_interval(value, reason)
        units = len(left_out)
        z = np.array([_fisher_z(r, self.n) for r in left_out])
        error = float(np.sqrt((units - 1) / units * np.sum(np.square(z - z.mean()))))
        note = None
        if error < 1e-9 or abs(value) > 1 - _nearest_below_one(self.n):
            error = max(error, 1 / float(np.sqrt(max(units - 3, 1))))
            note = "leaving out shows no variation: standard error of Fisher's z used"
        return self._on_fisher_z(value, error, units - 1, note)

    def from_bootstrap(self, value: float, replicates: FloatArray) -> Correlation:
        defined = replicates[~np.isnan(replicates)]
        if len(defined) < 0.95 * len(replicates):
            missing = len(replicates) - len(defined)
            return self.without_interval(
                value, f"undefined in {missing} of {len(replicates)} resamples"
            )
        z = np.array([_fisher_z(r, self.n) for r in defined])
        error = float(np.std(z, ddof=1)) if len(z) > 1 else 0.0
        if error < 1e-9:
            units = self.n if self.n_clusters is None else self.n_clusters
            error = 1 / float(np.sqrt(max(units - 3, 1)))
            note = "resampling shows no variation: standard error of Fisher's z used"
            return self._on_fisher_z(value, error, None, note)
        tail = 0.5 * (1 - self.level)
        low, high = (float(q) for q in np.quantile(defined, (tail, 1 - tail)))
        return Correlation(value, low, high, self.level, self.n, self.n_clusters, error)

    def from_mean(self, values: FloatArray, note: str | None) -> Correlation:
        if len(values) == 0:
            return self.undefined("no cluster has a correlation")
        mean = float(np.mean(values))
        if len(values) < 3:
            few = f"an interval needs at least 3 clusters, got {len(values)}"
            return self.without_interval(mean, "; ".join(filter(None, (note, few))))
        error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
        if error < 1e-9:
            same = "all clusters have the same correlation"
            return self.without_interval(mean, "; ".join(filter(None, (note, same))))
        margin = error * _critical(self.level, len(values) - 1)
        return Correlation(
            value=mean,
            low=max(mean - margin, -1.0),
            high=min(mean + margin, 1.0),
            level=self.level,
            n=self.n,
            n_clusters=self.n_clusters,
            std_error=error,
            df=len(values) - 1,
            scale="identity",
            reason=note,
        )

    def _on_fisher_z(
        self, value: float, error: float, df: int | None, reason: str | None
    ) -> Correlation:
        centre, margin = _fisher_z(value, self.n), error * _critical(self.level, df)
        return Correlation(
            value=value,
            low=min(float(np.tanh(centre - margin)), value),
            high=max(float(np.tanh(centre + margin)), value),
            level=self.level,
            n=self.n,
            n_clusters=self.n_clusters,
            std_error=error,
            df=df,
            reason=reason,
        )


def _fisher_z(value: float, n: int) -> float:
    """``artanh(value)``, finite for a perfect correlation too."""
    limit = 1 - _nearest_below_one(n)
    return float(np.arctanh(min(max(value, -limit), limit)))


def _nearest_below_one(n: int) -> float:
    """1 minus the largest SRCC below 1 that n stimuli can have: one tie in a perfect order."""
    return 3 / (n * (n * n - 1))


def _critical(level: float, df: int | None) -> float:
    from scipy.special import ndtri, stdtrit

    tail = 0.5 * (1 + level)
    return float(ndtri(tail) if df is None else stdtrit(df, tail))


def _upper_tail(statistic: float, df: int | None) -> float:
    from scipy.special import ndtr, stdtr

    return float(ndtr(-statistic) if df is None else stdtr(df, -statistic))


# --- Arguments ----------------------------------------------------------------------------------


def _paired(scores: ArrayLike, mos: ArrayLike) -> tuple[FloatArray, FloatArray]:
    x, y = (_finite(v, name) for v, name in ((scores, "scores"), (mos, "mos")))
    if len(x) != len(y):
        raise ValueError(f"scores has {len(x)} values and mos {len(y)}: expected as many")
    return x, y


def _finite(values: ArrayLike, name: str) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {array.shape}")
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise ValueError(f"{name} must be finite, got {array[bad[0]]} at index {bad[0]}")
    return array


def _cluster_codes(cluster: Sequence[Any] | NDArray[Any] | None, n: int) -> IntArray | None:
    if cluster is None:
        return None
    if len(cluster) != n:
        raise ValueError(f"cluster has {len(cluster)} values, expected {n}")
    return np.unique(np.asarray(cluster), return_inverse=True)[1].reshape(-1).astype(np.int64)


def _count(codes: IntArray) -> int:
    return int(codes.max(initial=-1)) + 1


def _members(codes: IntArray | None) -> list[IntArray]:
    """Indices of each cluster's stimuli."""
    if codes is None:
        return []
    return [np.flatnonzero(codes == code) for code in range(_count(codes))]


def _constant(values: FloatArray) -> bool:
    return bool(values.size == 0 or values.min() == values.max())


def _why_undefined(x: FloatArray, y: FloatArray) -> str:
    if len(x) < 3:
        return f"a correlation needs at least 3 stimuli, got {len(x)}"
    if _constant(x):
        return f"all {len(x)} scores are equal"
    if _constant(y):
        return f"all {len(y)} opinions are equal"
    return "the mapped scores are all equal"


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")


def _chunks(total: int, width: int) -> list[int]:
    """Sizes that add up to `total`, of at most _CHUNK elements as rows of `width`."""
    size = max(1, _CHUNK // max(width, 1))
    return [min(size, total - done) for done in range(0, total, size)]


def _slices(total: int, width: int) -> list[slice]:
    size = max(1, _CHUNK // max(width, 1))
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def _row_blocks(n: int) -> list[IntArray]:
    """Row indices of an (n, n) table, in blocks of at most _CHUNK elements."""
    return [np.arange(n)[rows] for rows in _slices(n, n)]
