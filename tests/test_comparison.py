"""Paired comparisons: naive loops and scipy as oracles, invariants, calibration in the small."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from iqa_checks.agreement import cluster_mean, correlation, plcc, srcc
from iqa_checks.comparison import (
    Difference,
    Judged,
    compare,
    compare_plcc,
    compare_srcc,
    compare_trials,
    holm,
    minimum_detectable_drop,
)
from iqa_checks.decision import decide
from iqa_checks.power import judgement_noise, power_plan, rating_noise
from iqa_checks.protocols import Trial
from tests.benchmarks import study_gate_calibration as study

REFERENCES = np.repeat(np.arange(15), 10)


def releases(n: int = 150, drop: float = 0.0, seed: int = 0, resemblance: float = 0.64):
    """(candidate, baseline, opinions) of one simulated pair of releases."""
    rng = np.random.default_rng(seed)
    y = rng.standard_normal(n)
    errors = study.two_errors(rng, n, resemblance)
    strength = study.pearson_of(0.85), study.pearson_of(0.85 - drop)
    before, now = (
        study.rating(study.perceive(y, r, e)) for r, e in zip(strength, errors, strict=True)
    )
    return now, before, y


# --- Standard errors ------------------------------------------------------------------------------


@pytest.mark.parametrize(("compared", "statistic"), [(compare_srcc, srcc), (compare_plcc, plcc)])
def test_jackknife_is_the_naive_loop(compared, statistic):
    now, before, y = releases(20)
    found = compared(now, before, y)
    kept = [np.arange(20) != k for k in range(20)]
    gaps = np.array(
        [np.arctanh(statistic(now[m], y[m])) - np.arctanh(statistic(before[m], y[m])) for m in kept]
    )
    naive = np.sqrt(19 / 20 * np.sum((gaps - gaps.mean()) ** 2))
    assert found.std_error == pytest.approx(naive, rel=1e-6)
    assert found.df == 19
    assert found.value == pytest.approx(statistic(now, y) - statistic(before, y))


def test_reference_jackknife_is_the_naive_loop():
    now, before, y = releases()
    found = compare_srcc(now, before, y, REFERENCES)
    kept = [k != REFERENCES for k in range(15)]
    gaps = np.array(
        [np.arctanh(srcc(now[m], y[m])) - np.arctanh(srcc(before[m], y[m])) for m in kept]
    )
    assert found.std_error == pytest.approx(np.sqrt(14 / 15 * np.sum((gaps - gaps.mean()) ** 2)))
    assert (found.df, found.n_clusters) == (14, 15)


def test_mean_over_references_is_the_paired_t_test():
    now, before, y = releases(drop=0.1)
    found = compare_srcc(now, before, y, REFERENCES, summary="cluster_mean")
    sides = [
        [srcc(x[k == REFERENCES], y[k == REFERENCES]) for k in range(15)] for x in (now, before)
    ]
    assert found.p_worse == pytest.approx(stats.ttest_rel(*sides, alternative="less").pvalue)
    assert found.candidate == pytest.approx(cluster_mean(now, y, REFERENCES).value)
    assert found.baseline == pytest.approx(cluster_mean(before, y, REFERENCES).value)
    ends = stats.ttest_rel(*sides).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(ends))


def test_bootstrap_agrees_with_jackknife():
    now, before, y = releases()
    exact = compare_srcc(now, before, y)
    drawn = compare_srcc(now, before, y, method="bootstrap", n_resamples=2000)
    assert drawn.std_error == pytest.approx(exact.std_error, rel=0.15)
    assert drawn == compare_srcc(now, before, y, method="bootstrap", n_resamples=2000)
    other = compare_srcc(now, before, y, method="bootstrap", n_resamples=2000, seed=1)
    assert other.std_error != drawn.std_error


def test_paired_beats_independent():
    """Releases that resemble each other: the paired error is well below that of two samples."""
    now, before, y = releases(300, resemblance=0.95)
    assert compare_srcc(now, before, y).std_error < 0.5 * np.sqrt(2 / 297)


def test_paper_statistic_is_compared_too():
    now, before, y = releases(12)
    found = compare(now, before, y, statistic="srcc_after_logistic")
    assert found.candidate == pytest.approx(
        correlation(now, y, statistic="srcc_after_logistic").value
    )


# --- Invariants -----------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.sampled_from(["pooled", "clustered", "mean"]))
def test_order_of_stimuli_does_not_matter(seed, kind):
    now, before, y = releases(60, seed=seed)
    cluster = None if kind == "pooled" else REFERENCES[:60]
    summary = "cluster_mean" if kind == "mean" else "pooled"
    order = np.random.default_rng(seed).permutation(60)
    shuffled = None if cluster is None else cluster[order]
    straight = compare_srcc(now, before, y, cluster, summary=summary)
    other = compare_srcc(now[order], before[order], y[order], shuffled, summary=summary)
    assert other.value == pytest.approx(straight.value, abs=1e-12)
    assert other.p_worse == pytest.approx(straight.p_worse, abs=1e-9)


@given(st.integers(0, 1000))
def test_swapping_sides_negates(seed):
    now, before, y = releases(50, seed=seed)
    one, other = compare_srcc(now, before, y), compare_srcc(before, now, y)
    assert one.value == pytest.approx(-other.value)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.p_worse == pytest.approx(other.p_better)


@given(st.integers(0, 1000))
def test_monotone_rescaling_changes_nothing(seed):
    now, before, y = releases(50, seed=seed)
    one, other = compare_srcc(now, before, y), compare_srcc(np.exp(now / 30), 3 * before - 7, y**3)
    assert one.p_worse == pytest.approx(other.p_worse)


@given(st.integers(0, 1000), st.floats(0.5, 0.99))
def test_interval_and_p_value_say_the_same(seed, level):
    """The one-sided test at (1 - level) / 2 rejects exactly when the interval excludes the drop."""
    now, before, y = releases(40, drop=0.05, seed=seed)
    found = compare_srcc(now, before, y, level=level)
    tail = (1 - level) / 2
    assert (found.p_worse < tail) == (found.high < 0)
    assert (found.p_not_worse_than(0.05) < tail) == (found.low > -0.05)
    assert (found.p_worse_than(0.02) < tail) == (found.high < -0.02)


def test_p_values_add_up():
    now, before, y = releases()
    found = compare_srcc(now, before, y)
    assert found.p_worse + found.p_better == pytest.approx(1)
    assert found.p_worse == found.p_worse_than(0)
    assert found.p_not_worse_than(0.05) < found.p_not_worse_than(0.01)


# --- Degenerate data ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"method": "bootstrap"}, {"cluster": REFERENCES},
     {"cluster": REFERENCES, "summary": "cluster_mean"}],
)  # fmt: skip
def test_the_same_scores_pass(options):
    _, before, y = releases()
    found = compare_srcc(before, before, y, **options)
    assert (found.value, found.low, found.high, found.std_error) == (0, 0, 0, 0)
    assert (found.p_worse, found.p_better) == (1, 1)
    assert decide(found, margin=0.001).status == "PASS"
    assert decide(found, goal="superiority").status == "INCONCLUSIVE"
    assert minimum_detectable_drop(found) is None


def test_the_same_order_passes():
    _, before, y = releases()
    decision = decide(compare_srcc(np.exp(before / 50), before, y))
    assert decision.status == "PASS"


def test_perfect_correlations():
    _, before, y = releases()
    assert decide(compare_srcc(y, before, y)).status == "PASS"
    assert decide(compare_srcc(y, y, y)).status == "PASS"
    fallen = compare_srcc(-y, y, y)
    assert fallen.value == -2
    assert "no variation" in fallen.reason
    assert decide(fallen).status == "FAIL"
    assert decide(compare_srcc(before, y, y)).status == "FAIL"


def test_constant_candidate_fails_and_says_so():
    _, before, y = releases()
    found = compare_srcc(np.full(150, 50.0), before, y)
    assert (found.candidate, found.value, found.p_worse) == (None, None, None)
    decision = decide(found)
    assert decision.status == "FAIL"
    assert "all 150 scores are equal" in decision.sentence


def test_constant_baseline_is_inconclusive():
    now, _, y = releases()
    decision = decide(compare_srcc(now, np.zeros(150), y))
    assert decision.status == "INCONCLUSIVE"
    assert "baseline: all 150 scores are equal" in decision.sentence


@pytest.mark.parametrize(
    ("n", "cluster", "summary", "told"),
    [(3, None, "pooled", "at least 4 stimuli"),
     (20, REFERENCES[:20], "pooled", "at least 3 references"),
     (20, REFERENCES[:20], "cluster_mean", "at least 3 references"),
     (2, None, "pooled", "at least 3 stimuli")],
)  # fmt: skip
def test_too_little_data_is_inconclusive(n, cluster, summary, told):
    now, before, y = releases(n, seed=3)
    decision = decide(compare_srcc(now, before, y, cluster, summary=summary))
    assert decision.status == "INCONCLUSIVE"
    assert told in decision.sentence
    assert decision.passed
    assert not replace(decision, passed=False)


def test_references_that_the_candidate_lost_forbid_a_pass():
    _, before, y = releases()
    now = before.copy()
    now[REFERENCES == 3] = 50
    found = compare_srcc(now, before, y, REFERENCES, summary="cluster_mean")
    assert (found.lost, found.n_clusters, found.n) == (1, 14, 140)
    assert decide(found).status == "INCONCLUSIVE"
    zero = compare(now, before, y, cluster=REFERENCES, summary="cluster_mean", undefined="zero")
    assert (zero.lost, zero.n_clusters) == (0, 15)
    assert zero.value < 0


@pytest.mark.parametrize(
    ("change", "told"),
    [({"method": "guess"}, "method"), ({"summary": "median"}, "summary"), ({"level": 1}, "level"),
     ({"summary": "cluster_mean"}, "needs cluster"), ({"cluster": [1]}, "cluster has 1"),
     ({"mos": [1, 2, np.nan]}, "finite"), ({"candidate": [1, 2]}, "expected as many"),
     ({"undefined": "drop"}, "undefined"),
     ({"summary": "cluster_mean", "method": "bootstrap", "cluster": [1, 1, 2]}, "pooled")],
)  # fmt: skip
def test_bad_arguments(change, told):
    given = {"candidate": [1, 2, 3], "baseline": [1, 3, 2], "mos": [1, 2, 3], **change}
    with pytest.raises(ValueError, match=told):
        compare(**given)


# --- Holm, detectable drop, power ----------------------------------------------------------------


def test_holm():
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match="0, 1"):
        holm([1.5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_lies_between_none_and_bonferroni(p_values):
    adjusted = np.array(holm(p_values))
    assert np.all(adjusted >= np.array(p_values) - 1e-12)
    assert np.all(adjusted <= np.minimum(1, len(p_values) * np.array(p_values)) + 1e-12)
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(adjusted[order]) >= 0)


def test_detectable_drop_follows_the_normal_formula():
    """One-sided 5 % and 80 % power: 1.645 + 0.842 standard errors."""
    found = Difference(0.8, 0.8, 0.0, 0, 0, 0.95, 150, std_error=0.02, scale="identity")
    assert minimum_detectable_drop(found) == pytest.approx(0.0497, abs=1e-4)
    z = float(np.arctanh(0.8))
    on_z = replace(found, scale="fisher_z", z_baseline=z, z_candidate=z)
    assert minimum_detectable_drop(on_z) == pytest.approx(
        0.8 - np.tanh(z - 2.4865 * 0.02), abs=1e-4
    )


def test_power_plan():
    _, before, y = releases(100)
    own, enough = power_plan(before, y, drop=0.05)
    assert own.n == own.trials == 100
    assert own.power < 0.8 <= enough.power
    assert enough.n > own.n
    assert enough.detectable == pytest.approx(0.05, abs=0.001)
    larger = power_plan(before, y, drop=0.1)[1]
    assert larger.n < enough.n
    alike = power_plan(before, y, drop=0.05, resemblance=0.95)[1]
    assert alike.n < enough.n


def test_power_plan_with_noise_proposes_repeats():
    _, before, y = releases(100)
    options = power_plan(before, y, drop=0.05, n_trials=500, noise_variance=0.003)
    assert [o.repeats for o in options] == [1, 1, 2, 3, 5]
    sizes = [o.n for o in options[1:]]
    assert sizes == sorted(sizes, reverse=True)
    assert options[2].trials == round(500 * options[2].n / 100 * 2)


def test_power_plan_by_reference_and_from_two_releases():
    now, before, y = releases()
    own, enough = power_plan(before, y, drop=0.05, cluster=REFERENCES, summary="cluster_mean")
    assert (own.n_clusters, enough.n) == (15, 10 * enough.n_clusters)
    known = compare_srcc(now, before, y)
    measured = power_plan(before, y, drop=0.05, typical=known)[0]
    assert measured.detectable == pytest.approx(minimum_detectable_drop(known))


@pytest.mark.parametrize("change", [{"drop": 0}, {"resemblance": 1.0}, {"scores": np.ones(20)}])
def test_power_plan_refuses(change):
    given = {"scores": np.arange(20.0), "mos": np.arange(20.0) ** 2, "drop": 0.1, **change}
    with pytest.raises(ValueError, match=r"drop|resemblance|planned"):
        power_plan(**given)


def test_rating_noise():
    rng = np.random.default_rng(0)
    y = np.linspace(0, 100, 40)
    who = np.tile(np.arange(40), 4)
    assert rating_noise(np.arange(40), y, y) == 0
    seen = y + rng.normal(0, 25, 40)
    quiet, loud = (rating_noise(who, seen[who] + rng.normal(0, s, 160), y) for s in (2, 20))
    assert 0 < quiet < loud


def test_noise_of_a_mean_over_references_is_that_of_its_parts():
    """References are judged apart: the variance of their mean falls with their number."""
    rng = np.random.default_rng(1)
    y = np.tile(np.linspace(0, 100, 10), 12)
    group = np.repeat(np.arange(12), 10)
    who = np.tile(np.arange(120), 3)
    given = y[who] + rng.normal(0, 20, 360)
    few = who < 30
    three = rating_noise(who[few], given[few], y[:30], cluster=group[:30], n_resamples=400)
    twelve = rating_noise(who, given, y, cluster=group, n_resamples=400)
    assert twelve == pytest.approx(three / 4, rel=0.5)
    design, _, seen = judged(0)
    halves = np.repeat([0, 1], 12)
    assert judgement_noise(design, seen, cluster=halves, n_resamples=20) > 0


# --- Judgements resampled -------------------------------------------------------------------------


def judged(seed: int = 0, protocol: str = "double") -> tuple[Judged, list[Trial], np.ndarray]:
    rng = np.random.default_rng(seed)
    seen = rng.standard_normal(24)
    found, trials = study.run_design(protocol, seen, rng, seed)
    return found, trials, seen


@pytest.mark.parametrize("protocol", ["double", "multiple"])
def test_trials_resampled(protocol):
    baseline, _, seen = judged(0, protocol)
    candidate = replace(baseline, outcome=np.random.default_rng(1).permutation(baseline.outcome))
    found = compare_trials(candidate, baseline, seen, n_resamples=40)
    assert found == compare_trials(candidate, baseline, seen, n_resamples=40)
    assert found.p_worse < 0.001
    same = compare_trials(baseline, baseline, seen, n_resamples=10)
    assert (same.value, same.std_error) == (0, 0)
    assert judgement_noise(baseline, seen, n_resamples=20) > 0


def test_counting_trials_is_repeating_them():
    baseline, _, _ = judged()
    twice = replace(
        baseline,
        trial=np.tile(baseline.trial, 2),
        first=np.tile(baseline.first, 2),
        second=np.tile(baseline.second, 2),
        outcome=np.tile(baseline.outcome, 2),
    )
    counted = baseline.scores(np.full(baseline.n_trials, 2))
    assert counted == pytest.approx(twice.scores(), abs=1e-8)


def test_leaving_out_stimuli_or_references_rescales():
    baseline, _, seen = judged()
    candidate = replace(baseline, outcome=1 - baseline.outcome)
    for options in (
        {"resample": "stimuli"},
        {"resample": "references", "cluster": REFERENCES[:24]},
    ):
        found = compare_trials(candidate, baseline, seen, **options)
        assert found.p_worse < 0.03
    with pytest.raises(ValueError, match="cluster"):
        compare_trials(candidate, baseline, seen, resample="references")


# --- Decisions ------------------------------------------------------------------------------------


def at(value: float, error: float = 0.02) -> Difference:
    """A difference with a known standard error, from .8."""
    return Difference(
        0.8 + value, 0.8, value, value - 2 * error, value + 2 * error, 0.95, 150,
        std_error=error, scale="identity", z_candidate=0.8 + value, z_baseline=0.8,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("goal", "value", "error", "status"),
    [("regression", 0.0, 0.02, "PASS"), ("regression", 0.0, 0.04, "INCONCLUSIVE"),
     ("regression", -0.05, 0.02, "FAIL"), ("regression", -0.01, 0.002, "FAIL"),
     ("regression", -0.05, 0.04, "INCONCLUSIVE"), ("regression", 0.2, 0.04, "PASS"),
     ("non_inferiority", -0.01, 0.002, "PASS"), ("non_inferiority", -0.05, 0.02, "FAIL"),
     ("non_inferiority", -0.1, 0.01, "FAIL"), ("non_inferiority", 0.0, 0.04, "INCONCLUSIVE"),
     ("superiority", 0.05, 0.02, "PASS"), ("superiority", 0.0, 0.02, "INCONCLUSIVE"),
     ("superiority", -0.05, 0.02, "FAIL")],
)  # fmt: skip
def test_goals(goal, value, error, status):
    decision = decide(at(value, error), goal=goal)
    assert decision.status == status
    assert decision.passed == (status != "FAIL")
    strict = decide(at(value, error), goal=goal, strict=True)
    assert bool(strict) == (status == "PASS")
    assert decision.sentence.endswith(".")
    assert "\n" not in str(decision)
    assert decision.sentence.startswith("SRCC 0.800 -> ")


def test_never_on_a_bare_difference():
    """A drop of .1 within the noise does not fail; one of .005 beyond it does."""
    assert decide(at(-0.1, 0.1)).status == "INCONCLUSIVE"
    assert decide(at(-0.005, 0.001)).status == "FAIL"


def test_the_adjusted_p_value_decides():
    found = at(-0.05)
    assert found.p_worse < 0.05
    decision = decide(found, p_adjusted=0.2)
    assert decision.status == "INCONCLUSIVE"
    assert "after Holm" in decision.sentence
    assert decide(found, p_adjusted=0.04).status == "FAIL"


def test_inconclusive_names_the_detectable_drop():
    decision = decide(at(-0.02, 0.04))
    assert f"would see drops from {decision.detectable:.3f} on" in decision.sentence


@pytest.mark.parametrize("change", [{"goal": "win"}, {"margin": 0}, {"margin": 1}])
def test_bad_terms(change):
    with pytest.raises(ValueError, match=r"goal|margin"):
        decide(at(0), **change)


# --- Calibration in the small; the study has the tables -------------------------------------------


@pytest.mark.parametrize("n", [30, 60])
def test_false_alarms(n):
    tests = [compare_srcc(*releases(n, seed=k)).p_worse < 0.05 for k in range(400)]
    assert np.mean(tests) <= 0.05 + 3 * 0.011


def test_power():
    tests = [compare_srcc(*releases(150, drop=0.1, seed=k)).p_worse < 0.05 for k in range(100)]
    assert np.mean(tests) > 0.9


def test_study_runs():
    """The published tables come from code that works."""
    for tally in (
        study.single_condition(30, 0.0, 8, 0),
        study.reference_condition(6, 0.0, 8, 0, lambda target: target),
        study.comparative_condition("double", 12, 0.0, 2, 0, rescaled=1),
        study.comparative_condition("multiple", 12, 0.0, 2, 0, same_model=True),
    ):
        assert tally.pairs > 0
        assert "raw drop" in study.markdown(tally)
