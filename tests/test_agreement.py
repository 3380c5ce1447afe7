"""Agreement: scipy as oracle, invariants as properties, coverage and chance by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import curve_fit

from iqa_checks import agreement
from iqa_checks.agreement import (
    Correlation,
    chance_level,
    cluster_mean,
    correlation,
    fit_logistic4,
    krcc,
    plcc,
    rmse,
    srcc,
    srcc_after_logistic,
)

FloatArray = NDArray[np.float64]

REFERENCES = np.repeat(np.arange(15), 10)
PLAIN = {"srcc": srcc, "krcc": krcc, "plcc": lambda x, y: plcc(x, y, "none")}


@st.composite
def paired(draw: st.DrawFn, min_size: int = 3) -> tuple[FloatArray, FloatArray]:
    """Scores and opinions with many ties, neither constant."""
    n = draw(st.integers(min_size, 25))
    sides = [
        np.array(draw(st.lists(st.integers(-4, 4), min_size=n, max_size=n)), dtype=float)
        for _ in range(2)
    ]
    assume(all(side.min() < side.max() for side in sides))
    return sides[0], sides[1]


def simulated(n: int, rho: float, seed: int) -> tuple[FloatArray, FloatArray]:
    """Bivariate normal scores and opinions of Pearson correlation `rho`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return x, rho * x + math.sqrt(1 - rho**2) * rng.normal(size=n)


# --- Plain statistics ---------------------------------------------------------------------------


@given(paired())
def test_statistics_agree_with_scipy(pair: tuple[FloatArray, FloatArray]) -> None:
    """Ties included, to 1e-12."""
    x, y = pair
    assert srcc(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert krcc(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert plcc(x, y, "none") == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)


@given(paired())
def test_ranks_ignore_monotone_transforms(pair: tuple[FloatArray, FloatArray]) -> None:
    """SRCC and KRCC see the order only; a reversed order changes the sign."""
    x, y = pair
    for statistic in (srcc, krcc):
        assert statistic(np.exp(x), y**3) == statistic(x, y)
        assert statistic(-x, y) == pytest.approx(-statistic(x, y), abs=1e-12)
        assert statistic(y, x) == pytest.approx(statistic(x, y), abs=1e-12)


@given(paired(), st.randoms(use_true_random=False))
def test_stimulus_order_changes_nothing(
    pair: tuple[FloatArray, FloatArray], random: object
) -> None:
    """Values and intervals do not depend on the order of the stimuli."""
    x, y = pair
    order = list(range(len(x)))
    random.shuffle(order)  # type: ignore[attr-defined]
    before, after = correlation(x, y), correlation(x[order], y[order])
    assert after.value == pytest.approx(before.value, abs=1e-12)
    if before.low is not None:
        assert after.low == pytest.approx(before.low, abs=1e-9)


@pytest.mark.parametrize("statistic", [srcc, krcc, plcc, srcc_after_logistic])
@pytest.mark.parametrize(
    ("scores", "mos"),
    [
        ([0.1] * 6, [1, 2, 3, 4, 5, 6]),
        ([1, 2, 3, 4, 5, 6], [0.1] * 6),
        ([1, 2], [1, 2]),
        ([], []),
    ],
    ids=["constant scores", "constant opinions", "two stimuli", "none"],
)
def test_undefined_is_nan_and_never_zero(
    statistic: Callable[..., float], scores: list[float], mos: list[float]
) -> None:
    """A model that gives every image 0.1 has no correlation."""
    assert math.isnan(statistic(scores, mos))


# --- The logistic fit ---------------------------------------------------------------------------


def test_fit_recovers_a_logistic() -> None:
    """Noise-free opinions on a four-parameter logistic are met."""
    scores = np.linspace(-3, 5, 60)
    mos = 20 + 60 / (1 + np.exp(-(scores - 1.2) / 0.7))
    np.testing.assert_allclose(fit_logistic4(scores, mos), mos, atol=0.02)
    assert plcc(scores, mos) == pytest.approx(1.0, abs=1e-6)
    assert rmse(scores, mos) < 0.02
    assert plcc(-scores, mos, direction="decreasing") == pytest.approx(1.0, abs=1e-6)


@given(paired(min_size=5))
def test_fixed_direction_gives_a_rising_curve(pair: tuple[FloatArray, FloatArray]) -> None:
    """The curve never falls, never fits worse than a line, and lowers no correlation."""
    x, y = pair
    mapped = fit_logistic4(x, y)
    assert np.all(np.diff(mapped[np.argsort(x)]) >= -1e-9)
    assert plcc(x, y) >= plcc(x, y, "linear") - 1e-12
    assert plcc(x, y, "linear") == plcc(x, y, "none")
    assert rmse(x, y) <= rmse(x, y, "linear") + 1e-9 <= rmse(x, y, "none") + 2e-9
    free = plcc(x, y, direction="free")
    assert math.isnan(free) or free >= -1e-6


@given(paired(min_size=5), st.floats(0.1, 50), st.floats(-100, 100))
def test_fit_ignores_the_units_of_scores(
    pair: tuple[FloatArray, FloatArray], factor: float, shift: float
) -> None:
    """Scores on 0..1 and on 0..100 have the same PLCC."""
    x, y = pair
    assert plcc(factor * x + shift, y) == pytest.approx(plcc(x, y), abs=1e-4)


def test_reversed_scores_stay_negative_unless_the_sign_is_free() -> None:
    """A model that answers the wrong way round is not excused by the fit."""
    x, y = simulated(150, 0.9, seed=0)
    assert plcc(-x, y) < -0.85
    assert plcc(-x, y, direction="free") > 0.85
    assert plcc(-x, y, "linear", "free") == pytest.approx(-plcc(-x, y, "none"))
    assert srcc(-x, y) < -0.85 < 0.85 < srcc_after_logistic(-x, y)


@pytest.mark.parametrize("seed", range(5))
def test_free_fit_agrees_with_the_published_procedure(seed: int) -> None:
    """scipy's curve_fit from the published start, on correlated scores."""

    def curve(s: FloatArray, b1: float, b2: float, b3: float, b4: float) -> FloatArray:
        return b2 + (b1 - b2) / (1 + np.exp(-(s - b3) / abs(b4)))

    x, y = simulated(150, 0.85, seed)
    start = [y.max(), y.min(), x.mean(), x.std() / 4]
    found, _ = curve_fit(curve, x, y, p0=start, maxfev=10_000)
    mapped = curve(x, *found)
    assert plcc(x, y, direction="free") == pytest.approx(np.corrcoef(mapped, y)[0, 1], abs=1e-5)
    assert srcc_after_logistic(x, y) == pytest.approx(
        stats.spearmanr(mapped, y).statistic, abs=1e-9
    )


def test_one_outlier_does_not_ruin_the_fit() -> None:
    """The published start saturates all other scores; ours starts from quartiles as well."""
    x, y = simulated(150, 0.8, seed=1)
    x[0] = 1e4
    assert plcc(x, y) > 0.7
    assert plcc(x, y) > plcc(x, y, "linear") + 0.3


def test_few_points_are_not_fitted() -> None:
    """Four parameters through four points would be perfect."""
    assert plcc([1, 2, 3, 4], [1, 3, 2, 4]) == plcc([1, 2, 3, 4], [1, 3, 2, 4], "none")


# --- Intervals ----------------------------------------------------------------------------------


@given(paired(min_size=5), st.sampled_from(list(PLAIN)))
def test_jackknife_is_that_of_a_loop(pair: tuple[FloatArray, FloatArray], name: str) -> None:
    """The closed forms of leaving one out equal computing each anew."""
    x, y = pair
    loop = np.array([PLAIN[name](np.delete(x, i), np.delete(y, i)) for i in range(len(x))])
    measure = agreement._measure(name, "none", "increasing")  # type: ignore[arg-type]
    np.testing.assert_allclose(agreement._leave_out(measure, x, y, None), loop, atol=1e-9)


@given(paired(), st.integers(0, 1000), st.sampled_from(["srcc", "plcc"]))
def test_bootstrap_counts_equal_resampled_values(
    pair: tuple[FloatArray, FloatArray], seed: int, name: str
) -> None:
    """Ranks from multinomial counts are the ranks of the resample."""
    x, y = pair
    measure = agreement._measure(name, "none", "increasing")  # type: ignore[arg-type]
    drawn = agreement._bootstrap(measure, x, y, None, 5, seed)
    counts = np.random.default_rng(seed).multinomial(len(x), np.full(len(x), 1 / len(x)), size=5)
    for value, count in zip(drawn, counts, strict=True):
        expected = PLAIN[name](np.repeat(x, count), np.repeat(y, count))
        assert value == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_refitting_and_keeping_the_curve_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The envelope theorem: large sets may keep the curve while stimuli are left out."""
    x, y = simulated(150, 0.8, seed=2)
    refitted = correlation(x, y, statistic="plcc")
    monkeypatch.setattr(agreement, "_REFIT_LIMIT", 0)
    kept = correlation(x, y, statistic="plcc")
    assert kept.value == refitted.value
    assert kept.std_error == pytest.approx(refitted.std_error, rel=0.05)


@pytest.mark.parametrize("interval", ["jackknife", "bootstrap"])
@pytest.mark.parametrize("statistic", ["srcc", "plcc"])
def test_intervals_cover_the_truth(interval: str, statistic: str) -> None:
    """About 95 % of 300 simulated experiments, n = 60 (3 standard errors are 3.8 %)."""
    rho = 0.8
    truth = 6 / math.pi * math.asin(rho / 2) if statistic == "srcc" else rho
    covered = 0
    for seed in range(300):
        x, y = simulated(60, rho, seed)
        found = correlation(
            x,
            y,
            statistic=statistic,  # type: ignore[arg-type]
            mapping="none",
            interval=interval,  # type: ignore[arg-type]
            n_resamples=300,
        )
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    assert 0.90 <= covered / 300 <= 0.99


def test_intervals_over_references_cover_the_truth() -> None:
    """Errors shared within a reference: leaving out stimuli is too sure, references is not."""
    # Scores x + s and opinions x + (s + e) / sqrt(2), all standard normal, s by reference.
    truth = 6 / math.pi * math.asin((1 + math.sqrt(0.5)) / 4)
    rng = np.random.default_rng(0)
    covered = {"references": 0, "stimuli": 0}
    for _ in range(200):
        x, e = rng.normal(size=(2, 150))
        shared = rng.normal(size=15)[REFERENCES]
        for name, cluster in (("references", REFERENCES), ("stimuli", None)):
            found = correlation(x + shared, x + (shared + e) / math.sqrt(2), cluster=cluster)
            assert found.low is not None
            assert found.high is not None
            covered[name] += found.low <= truth <= found.high
    assert covered["references"] / 200 >= 0.9
    assert covered["stimuli"] < covered["references"]


def test_p_values_answer_the_gate() -> None:
    """Above, below and undecided thresholds; the two sides add up to one."""
    x, y = simulated(150, 0.8, seed=3)
    found = correlation(x, y)
    assert found.p_above_zero is not None
    assert found.p_above_zero < 1e-6
    below, above = found.p_below(0.95), found.p_above(0.95)
    assert below is not None
    assert above is not None
    assert below < 0.01
    assert below + above == pytest.approx(1.0)
    assert found.p_below(0.5) == pytest.approx(1.0, abs=1e-6)
    assert found.value is not None
    assert found.p_below(found.value) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="threshold"):
        found.p_above(1.0)


def test_p_below_and_the_interval_say_the_same() -> None:
    """The upper end of the 90 % interval is the threshold with p = .05."""
    x, y = simulated(80, 0.6, seed=4)
    found = correlation(x, y, level=0.9)
    assert found.high is not None
    assert found.p_below(found.high) == pytest.approx(0.05, abs=1e-9)


@pytest.mark.parametrize("statistic", ["srcc", "krcc", "plcc"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_perfect_correlation_has_a_finite_interval(statistic: str, sign: int) -> None:
    """Fisher's z of 1 is infinite; the record stays usable and careful."""
    x = np.arange(10.0)
    found = correlation(x, sign * x, statistic=statistic, mapping="none")  # type: ignore[arg-type]
    assert found.value == pytest.approx(sign)
    assert found.low is not None
    assert found.high is not None
    assert -1 <= found.low < found.high <= 1
    assert found.high == pytest.approx(1) if sign == 1 else found.low == pytest.approx(-1)
    assert found.p_above_zero is not None
    assert (found.p_above_zero < 0.01) == (sign == 1)
    assert found.reason is not None


def test_small_perfect_sets_prove_little() -> None:
    """Four stimuli in the right order happen by chance once in 24."""
    p = correlation([1, 2, 3, 4], [1, 2, 3, 4]).p_above_zero
    assert p is not None
    assert p > 1 / 24


def test_equal_clusters_do_not_make_certainty() -> None:
    """Leaving out any of four identical references changes nothing: no zero standard error."""
    x = np.tile([1.0, 2, 3, 4, 5], 4)
    y = np.tile([2.0, 1, 3, 5, 4], 4)
    found = correlation(x, y, cluster=np.repeat(list("abcd"), 5))
    assert found.std_error == pytest.approx(1.0)
    assert found.reason is not None
    assert "no variation" in found.reason


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (correlation([1, 1, 1, 1], [1, 2, 3, 4]), "all 4 scores are equal"),
        (correlation([1, 2, 3, 4], [1, 1, 1, 1]), "all 4 opinions are equal"),
        (correlation([1, 2], [1, 2]), "at least 3 stimuli, got 2"),
        (cluster_mean([1, 1, 1], [1, 2, 3], ["a"] * 3), "no cluster has a correlation"),
    ],
)
def test_undefined_records_say_why(found: Correlation, words: str) -> None:
    """No value, no interval, no p-value, and a reason."""
    assert found.value is None
    assert found.low is None
    assert found.p_above_zero is None
    assert found.p_below(0.5) is None
    assert found.reason is not None
    assert words in found.reason


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (correlation([1, 2, 3], [1, 3, 2]), "at least 4 stimuli, got 3"),
        (correlation([1, 2, 3, 4], [1, 3, 2, 4], cluster=["a", "a", "b", "b"]), "got 2"),
        (correlation([1, 1, 1, 1, 2], [1, 2, 3, 4, 5]), "undefined without 1 of the stimuli"),
        (cluster_mean([1, 2, 3], [1, 3, 2], ["a"] * 3), "at least 3 clusters, got 1"),
    ],
)
def test_a_value_without_an_interval_says_why(found: Correlation, words: str) -> None:
    """The value stays, the interval is missing."""
    assert found.value is not None
    assert found.low is None
    assert found.high is None
    assert found.p_above(0.1) is None
    assert found.reason is not None
    assert words in found.reason


# --- Means over references ----------------------------------------------------------------------


def test_cluster_mean_is_the_mean_with_a_t_interval() -> None:
    """scipy's one-sample t interval on the per-reference values."""
    x, y = simulated(150, 0.7, seed=5)
    parts = np.split(np.arange(150), 15)
    values = [srcc(x[part], y[part]) for part in parts]
    expected = stats.ttest_1samp(values, 0.0)
    found = cluster_mean(x, y, REFERENCES)
    low, high = expected.confidence_interval(0.95)
    assert found.value == pytest.approx(np.mean(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.p_above_zero == pytest.approx(expected.pvalue / 2)
    assert found.n_clusters == 15


def test_cluster_mean_of_undefined_clusters() -> None:
    """Left out and said so, or counted as 0 as the paper's code does."""
    x = np.array([1.0, 2, 3, 4] * 3 + [7.0] * 4)
    y = np.array([1.0, 2, 3, 4, 1, 2, 4, 3, 2, 1, 3, 4, 1, 2, 3, 4])
    cluster = np.repeat([3, 1, 2, 9], 4)
    sound, paper = (cluster_mean(x, y, cluster, undefined=u) for u in ("exclude", "zero"))
    assert sound.n_clusters == 3
    assert paper.n_clusters == 4
    assert sound.reason is not None
    assert "1 clusters without a correlation" in sound.reason
    assert sound.value is not None
    assert paper.value == pytest.approx(sound.value * 3 / 4)


# --- Chance levels ------------------------------------------------------------------------------


def test_chance_of_raw_srcc_is_centred_and_analytic() -> None:
    """For n = 150, 5 % of unrelated scores exceed .135 (DESIGN.md)."""
    x, y = simulated(150, 0.9, seed=6)
    found = chance_level(x, y)
    assert found.mean == pytest.approx(0.0, abs=0.01)
    assert found.upper == pytest.approx(0.135, abs=0.012)
    assert found.p_value == pytest.approx(1 / 1001)


def test_chance_of_a_fitted_plcc_is_higher() -> None:
    """The fit finds something in nothing, and is allowed for."""
    x, y = simulated(150, 0.9, seed=6)
    raw = chance_level(x, y, statistic="plcc", mapping="none", n_permutations=300)
    fitted = chance_level(x, y, statistic="plcc", n_permutations=300)
    assert raw.upper is not None
    assert fitted.upper is not None
    assert fitted.upper > raw.upper + 0.02


def test_permutation_test_of_a_fitted_plcc_keeps_its_level() -> None:
    """Unrelated scores pass the 5 % test in about 5 % of 200 experiments."""
    passed = 0
    for seed in range(200):
        x, y = simulated(60, 0.0, seed)
        found = chance_level(x, y, statistic="plcc", n_permutations=99, seed=seed)
        assert found.p_value is not None
        passed += found.p_value <= 0.05
    assert 0.01 <= passed / 200 <= 0.1


def test_chance_of_the_paper_is_inflated() -> None:
    """Random answers reach .375 on 15 references of 10 (facts/reference-code.md, section 5)."""
    x, y = simulated(150, 0.0, seed=7)
    found = chance_level(
        x,
        y,
        statistic="srcc_after_logistic",
        cluster=REFERENCES,
        summary="cluster_mean",
        n_permutations=200,
    )
    assert found.mean == pytest.approx(0.375, abs=0.03)


def test_permuting_within_clusters_keeps_what_references_explain() -> None:
    """Scores that know only the reference are not above chance within references."""
    rng = np.random.default_rng(8)
    level = np.repeat(rng.normal(0, 3, 15), 10)
    x, y = level + rng.normal(size=150), level + rng.normal(size=150)
    within = chance_level(x, y, cluster=REFERENCES, n_permutations=300)
    across = chance_level(x, y, n_permutations=300)
    assert across.p_value == pytest.approx(1 / 301)
    assert within.p_value is not None
    assert within.p_value > 0.01
    mean = chance_level(x, y, cluster=REFERENCES, summary="cluster_mean", n_permutations=300)
    assert mean.mean == pytest.approx(0.0, abs=0.02)


def test_chance_is_deterministic_and_may_be_undefined() -> None:
    """The same seed gives the same record; constant scores have no chance level."""
    x, y = simulated(30, 0.3, seed=9)
    assert chance_level(x, y, statistic="krcc") == chance_level(x, y, statistic="krcc")
    found = chance_level(np.ones(30), y)
    assert (found.value, found.upper, found.p_value) == (None, None, None)
    assert found.reason == "all 30 scores are equal"


# --- Errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: srcc([1, 2, float("nan")], [1, 2, 3]), "scores.*nan at index 2"),
        (lambda: plcc([1, 2, 3], [1, float("inf"), 3]), "mos.*inf at index 1"),
        (lambda: krcc([1, 2, 3], [1, 2]), "scores has 3 values and mos 2"),
        (lambda: srcc([[1, 2]], [[1, 2]]), r"one-dimensional.*\(1, 2\)"),
        (lambda: plcc([1, 2, 3], [1, 2, 3], "cubic"), "mapping.*logistic4.*cubic"),  # type: ignore[arg-type]
        (lambda: plcc([1, 2, 3], [1, 2, 3], direction="up"), "direction.*'up'"),  # type: ignore[arg-type]
        (lambda: correlation([1, 2, 3], [1, 2, 3], cluster=[1, 2]), "cluster has 2 values"),
        (lambda: correlation([1, 2, 3], [1, 2, 3], level=95), "level.*95"),
        (
            lambda: correlation([1, 2, 4, 3], [1, 2, 3, 4], statistic="krcc", interval="bootstrap"),
            "bootstrap.*krcc",
        ),
        (lambda: chance_level([1, 2, 3], [1, 2, 3], summary="cluster_mean"), "needs cluster"),
        (lambda: chance_level([1, 2, 3], [1, 2, 3], n_permutations=0), "n_permutations.*0"),
    ],
)
def test_errors_name_the_value(call: Callable[[], object], message: str) -> None:
    """A ValueError says what was wrong and where."""
    with pytest.raises(ValueError, match=message):
        call()
