"""Has the agreement with human opinion dropped between two releases? Arrays in, differences out.

Both releases judged the same stimuli, so their errors are correlated and the test is paired: what
leaving out one stimulus (full-reference: one reference) does to the *difference* of the two
correlations gives its standard error. Differences are tested on Fisher's z scale, or as they are
where the statistic is a mean over references; `decision` says what one means for a release.
``docs/gates.md`` has the calibration of every method here.

Sources: Efron and Tibshirani 1993, chapter 11 (jackknife); Holm 1979 (several tests).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from iqa_checks.agreement import (
    Direction,
    Mapping,
    Statistic,
    _bootstrap,
    _cluster_codes,
    _count,
    _fisher_z,
    _leave_out,
    _Measure,
    _measure,
    _members,
    _nearest_below_one,
    _paired,
    _upper_tail,
    _value,
    _why_undefined,
)
from iqa_checks.scaling import Comparisons, scale

__all__ = [
    "Difference",
    "Judged",
    "Method",
    "Summary",
    "compare",
    "compare_plcc",
    "compare_srcc",
    "compare_trials",
    "holm",
    "minimum_detectable_drop",
]

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
Cluster: TypeAlias = Sequence[Any] | NDArray[Any] | None
Method: TypeAlias = Literal["jackknife", "bootstrap"]
Summary: TypeAlias = Literal["pooled", "cluster_mean"]

DEFAULT_POWER = 0.8
# Standard errors below this are rounding: the two sides do not differ in any stimulus.
_NO_VARIATION = 1e-9


@dataclass(frozen=True, slots=True)
class Difference:
    """How a candidate's correlation differs from a baseline's, on the same stimuli.

    Attributes
    ----------
    candidate, baseline : float or None
        The two correlations; None where undefined.
    value : float or None
        ``candidate - baseline``: negative is a drop. None when either is undefined.
    low, high : float or None
        Two-sided interval of `value` of coverage `level`; None when the data cannot give one.
    level : float
    std_error : float or None
        Standard error of the difference on `scale`; 0 when both order every stimulus alike.
    df : int or None
        Degrees of freedom of Student's t; None for the normal distribution.
    scale : {'fisher_z', 'identity'}
        Where `std_error` applies: to ``artanh(candidate) - artanh(baseline)`` or to `value`.
    z_candidate, z_baseline : float
        The two sides on `scale`; nan where undefined.
    n : int
        Stimuli compared.
    n_clusters : int or None
        References that the standard error rests on; None when stimuli are independent.
    reason : str or None
        Why a value or its interval is missing, or what was done to give one.
    lost : int
        References in which the baseline has a correlation and the candidate has none.
    """

    candidate: float | None
    baseline: float | None
    value: float | None
    low: float | None
    high: float | None
    level: float
    n: int
    n_clusters: int | None = None
    std_error: float | None = None
    df: int | None = None
    scale: Literal["fisher_z", "identity"] = "fisher_z"
    z_candidate: float = float("nan")
    z_baseline: float = float("nan")
    reason: str | None = None
    lost: int = 0

    @property
    def p_worse(self) -> float | None:
        """One-sided p-value of "the candidate is worse"; None without a standard error."""
        return self.p_worse_than(0.0)

    @property
    def p_better(self) -> float | None:
        """One-sided p-value of "the candidate is better"."""
        distance = self._distance(0.0)
        return None if distance is None else _tail(distance, self.df)

    def p_worse_than(self, margin: float) -> float | None:
        """One-sided p-value of "the candidate dropped by more than `margin`" (>= 0)."""
        distance = self._distance(margin)
        return None if distance is None else _tail(-distance, self.df)

    def p_not_worse_than(self, margin: float) -> float | None:
        """One-sided p-value of "the candidate did not drop by `margin`": small excludes it."""
        distance = self._distance(margin)
        return None if distance is None else _tail(distance, self.df)

    def _distance(self, margin: float) -> float | None:
        """Standard errors from a drop of `margin` up to the difference; nan for 0 / 0."""
        if self.value is None or self.std_error is None:
            return None
        gap = self.z_candidate - self.z_baseline + self._on_scale(margin)
        if self.std_error < _NO_VARIATION:
            return float(np.inf * np.sign(gap)) if abs(gap) > _NO_VARIATION else float("nan")
        return gap / self.std_error

    def _on_scale(self, margin: float) -> float:
        """The drop of `margin` on `scale`, centred where the two sides are."""
        if self.scale == "identity" or margin == 0:
            return margin
        if not 0 <= margin < 2:
            raise ValueError(f"margin must be a drop of a correlation in [0, 2), got {margin}")
        spread = float(np.cosh(self.z_candidate + self.z_baseline))
        # tanh(m + u/2) - tanh(m - u/2) = 2 sinh u / (cosh 2m + cosh u) = margin, solved for e^u.
        root = np.sqrt((margin * spread) ** 2 + 4 - margin**2)
        return float(np.log((margin * spread + root) / (2 - margin)))


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Comparative judgements of one release, grouped by the trial they came from.

    Attributes
    ----------
    trial : (J,) int64
        Trial of each judgement, 0 .. n_trials - 1; a list of four gives six judgements.
    first, second : (J,) int64
        Stimuli of each judgement.
    outcome : (J,) float64
        1.0 the first won, 0.0 the second, 0.5 a tie.
    n_trials, n_stimuli : int
        Trials asked, those without a usable answer included; stimuli of the cell.
    ordered : bool
        Whether "first" means "shown first" (pairs, but not pairs read from a ranked list).
    """

    trial: IntArray
    first: IntArray
    second: IntArray
    outcome: FloatArray
    n_trials: int
    n_stimuli: int
    ordered: bool = True

    def scores(
        self,
        counts: ArrayLike | None = None,
        *,
        method: str = "thurstone_map",
        tie_weight: float = 0.5,
    ) -> FloatArray:
        """Quality scale (M,), each trial counted ``counts`` times (once without)."""
        times = np.ones(self.n_trials) if counts is None else np.asarray(counts, dtype=np.float64)
        weight = times[self.trial]
        tied = self.outcome == 0.5
        to_first = np.where(tied, tie_weight, self.outcome) * weight
        to_second = np.where(tied, tie_weight, 1 - self.outcome) * weight
        shown = np.full(len(self.trial), 1 if self.ordered else 0, np.int8)
        comparisons = Comparisons(
            winner=np.concatenate([self.first, self.second]),
            loser=np.concatenate([self.second, self.first]),
            weight=np.concatenate([to_first, to_second]),
            n_stimuli=self.n_stimuli,
            position=np.concatenate([shown, -shown]),
        )
        fitted = scale(comparisons.merged(), method, position_bias=self.ordered)
        return np.asarray(fitted.scores)


# --- Differences --------------------------------------------------------------------------------


def compare_srcc(
    candidate: ArrayLike,
    baseline: ArrayLike,
    mos: ArrayLike,
    cluster: Cluster = None,
    method: Method = "jackknife",
    *,
    summary: Summary = "pooled",
    level: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Difference of two releases' SRCC on the same stimuli. See `compare`."""
    return compare(
        candidate,
        baseline,
        mos,
        cluster=cluster,
        method=method,
        summary=summary,
        level=level,
        n_resamples=n_resamples,
        seed=seed,
    )


def compare_plcc(
    candidate: ArrayLike,
    baseline: ArrayLike,
    mos: ArrayLike,
    cluster: Cluster = None,
    method: Method = "jackknife",
    *,
    mapping: Mapping = "logistic4",
    direction: Direction = "increasing",
    summary: Summary = "pooled",
    level: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Difference of two releases' PLCC on the same stimuli, each after its own fit.

    See `compare`; `mapping` and `direction` are those of `iqa_checks.agreement.plcc`.
    """
    return compare(
        candidate,
        baseline,
        mos,
        statistic="plcc",
        mapping=mapping,
        direction=direction,
        cluster=cluster,
        method=method,
        summary=summary,
        level=level,
        n_resamples=n_resamples,
        seed=seed,
    )


def compare(
    candidate: ArrayLike,
    baseline: ArrayLike,
    mos: ArrayLike,
    *,
    statistic: Statistic = "srcc",
    mapping: Mapping = "logistic4",
    direction: Direction = "increasing",
    cluster: Cluster = None,
    method: Method = "jackknife",
    summary: Summary = "pooled",
    undefined: Literal["exclude", "zero"] = "exclude",
    level: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Paired difference of a statistic between two releases.

    Parameters
    ----------
    candidate, baseline, mos : (n,)
        Scores of the two releases and the human scores, of the same stimuli in the same order
        (which order does not matter); finite.
    statistic, mapping, direction
        As in `iqa_checks.agreement.correlation`.
    cluster : (n,), optional
        Reference of each stimulus; needed for full-reference sets, whose stimuli are not
        independent.
    method
        'jackknife': leave one stimulus (or reference) out of both sides at once, Student's t;
        deterministic. 'bootstrap': resample stimuli (or references), the standard error of the
        difference and the normal distribution (references: Student's t); a fitted curve is kept.
        Pooled SRCC, PLCC only.
    summary
        'pooled': one correlation over all stimuli. 'cluster_mean': the mean over clusters, which
        is the headline of full-reference cells; its test is the paired t over clusters.
    undefined
        A cluster in which a side has no correlation: 'exclude' it from both, or count it as
        'zero' (preset `paper`).
    level
        Coverage of the interval, in (0, 1).
    n_resamples, seed
        Of the bootstrap.

    Returns
    -------
    Difference
        With ``std_error`` 0 and value 0 when both sides agree without any variation.

    Raises
    ------
    ValueError
        Bad arrays or options.
    """
    _check_choices(method, summary, undefined, level)
    measure = _measure(statistic, mapping, direction)
    sides = [_paired(scores, mos)[0] for scores in (candidate, baseline)]
    y = _paired(mos, mos)[1]
    codes = _cluster_codes(cluster, len(y))
    if summary == "cluster_mean":
        if codes is None:
            raise ValueError("summary='cluster_mean' needs cluster")
        if method != "jackknife":
            raise ValueError("method='bootstrap' covers summary='pooled' only")
        return _mean_difference(measure, sides, y, codes, undefined, level)
    report = _Paired(len(y), None if codes is None else _count(codes), level)
    values = [_value(measure, x, y) for x in sides]
    if np.isnan(values).any():
        return report.undefined(values, _which_undefined(sides, y, values))
    units, fewest, name = _units(codes, len(y))
    if units < fewest:
        few = f"an interval needs at least {fewest} {name}, got {units}"
        return report.without_interval(values, few)
    if method == "bootstrap":
        drawn = [_bootstrap(measure, x, y, codes, n_resamples, seed) for x in sides]
        return report.from_bootstrap(values, drawn)
    return report.from_jackknife(values, [_leave_out(measure, x, y, codes) for x in sides], name)


def compare_trials(
    candidate: Judged,
    baseline: Judged,
    mos: ArrayLike,
    *,
    resample: Literal["trials", "stimuli", "references"] = "trials",
    cluster: Cluster = None,
    scaling: str = "thurstone_map",
    tie_weight: float = 0.5,
    level: float = 0.95,
    n_resamples: int = 200,
    seed: int = 0,
) -> Difference:
    """Difference of two releases' pooled SRCC, the quality scales made again in each resample.

    Parameters
    ----------
    candidate, baseline
        Judgements of the two releases; with as many trials, trial k of both is one question and
        is resampled jointly.
    mos : (M,)
        Human score of each stimulus.
    resample
        'trials': judgement noise on these very stimuli, and nothing else. 'stimuli' or
        'references': leave one stimulus (or reference) out together with all its trials, scale
        what is left, and take the jackknife of the difference.
    scaling, tie_weight
        How judgements become scores.
    level, n_resamples, seed
        As in `compare`; resamples are of 'trials' only.

    Raises
    ------
    ValueError
        Bad arrays or options.
    """
    y = _paired(mos, mos)[1]
    codes = _cluster_codes(cluster, len(y))
    if resample == "references" and codes is None:
        raise ValueError("resample='references' needs cluster")

    def scores(judged: Judged, counts: FloatArray | None = None) -> FloatArray:
        return judged.scores(counts, method=scaling, tie_weight=tie_weight)

    measure = _measure("srcc", "none", "increasing")
    full = [scores(candidate), scores(baseline)]
    values = [_value(measure, x, y) for x in full]
    use = codes if resample == "references" else None
    report = _Paired(len(y), None if use is None else _count(use), level)
    if np.isnan(values).any():
        return report.undefined(values, _which_undefined(full, y, values))
    if resample == "trials":
        draws = _trial_counts(candidate, baseline, n_resamples, seed)
        drawn = [
            np.array([_value(measure, scores(judged, c), y) for c in counts])
            for judged, counts in zip((candidate, baseline), draws, strict=True)
        ]
        return report.from_bootstrap(values, drawn)
    groups = np.arange(len(y)) if use is None else use
    left = [
        _rescaled_without(judged, groups, y, measure, scores) for judged in (candidate, baseline)
    ]
    return report.from_jackknife(values, left, resample)


def _rescaled_without(
    judged: Judged,
    groups: IntArray,
    y: FloatArray,
    measure: _Measure,
    scores: Callable[[Judged, FloatArray | None], FloatArray],
) -> FloatArray:
    """SRCC without each group's stimuli, their judgements taken out before scaling."""
    values = []
    for group in range(_count(groups)):
        keep = groups != group
        both = keep[judged.first] & keep[judged.second]
        rest = replace(
            judged,
            trial=judged.trial[both],
            first=judged.first[both],
            second=judged.second[both],
            outcome=judged.outcome[both],
        )
        values.append(_value(measure, scores(rest, None)[keep], y[keep]))
    return np.array(values)


def _trial_counts(
    candidate: Judged, baseline: Judged, n_resamples: int, seed: int
) -> list[FloatArray]:
    """(B, T) counts for both sides: the same ones where they answered as many questions."""
    rng = np.random.default_rng(seed)

    def draw(n: int) -> FloatArray:
        counts = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples)
        return np.asarray(counts, dtype=np.float64)

    first = draw(candidate.n_trials)
    shared = candidate.n_trials == baseline.n_trials
    return [first, first if shared else draw(baseline.n_trials)]


def _mean_difference(
    measure: _Measure,
    sides: Sequence[FloatArray],
    y: FloatArray,
    codes: IntArray,
    undefined: str,
    level: float,
) -> Difference:
    """Paired t over the clusters in which both sides have a correlation."""
    members = _members(codes)
    table = np.array([[_value(measure, x[m], y[m]) for m in members] for x in sides])
    missing = np.isnan(table)
    if undefined == "zero":
        table, kept = np.nan_to_num(table), np.ones(len(members), dtype=bool)
    else:
        kept = ~missing.any(axis=0)
    report = _Paired(int(np.isin(codes, np.flatnonzero(kept)).sum()), int(kept.sum()), level)
    done = "counted as 0" if undefined == "zero" else "left out of both sides"
    n_missing = int(missing.any(axis=0).sum())
    note = f"{n_missing} references without a correlation {done}" if n_missing else None
    lost = int((missing[0] & ~missing[1]).sum()) if undefined == "exclude" else 0
    return replace(report.from_means(table[:, kept], note), lost=lost)


# --- From standard errors to records ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Paired:
    """Builds the `Difference` records of one comparison; pairs are (candidate, baseline)."""

    n: int
    n_clusters: int | None
    level: float

    def undefined(self, values: Sequence[float], reason: str) -> Difference:
        known = [None if np.isnan(v) else float(v) for v in values]
        return self._record(known, None, reason=reason)

    def without_interval(self, values: Sequence[float], reason: str) -> Difference:
        return self._record(list(values), None, reason=reason)

    def from_jackknife(
        self, values: Sequence[float], left_out: Sequence[FloatArray], unit_name: str
    ) -> Difference:
        missing = int(np.isnan(np.array(left_out)).any(axis=0).sum())
        if missing:
            return self.without_interval(values, f"undefined without {missing} of the {unit_name}")
        z = [_fisher_zs(side, self.n) for side in left_out]
        differences = z[0] - z[1]
        units = len(differences)
        spread = np.sum(np.square(differences - differences.mean()))
        return self._on_fisher_z(values, float(np.sqrt((units - 1) / units * spread)), units - 1)

    def from_bootstrap(self, values: Sequence[float], drawn: Sequence[FloatArray]) -> Difference:
        defined = np.asarray(~np.isnan(np.array(drawn)).any(axis=0))
        n_drawn = int(defined.size)
        n_missing = int((~defined).sum())
        if n_missing > 0.05 * n_drawn:
            missing = f"{n_missing} of {n_drawn}"
            return self.without_interval(values, f"undefined in {missing} resamples")
        z = [_fisher_zs(side[defined], self.n) for side in drawn]
        error = float(np.std(z[0] - z[1], ddof=1))
        if self.n_clusters is None:
            return self._on_fisher_z(values, error, None)
        # A resample's variance falls short by (R - 1) / R, and few clusters leave it uncertain.
        error *= float(np.sqrt(self.n_clusters / (self.n_clusters - 1)))
        return self._on_fisher_z(values, error, self.n_clusters - 1)

    def from_means(self, table: FloatArray, note: str | None) -> Difference:
        """``table``: (2, R) correlations by cluster."""
        clusters = table.shape[1]
        if not clusters:
            return self.undefined([np.nan, np.nan], "no reference has a correlation on both sides")
        means = [float(v) for v in table.mean(axis=1)]
        if clusters < 3:
            few = f"an interval needs at least 3 references, got {clusters}"
            return self.without_interval(means, "; ".join(filter(None, (note, few))))
        differences = table[0] - table[1]
        error = float(np.std(differences, ddof=1) / np.sqrt(clusters))
        if error < _NO_VARIATION < abs(means[0] - means[1]):
            same = "every reference shows the same difference"
            return self.without_interval(means, "; ".join(filter(None, (note, same))))
        margin = error * _quantile(0.5 * (1 + self.level), clusters - 1)
        centre = means[0] - means[1]
        ends = (max(centre - margin, -2.0), min(centre + margin, 2.0))
        return self._record(means, ends, error, clusters - 1, "identity", note)

    def _on_fisher_z(self, values: Sequence[float], error: float, df: int | None) -> Difference:
        z = [_fisher_z(r, self.n) for r in values]
        gap, note = z[0] - z[1], None
        if error < _NO_VARIATION < abs(gap):
            error = float(np.sqrt(2 / max((self.n_clusters or self.n) - 3, 1)))
            note = "resampling shows no variation: standard error of independent releases used"
        reach = error * _quantile(0.5 * (1 + self.level), df)
        ends = [_apart(sum(z) / 2, gap + sign * reach) for sign in (-1, 1)]
        value = values[0] - values[1]
        return self._record(
            list(values), (min(ends[0], value), max(ends[1], value)), error, df, "fisher_z", note
        )

    def _record(
        self,
        values: Sequence[float | None],
        ends: tuple[float, float] | None,
        error: float | None = None,
        df: int | None = None,
        scale: Literal["fisher_z", "identity"] = "fisher_z",
        reason: str | None = None,
    ) -> Difference:
        candidate, baseline = (None if v is None else float(v) for v in values)
        both = candidate is not None and baseline is not None
        on_scale = [
            np.nan if v is None else v if scale == "identity" else _fisher_z(v, self.n)
            for v in (candidate, baseline)
        ]
        return Difference(
            candidate=candidate,
            baseline=baseline,
            value=candidate - baseline if both else None,  # type: ignore[operator]
            low=None if ends is None else float(ends[0]),
            high=None if ends is None else float(ends[1]),
            level=self.level,
            n=self.n,
            n_clusters=self.n_clusters,
            std_error=error,
            df=df,
            scale=scale,
            z_candidate=float(on_scale[0]),
            z_baseline=float(on_scale[1]),
            reason=reason,
        )


def _fisher_zs(values: FloatArray, n: int) -> FloatArray:
    limit = 1 - _nearest_below_one(n)
    return np.asarray(np.arctanh(np.clip(values, -limit, limit)))


def _apart(middle: float, gap: float) -> float:
    """Difference of the correlations that lie `gap` apart around `middle`, on Fisher's z."""
    return float(np.tanh(middle + gap / 2) - np.tanh(middle - gap / 2))


def _units(codes: IntArray | None, n: int) -> tuple[int, int, str]:
    """Number of units to leave out, the fewest that give an interval, and their name."""
    return (n, 4, "stimuli") if codes is None else (_count(codes), 3, "references")


def _which_undefined(sides: Sequence[FloatArray], y: FloatArray, values: Sequence[float]) -> str:
    named = zip(("candidate", "baseline"), sides, values, strict=True)
    return "; ".join(f"{name}: {_why_undefined(x, y)}" for name, x, v in named if np.isnan(v))


def _tail(statistic: float, df: int | None) -> float:
    """Upper tail; 1 for nan, no difference and no variation: there is nothing to test."""
    if np.isnan(statistic):
        return 1.0
    if np.isinf(statistic):
        return 0.0 if statistic > 0 else 1.0
    return _upper_tail(statistic, df)


def _quantile(probability: float, df: int | None) -> float:
    from scipy.special import ndtri, stdtrit

    return float(ndtri(probability) if df is None else stdtrit(df, probability))


def _check_choices(method: str, summary: str, undefined: str, level: float) -> None:
    for name, choice, known in (
        ("method", method, get_args(Method)),
        ("summary", summary, get_args(Summary)),
        ("undefined", undefined, ("exclude", "zero")),
    ):
        if choice not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got {choice!r}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")


# --- Several cells -----------------------------------------------------------------------------


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment: reject where the adjusted value is below alpha.

    A None (no test was possible) stays None and is not counted among the tests.
    """
    tested = [(p, k) for k, p in enumerate(p_values) if p is not None]
    for p, _ in tested:
        if not 0 <= p <= 1:
            raise ValueError(f"p-values lie in [0, 1], got {p}")
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, k) in enumerate(sorted(tested)):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        adjusted[k] = largest
    return adjusted


def minimum_detectable_drop(
    difference: Difference, *, alpha: float = 0.05, power: float = DEFAULT_POWER
) -> float | None:
    """The smallest true drop from the baseline that a comparison like this one would find.

    One-sided at `alpha`, with probability `power`; in units of the correlation, at most what the
    baseline can drop. None without a standard error, or with one of 0 (nothing varied).
    """
    error = difference.std_error
    if error is None or error < _NO_VARIATION or difference.baseline is None:
        return None
    reach = error * (_quantile(1 - alpha, difference.df) + _quantile(power, difference.df))
    if difference.scale == "identity":
        return min(reach, 1 + difference.baseline)
    return float(difference.baseline - np.tanh(difference.z_baseline - reach))
