"""Test-retest reliability: known values, and what must never count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqa_checks.protocols import Preference, Ranking, Rating, Trial, Unparsed
from iqa_checks.retest import agreement_share, intraclass_correlation, retest

#: Shrout and Fleiss 1979, table 2: six targets, four judges; ICC(1, 1) is .17
SHROUT_FLEISS = [
    [9, 2, 5, 8],
    [6, 1, 3, 2],
    [8, 4, 6, 8],
    [7, 1, 2, 6],
    [10, 5, 6, 9],
    [6, 2, 4, 7],
]


def test_intraclass_correlation_is_shrout_and_fleiss():
    assert intraclass_correlation(SHROUT_FLEISS) == pytest.approx(0.166, abs=5e-4)


def test_intraclass_correlation_of_unequal_groups_recovers_the_variance_ratio():
    """Groups of two to four with variances 3 (between) and 1 (within): .75."""
    draw = np.random.default_rng(0)
    groups = [
        list(draw.normal(0, 3**0.5) + draw.normal(0, 1, int(draw.integers(2, 5))))
        for _ in range(4000)
    ]
    assert intraclass_correlation(groups) == pytest.approx(0.75, abs=0.02)


@given(st.lists(st.floats(0, 100), min_size=2, max_size=8, unique=True), st.integers(2, 4))
def test_exact_repeats_are_fully_reliable(scores, repeats):
    assert intraclass_correlation([[s] * repeats for s in scores]) == pytest.approx(1.0)


@pytest.mark.parametrize("groups", [[], [[50, 50]], [[50], [60]], [[50, 50], [50, 50]]])
def test_undefined_is_none_never_zero(groups):
    assert intraclass_correlation(groups) is None


def test_scotts_pi():
    """One question of two agrees; three answers of four are the same."""
    found = agreement_share([["first", "first"], ["first", "second"]])
    assert found.value == pytest.approx(1 / 2)
    assert found.kappa == pytest.approx((1 / 2 - 10 / 16) / (6 / 16))


def test_one_answer_for_everything_agrees_with_itself_and_is_no_reliability():
    found = agreement_share([["first", "first", "first"]] * 5)
    assert (found.value, found.kappa) == (1.0, None)


@given(st.lists(st.lists(st.sampled_from(["first", "second", "comparable"]), max_size=4)))
def test_shares_are_shares(groups):
    found = agreement_share(groups)
    assert found.value is None or 0 <= found.value <= 1
    assert found.kappa is None or found.kappa <= 1 + 1e-12


def test_questions_are_presentations_and_unusable_replies_are_left_out():
    """(0, 1) and (1, 0) are two questions; one usable answer is no repeat."""
    trials = [Trial((0, 1)), Trial((1, 0)), Trial((0, 1), 1000), Trial((1, 0), 1000)]
    first, second = Preference("first"), Preference("second")
    assert retest(trials, [first, second, first, Unparsed("refusal")]).value == 1.0
    assert retest(trials, [first, second, second, second]).value == 0.5


def test_rankings_agree_about_pairs():
    """One of the three pairs is turned around."""
    trials = [Trial((0, 1, 2)), Trial((0, 1, 2), 1000)]
    assert retest(trials, [Ranking((0, 1, 2)), Ranking((0, 2, 1))]).value == pytest.approx(2 / 3)
    assert retest(trials, [Ranking((0, 1, 2)), Ranking((1, 2, 3))]).value == 1.0


def test_ratings_of_one_trial_each_have_none():
    assert retest([Trial((0,)), Trial((1,))], [Rating(3), Rating(5)]).value is None
