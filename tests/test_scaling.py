"""Scaling: invariants of Eq. 2 as properties, other solvers and libraries as oracles."""

from __future__ import annotations

import math
from collections.abc import Callable

import choix
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import log_ndtr, ndtri
from scipy.stats import norm, spearmanr

from iqa_checks import scaling
from iqa_checks.scaling import (
    SCALINGS,
    Comparisons,
    bradley_terry,
    elo,
    pairs_from_ranking,
    perron_frobenius,
    preference_matrix,
    scale,
    thurstone_map,
    thurstone_mosteller,
)

FloatArray = NDArray[np.float64]

COUNTS = st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 2.0, 7.0])
WIDE_WEIGHTS = st.one_of(st.just(0.0), st.floats(1e-6, 1e6))
METHODS = list(SCALINGS)


@st.composite
def matrices(draw: st.DrawFn, entry: st.SearchStrategy[float] = COUNTS) -> FloatArray:
    """A preference matrix of 2 to 7 stimuli, sparse, maybe disconnected, zero diagonal."""
    n = draw(st.integers(2, 7))
    flat = draw(st.lists(entry, min_size=n * n, max_size=n * n))
    matrix = np.array(flat).reshape(n, n)
    np.fill_diagonal(matrix, 0.0)
    return matrix


def observer(n_stimuli: int, per_stimulus: int, seed: int = 0, bias: float = 0.0) -> tuple:
    """True qualities (SD 2) and judgements of random pairs in random order, some ties."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(0, 2, n_stimuli)
    first = rng.integers(0, n_stimuli, per_stimulus * n_stimuli)
    second = (first + rng.integers(1, n_stimuli, len(first))) % n_stimuli
    answer = quality[first] - quality[second] + bias + rng.normal(size=len(first))
    outcome = np.where(np.abs(answer) < 0.2, 0.5, (answer > 0).astype(float))
    return quality, list(zip(first.tolist(), second.tolist(), outcome.tolist(), strict=True))


def negative_log_posterior(matrix: FloatArray) -> Callable[[FloatArray], float]:
    """Minus the objective of Eq. 2, written as the paper does."""

    def value(mu: FloatArray) -> float:
        return float(mu @ mu / 2 - np.sum(matrix * log_ndtr(mu[:, None] - mu[None, :])))

    return value


# --- Preference matrix and rankings -------------------------------------------------------------


def test_preference_matrix_counts_wins_and_splits_ties() -> None:
    """C[i, j] = times i beat j; words and numbers mean the same."""
    judgements = [(0, 1, 1.0), (0, 1, "first"), (1, 2, "second"), (0, 2, 0.5), (2, 0, "comparable")]
    expected = [[0, 2, 1], [0, 0, 0], [1, 1, 0]]
    np.testing.assert_array_equal(preference_matrix(judgements, 3), expected)


def test_preference_matrix_takes_shares_of_a_win() -> None:
    """A soft answer: three quarters of a win, whatever a tie is worth."""
    for tie_weight in (0.5, 1.0):
        matrix = preference_matrix([(0, 1, 0.75)], 2, tie_weight=tie_weight)
        assert (matrix[0, 1], matrix[1, 0]) == (0.75, 0.25)


def test_preference_matrix_tie_weight_of_the_paper() -> None:
    """A tie of the released code is a full win for both."""
    matrix = preference_matrix([(0, 1, 0.5)], 2, tie_weight=1.0)
    np.testing.assert_array_equal(matrix, [[0, 1], [1, 0]])


@given(st.lists(st.integers(0, 4), min_size=0, max_size=9))
def test_ranking_gives_every_pair_once(ranks: list[int]) -> None:
    """L(L - 1)/2 pairs i < j, won by the higher rank, tied when equal."""
    pairs = pairs_from_ranking(ranks)
    assert len(pairs) == len(ranks) * (len(ranks) - 1) // 2
    assert len({(i, j) for i, j, _ in pairs}) == len(pairs)
    for i, j, outcome in pairs:
        assert i < j
        assert outcome == {1: 1.0, 0: 0.5, -1: 0.0}[int(np.sign(ranks[i] - ranks[j]))]


@given(st.permutations(range(6)))
def test_concordant_rankings_keep_their_order(ranks: list[int]) -> None:
    """Every method ranks the stimuli of one full ranking as the ranking does."""
    matrix = preference_matrix(pairs_from_ranking(ranks), 6)
    for method in METHODS:
        assert list(np.argsort(scale(matrix, method).scores)) == list(np.argsort(ranks)), method


def test_comparisons_merge_and_keep_the_position() -> None:
    """The same winner, loser and position is one edge; a different position is another."""
    edges = Comparisons.from_judgements([(0, 1, 1.0), (0, 1, 1.0), (1, 0, 0.0)], 2)
    assert edges.winner.tolist() == [0, 0]
    assert edges.weight.tolist() == [1.0, 2.0]
    assert edges.position is not None
    assert edges.position.tolist() == [-1, 1]
    unordered = Comparisons.from_judgements([(0, 1, 1.0), (1, 0, 0.0)], 2, ordered=False)
    assert unordered.weight.tolist() == [2.0]


@given(matrices())
def test_matrix_and_edges_are_the_same_thing(matrix: FloatArray) -> None:
    """A matrix survives the way through edges."""
    np.testing.assert_array_equal(Comparisons.from_matrix(matrix).matrix(), matrix)


# --- Invariants of Eq. 2 (facts/numerics.md, section 10) ----------------------------------------


@given(matrices())
def test_scores_sum_to_zero_in_every_component(matrix: FloatArray) -> None:
    """The prior implies the sum-to-zero constraint; lone stimuli get exactly 0."""
    result = thurstone_map(matrix)
    for label in range(result.n_components):
        members = result.components == label
        assert abs(result.scores[members].sum()) < 1e-12
        if members.sum() == 1:
            assert result.scores[members][0] == 0.0


@given(matrices(), st.randoms(use_true_random=False))
def test_scores_follow_a_relabelling(matrix: FloatArray, random: object) -> None:
    """Permuting the stimuli permutes the scores; transposing the matrix negates them."""
    order = list(range(len(matrix)))
    random.shuffle(order)  # type: ignore[attr-defined]
    scores = thurstone_map(matrix).scores
    permuted = thurstone_map(matrix[np.ix_(order, order)]).scores
    np.testing.assert_allclose(permuted, scores[order], atol=1e-9)
    np.testing.assert_allclose(thurstone_map(matrix.T).scores, -scores, atol=1e-9)


@given(matrices(), st.data())
def test_one_more_win_lifts_the_winner_most(matrix: FloatArray, data: st.DataObject) -> None:
    """One more win k > l: k rises most, l falls most."""
    k, other = data.draw(st.permutations(range(len(matrix))))[:2]
    more = matrix.copy()
    more[k, other] += 1
    change = thurstone_map(more).scores - thurstone_map(matrix).scores
    assert change[k] >= change.max() - 1e-8
    assert change[other] <= change.min() + 1e-8
    assert change[k] > 0 > change[other]


@given(matrices(), st.data())
def test_one_more_tie_brings_two_stimuli_together(matrix: FloatArray, data: st.DataObject) -> None:
    """A tie shrinks the difference and keeps its sign."""
    k, other = data.draw(st.permutations(range(len(matrix))))[:2]
    more = matrix.copy()
    more[k, other] += 0.5
    more[other, k] += 0.5
    before, after = (r.scores[k] - r.scores[other] for r in map(thurstone_map, (matrix, more)))
    assert abs(after) <= abs(before) + 1e-8
    assert after * before >= -1e-12


@given(matrices(), st.sampled_from([0.1, 2.0, 30.0]))
def test_weights_and_prior_scale_together(matrix: FloatArray, factor: float) -> None:
    """C -> kC with prior precision k leaves the scores; with a fixed prior it does not."""
    scores = thurstone_map(matrix).scores
    scaled = thurstone_map(factor * matrix, prior_precision=factor)
    np.testing.assert_allclose(scaled.scores, scores, atol=1e-7)
    assert scaled.error_bound is not None


@given(matrices())
def test_merging_the_diagonal_and_symmetry(matrix: FloatArray) -> None:
    """Split edges, a diagonal and ties change nothing that they should not."""
    scores = thurstone_map(matrix).scores
    winner, loser = np.nonzero(matrix)
    half = matrix[winner, loser] / 2
    doubled = Comparisons(
        np.tile(winner, 2), np.tile(loser, 2), np.tile(half, 2), n_stimuli=len(matrix)
    )
    np.testing.assert_array_equal(thurstone_map(doubled).scores, scores)
    np.testing.assert_array_equal(thurstone_map(matrix + np.eye(len(matrix))).scores, scores)
    np.testing.assert_allclose(thurstone_map(matrix + matrix.T).scores, 0.0, atol=1e-12)


@given(matrices(WIDE_WEIGHTS))
def test_finite_and_converged_for_any_weights(matrix: FloatArray) -> None:
    """Weights from 1e-6 to 1e6, winless and unanimous stimuli: finite scores, certified."""
    result = thurstone_map(matrix)
    assert np.all(np.isfinite(result.scores))
    assert result.converged
    assert result.n_iter <= 20
    assert result.scores @ result.scores <= 2 * math.log(2) * matrix.sum() + 1e-9


@given(matrices(WIDE_WEIGHTS), st.sampled_from(METHODS))
@settings(max_examples=150)
def test_every_method_is_finite_and_centred(matrix: FloatArray, method: str) -> None:
    """No method breaks on sparse, disconnected or extreme comparisons."""
    result = scale(matrix, method)
    assert np.all(np.isfinite(result.scores))
    assert abs(result.scores.sum()) < 1e-9 * max(1.0, np.abs(result.scores).max())


@given(matrices(), st.sampled_from(METHODS), st.randoms(use_true_random=False))
def test_the_order_of_judgements_changes_nothing(
    matrix: FloatArray, method: str, random: object
) -> None:
    """Bit for bit the same scores from shuffled edges."""
    winner, loser = np.nonzero(matrix)
    order = list(range(len(winner)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = Comparisons(
        winner[order], loser[order], matrix[winner, loser][order], n_stimuli=len(matrix)
    )
    np.testing.assert_array_equal(scale(shuffled, method).scores, scale(matrix, method).scores)


# --- Oracles ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wins", [0.5, 1.0, 4.0, 1e6])
def test_two_stimuli_by_hand(wins: float) -> None:
    """With mu = (a, -a), Eq. 2 asks for wins * h(2a) = a."""

    def equation(a: float) -> float:
        return float(wins * np.exp(norm.logpdf(2 * a) - norm.logcdf(2 * a)) - a)

    a = brentq(equation, 0.0, 10.0, xtol=1e-13)
    result = thurstone_map([[0, wins], [0, 0]])
    np.testing.assert_allclose(result.scores, [a, -a], atol=1e-9)
    if wins == 1e6:  # facts/numerics.md, section 1
        assert a == pytest.approx(2.45, abs=0.005)


@pytest.mark.parametrize("seed", range(4))
def test_eq_2_by_a_generic_minimiser(seed: int) -> None:
    """scipy's BFGS on the objective of the paper, constraint left out, finds the same scores."""
    _, judgements = observer(12, 4, seed)
    matrix = preference_matrix(judgements, 12)
    found = minimize(negative_log_posterior(matrix), np.zeros(12), method="BFGS", tol=1e-7)
    np.testing.assert_allclose(thurstone_map(matrix).scores, found.x, atol=2e-5)


def test_eq_2_with_its_constraint_is_the_same() -> None:
    """SLSQP with sum(mu) = 0, as the released code solves it, agrees: the constraint is idle."""
    _, judgements = observer(8, 5, seed=9)
    matrix = preference_matrix(judgements, 8)
    found = minimize(
        negative_log_posterior(matrix),
        np.zeros(8),
        method="SLSQP",
        constraints={"type": "eq", "fun": np.sum},
        options={"ftol": 1e-13, "maxiter": 500},
    )
    np.testing.assert_allclose(thurstone_map(matrix).scores, found.x, atol=1e-5)


@pytest.mark.parametrize("position_bias", [False, True])
@pytest.mark.parametrize("method", [thurstone_map, bradley_terry])
def test_both_linear_solvers_agree(
    method: Callable[..., scaling.QualityScale],
    position_bias: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cholesky and conjugate gradients meet within their error bounds, and to 1e-8."""
    _, judgements = observer(150, 6, seed=3, bias=0.5)
    edges = Comparisons.from_judgements(judgements, 150)
    dense = method(edges, position_bias=position_bias)
    monkeypatch.setattr(scaling, "_DENSE_LIMIT", 0)
    sparse = method(edges, position_bias=position_bias)
    assert dense.error_bound is not None
    assert sparse.error_bound is not None
    distance = np.linalg.norm(dense.scores - sparse.scores)
    assert distance <= dense.error_bound + sparse.error_bound + 1e-12
    assert distance < 1e-8
    if position_bias:
        assert sparse.position_bias == pytest.approx(dense.position_bias, abs=1e-8)


@pytest.mark.parametrize("early", [1, 2, 3])
def test_the_error_bound_holds_when_stopped_early(
    early: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """|mu - mu*| <= error_bound after few steps; the record says that it did not converge."""
    _, judgements = observer(60, 8)
    edges = Comparisons.from_judgements(judgements, 60)
    optimum = thurstone_map(edges).scores
    monkeypatch.setattr(scaling, "_MAX_NEWTON_STEPS", early)
    stopped = thurstone_map(edges)
    assert stopped.error_bound is not None
    assert not stopped.converged
    assert "not converged" in stopped.warnings[-1]
    assert np.linalg.norm(stopped.scores - optimum) <= stopped.error_bound


def test_bradley_terry_agrees_with_choix() -> None:
    """choix's penalty alpha * |theta|^2 is a prior precision of 2 alpha."""
    quality, judgements = observer(15, 6, seed=5)
    decided = [(i, j, o) for i, j, o in judgements if o != 0.5]
    pairs = [(i, j) if o == 1.0 else (j, i) for i, j, o in decided]
    expected = choix.opt_pairwise(15, pairs, alpha=0.01, tol=1e-12)
    result = bradley_terry(Comparisons.from_judgements(decided, 15))
    np.testing.assert_allclose(result.scores, expected - expected.mean(), atol=1e-5)
    assert spearmanr(result.scores, quality)[0] > 0.9


def test_thurstone_mosteller_agrees_with_least_squares() -> None:
    """numpy's minimum-norm solution of the weighted equations."""
    _, judgements = observer(10, 5, seed=2)
    matrix = preference_matrix(judgements, 10)
    played = matrix + matrix.T
    rows, right = [], []
    for i, j in zip(*np.nonzero(np.triu(played)), strict=True):
        root = math.sqrt(played[i, j])
        row = np.zeros(10)
        row[i], row[j] = root, -root
        rows.append(row)
        right.append(root * ndtri((matrix[i, j] + 0.5) / (played[i, j] + 1)))
    expected = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
    result = thurstone_mosteller(matrix)
    assert result.converged
    np.testing.assert_allclose(result.scores, expected, atol=1e-8)


def test_perron_frobenius_agrees_with_a_dense_eigensolver() -> None:
    """The dominant eigenvector of the credit matrix, in logs."""
    _, judgements = observer(10, 6, seed=4)
    matrix = preference_matrix(judgements, 10)
    played = matrix + matrix.T
    credit = played * (matrix + 1) / (played + 2) / played.sum(axis=1, keepdims=True)
    values, vectors = np.linalg.eig(credit)
    log_vector = np.log(np.abs(vectors[:, np.argmax(values.real)].real))
    result = perron_frobenius(matrix)
    assert result.converged
    np.testing.assert_allclose(result.scores, log_vector - log_vector.mean(), atol=1e-8)


def test_elo_of_one_game_by_hand() -> None:
    """An even game moves both ratings by k / 2."""
    result = elo([[0, 1], [0, 0]], k=16, n_epochs=1)
    np.testing.assert_allclose(result.scores, [8.0, -8.0])


@pytest.mark.parametrize("method", METHODS)
def test_methods_recover_a_known_scale(method: str) -> None:
    """About the SRCC to the truth that facts/numerics.md, section 2, gives for 10M judgements."""
    quality, judgements = observer(150, 10, seed=1)
    result = scale(Comparisons.from_judgements(judgements, 150), method)
    assert spearmanr(result.scores, quality)[0] > 0.94
    assert result.n_components == 1
    assert not result.warnings


@pytest.mark.parametrize("n_stimuli", [50, 500, 2000])
def test_newton_needs_few_steps(n_stimuli: int) -> None:
    """At most 10 steps to the degree-scaled tolerance."""
    _, judgements = observer(n_stimuli, 8)
    result = thurstone_map(Comparisons.from_judgements(judgements, n_stimuli))
    assert result.converged
    assert result.n_iter <= 10
    assert result.grad_norm is not None
    assert result.grad_norm <= 1e-9


# --- Position bias ------------------------------------------------------------------------------


def test_position_bias_is_found_and_helps() -> None:
    """The term is fitted near the truth (shrunk) and the scale is closer to the truth."""
    quality, judgements = observer(150, 10, seed=6, bias=1.0)
    edges = Comparisons.from_judgements(judgements, 150)
    plain, fitted = thurstone_map(edges), thurstone_map(edges, position_bias=True)
    assert plain.position_bias is None
    assert fitted.position_bias == pytest.approx(0.75, abs=0.25)
    assert spearmanr(fitted.scores, quality)[0] > spearmanr(plain.scores, quality)[0]
    assert not fitted.warnings


@pytest.mark.parametrize(("bias", "place"), [(1.0, "first"), (0.0, "second")])
def test_position_bias_beyond_two_is_a_warning(bias: float, place: str) -> None:
    """An observer that always names one position."""
    judgements = [(i, j, bias) for i in range(8) for j in range(8) if i != j]
    edges = Comparisons.from_judgements(judgements, 8)
    result = thurstone_map(edges, position_bias=True)
    np.testing.assert_allclose(result.scores, 0.0, atol=1e-9)
    assert result.position_bias is not None
    assert abs(result.position_bias) > 2
    assert f"shown {place}" in result.warnings[0]


def test_position_bias_without_positions_says_so() -> None:
    """A matrix holds no order; methods without the term ignore it aloud."""
    result = thurstone_map([[0, 1], [0, 0]], position_bias=True)
    assert result.position_bias == 0.0
    assert "not identified" in result.warnings[0]
    for method in ("elo", "perron_frobenius", "thurstone_mosteller"):
        assert (
            "presentation order is ignored"
            in scale([[0, 1], [0, 0]], method, position_bias=True).warnings[0]
        )


# --- Warnings and errors ------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_disconnected_comparisons_are_a_warning(method: str) -> None:
    """The warning names the number of components and their sizes."""
    judgements = [(0, 1, 1.0), (1, 2, 1.0), (3, 4, 1.0)]
    result = scale(Comparisons.from_judgements(judgements, 6), method)
    assert result.n_components == 3
    assert result.components.tolist() == [0, 0, 0, 1, 1, 2]
    assert "3 components of sizes 3, 2, 1" in result.warnings[0]
    assert result.scores[5] == 0.0
    assert abs(result.scores[:3].sum()) < 1e-9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_stimuli", [0, 1, 3])
def test_no_comparisons_give_zeros(method: str, n_stimuli: int) -> None:
    """Nothing was asked: every stimulus is its own component, at 0."""
    result = scale(Comparisons.from_judgements([], n_stimuli), method)
    assert result.scores.tolist() == [0.0] * n_stimuli


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: preference_matrix([(0, 1, 1.7)], 2), "judgement 0.*1.7"),
        (lambda: preference_matrix([(0, 1, float("nan"))], 2), "judgement 0.*nan"),
        (lambda: preference_matrix([(0, 1, "left")], 2), "judgement 0.*'left'"),
        (lambda: preference_matrix([(0, 5, 1.0)], 3), r"second .*0\.\.2, got 5 at index 0"),
        (lambda: preference_matrix([(1, 1, 1.0)], 3), "meet itself, got 1"),
        (lambda: preference_matrix([(0, 1, 0.5)], 2, tie_weight=-1), "tie_weight.*-1"),
        (lambda: thurstone_map([[0, np.nan], [0, 0]]), r"C\[0, 1\].*nan"),
        (lambda: thurstone_map([[0, 1], [-2, 0]]), r"C\[1, 0\].*-2.0"),
        (lambda: thurstone_map([[0, 1, 2], [1, 0, 2]]), "square"),
        (lambda: thurstone_map([[0, 1], [0, 0]], prior_precision=0), "prior_precision.*0"),
        (lambda: Comparisons(np.array([0.5]), np.array([1]), np.array([1.0]), 2), "integers"),  # type: ignore[arg-type]
        (lambda: Comparisons(np.array([0]), np.array([1, 1]), np.array([1.0]), 2), "loser.*shape"),
        (
            lambda: Comparisons(np.array([0]), np.array([1]), np.array([np.inf]), 2),
            "weight.*inf at index 0",
        ),
        (lambda: pairs_from_ranking([1.0, float("nan")]), "rank must be finite.*index 1"),
        (lambda: scale([[0, 1], [0, 0]], "trueskill"), "trueskill.*bradley_terry, elo"),
        (lambda: elo([[0, 1], [0, 0]], k=0), "k must"),
    ],
)
def test_errors_name_the_value(call: Callable[[], object], message: str) -> None:
    """A ValueError says what was wrong and where."""
    with pytest.raises(ValueError, match=message):
        call()
