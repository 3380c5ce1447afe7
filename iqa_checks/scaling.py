"""Judgements as arrays -> one quality scale. Knows nothing of images, models or pytest.

Every method takes :class:`Comparisons` (or a dense preference matrix), returns a
:class:`QualityScale` with higher = better, and is deterministic: the order in which judgements
arrive changes nothing. ``SCALINGS`` lists the methods by name.

Sources: "Wu et al. 2024" is *A Comprehensive Study of Multimodal Large Language Models for Image
Quality Assessment*; Eq. 1 is its preference matrix, Eq. 2 its maximum a posteriori scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "SCALINGS",
    "Comparisons",
    "Judgement",
    "Outcome",
    "QualityScale",
    "Scaling",
    "bradley_terry",
    "elo",
    "pairs_from_ranking",
    "perron_frobenius",
    "preference_matrix",
    "scale",
    "thurstone_map",
    "thurstone_mosteller",
]

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
Outcome: TypeAlias = float | Literal["first", "second", "comparable"]
Judgement: TypeAlias = tuple[int, int, Outcome]

_OUTCOME_WORDS = {"first": 1.0, "second": 0.0, "comparable": 0.5}

# Up to this many stimuli a dense Cholesky step is cheaper than conjugate gradients.
_DENSE_LIMIT = 200
_MAX_NEWTON_STEPS = 100
_MAX_POWER_ITERATIONS = 10_000
_POSITION_BIAS_LIMIT = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Comparisons:
    """Pair comparisons as weighted edges from winner to loser.

    Attributes
    ----------
    winner, loser : (E,) int64
        Stimulus indices in ``0 .. n_stimuli - 1``.
    weight : (E,) float64
        How many wins the edge stands for; finite, >= 0. A tie is an edge in each direction.
    n_stimuli : int
        Number of stimuli M, compared or not.
    position : (E,) int8, optional
        +1 when the winner was shown first, -1 when it was shown second, 0 when unknown (default).

    Raises
    ------
    ValueError
        Lengths differ, an index is no stimulus, a stimulus meets itself, a weight is negative or
        not finite, or a position is not -1, 0 or +1.
    """

    winner: IntArray
    loser: IntArray
    weight: FloatArray
    n_stimuli: int
    position: NDArray[np.int8] | None = None

    def __post_init__(self) -> None:
        winner = _indices(self.winner, "winner", self.n_stimuli)
        loser = _indices(self.loser, "loser", self.n_stimuli)
        weight = np.asarray(self.weight, dtype=np.float64)
        position = np.zeros(winner.shape, np.int8) if self.position is None else self.position
        position = np.asarray(position)
        for name, column in (("loser", loser), ("weight", weight), ("position", position)):
            if column.shape != winner.shape:
                raise ValueError(f"{name} has shape {column.shape}, expected {winner.shape}")
        _refuse(winner == loser, winner, "a stimulus cannot meet itself")
        _refuse(~(np.isfinite(weight) & (weight >= 0)), weight, "weight must be finite and >= 0")
        _refuse(~np.isin(position, (-1, 0, 1)), position, "position must be -1, 0 or +1")
        object.__setattr__(self, "winner", winner)
        object.__setattr__(self, "loser", loser)
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "position", position.astype(np.int8))

    def __len__(self) -> int:
        return len(self.winner)

    @classmethod
    def from_judgements(
        cls,
        judgements: Iterable[Judgement],
        n_stimuli: int,
        *,
        tie_weight: float = 0.5,
        ordered: bool = True,
    ) -> Comparisons:
        """Edges of ``(first, second, outcome)`` judgements, duplicates merged.

        Parameters
        ----------
        judgements
            `outcome` is 1.0 or 'first' when the first stimulus won, 0.0 or 'second' when the
            second did, 0.5 or 'comparable' for a tie; a share between is so much of a win.
        n_stimuli
            Number of stimuli M.
        tie_weight
            Wins each side gets from a tie: 0.5 (preset `sound`) or 1.0 (preset `paper`).
        ordered
            Whether "first" means "shown first". False for pairs read from a ranked list.
        """
        if not (np.isfinite(tie_weight) and tie_weight >= 0):
            raise ValueError(f"tie_weight must be finite and >= 0, got {tie_weight}")
        rows = [(first, second, _outcome(o, n)) for n, (first, second, o) in enumerate(judgements)]
        # Checked here too, so that an error counts judgements and not edges.
        first = _indices([row[0] for row in rows], "first", n_stimuli)
        second = _indices([row[1] for row in rows], "second", n_stimuli)
        outcome = np.array([row[2] for row in rows])
        to_first = np.where(outcome == 0.5, tie_weight, outcome)
        to_second = np.where(outcome == 0.5, tie_weight, 1.0 - outcome)
        shown = np.full(len(rows), 1 if ordered else 0, np.int8)
        return cls(
            winner=np.concatenate([first, second]),
            loser=np.concatenate([second, first]),
            weight=np.concatenate([to_first, to_second]),
            n_stimuli=n_stimuli,
            position=np.concatenate([shown, -shown]),
        ).merged()

    @classmethod
    def from_matrix(cls, matrix: ArrayLike) -> Comparisons:
        """Edges of a preference matrix, ``C[i, j]`` = times i beat j; the diagonal is ignored.

        Raises
        ------
        ValueError
            The matrix is not square, or an entry off the diagonal is negative or not finite.
        """
        dense = np.array(matrix, dtype=np.float64)
        if dense.ndim != 2 or dense.shape[0] != dense.shape[1]:
            raise ValueError(f"preference matrix must be square, got shape {dense.shape}")
        np.fill_diagonal(dense, 0.0)
        bad = np.argwhere(~(np.isfinite(dense) & (dense >= 0)))
        if len(bad):
            i, j = (int(k) for k in bad[0])
            raise ValueError(f"C[{i}, {j}] must be finite and >= 0, got {dense[i, j]}")
        winner, loser = np.nonzero(dense)
        return cls(winner, loser, dense[winner, loser], len(dense))

    def merged(self) -> Comparisons:
        """The same comparisons sorted by (winner, loser, position), one edge each, none empty."""
        position = _positions(self)
        key = (self.winner * self.n_stimuli + self.loser) * 3 + position
        if np.all(np.diff(key) > 0) and np.all(self.weight > 0):
            return self
        order = np.argsort(key, kind="stable")
        order = order[self.weight[order] > 0]
        starts = np.flatnonzero(np.diff(key[order], prepend=-2))
        keep = order[starts]
        weight = np.add.reduceat(self.weight[order], starts) if len(keep) else np.empty(0)
        return Comparisons(
            self.winner[keep], self.loser[keep], weight, self.n_stimuli, position[keep]
        )

    def matrix(self) -> FloatArray:
        """The dense (M, M) preference matrix of Eq. 1 of Wu et al. 2024."""
        cells = self.winner * self.n_stimuli + self.loser
        dense = _sums(cells, self.weight, self.n_stimuli**2)
        return dense.reshape(self.n_stimuli, self.n_stimuli)


@dataclass(frozen=True, slots=True, eq=False)
class QualityScale:
    """Scores on one scale, higher = better, and how far they can be trusted.

    Attributes
    ----------
    scores : (M,) float64
        Sum to zero in every component. Units by method: standard deviations of a comparison
        (Thurstone), logits (Bradley-Terry), rating points (Elo), log eigenvector.
    grad_norm : float or None
        Largest absolute residual of the equations solved; None when the method has none.
    error_bound : float or None
        Upper bound on the Euclidean distance to the optimum; None when the method has none.
    components : (M,) int64
        Component label of each stimulus; scores of different components do not compare.
    n_components, n_iter : int
    position_bias : float or None
        Advantage of being shown first, in score units; None when it was not fitted.
    converged : bool
    warnings : tuple of str
        What a reader of the scores should know.
    """

    scores: FloatArray
    grad_norm: float | None
    error_bound: float | None
    components: IntArray
    n_components: int
    n_iter: int
    position_bias: float | None
    converged: bool
    warnings: tuple[str, ...]


class Scaling(Protocol):
    """A method of ``SCALINGS``; one without a position-bias term says so in ``warnings``."""

    def __call__(
        self, comparisons: Comparisons | ArrayLike, *, position_bias: bool = False
    ) -> QualityScale: ...


def preference_matrix(
    judgements: Iterable[Judgement], n_stimuli: int, tie_weight: float = 0.5
) -> FloatArray:
    """Preference matrix of pair judgements, Eq. 1 of Wu et al. 2024.

    Parameters
    ----------
    judgements
        ``(first, second, outcome)`` with outcome 1.0 / 'first', 0.0 / 'second',
        0.5 / 'comparable'.
    n_stimuli
        Number of stimuli M.
    tie_weight
        Wins each side gets from a tie.

    Returns
    -------
    (M, M) float64
        ``C[i, j]`` = times i beat j; zero diagonal.
    """
    return Comparisons.from_judgements(judgements, n_stimuli, tie_weight=tie_weight).matrix()


def pairs_from_ranking(ranks: Sequence[float]) -> list[tuple[int, int, float]]:
    """The L(L - 1)/2 judgements that a ranked list of L stimuli contains.

    Parameters
    ----------
    ranks : length L
        Rank of each stimulus in presentation order, higher = better; equal ranks are a tie.

    Returns
    -------
    list of (i, j, outcome)
        Positions i < j in the list; outcome 1.0, 0.0 or 0.5 as in `preference_matrix`.
    """
    values = np.asarray(ranks, dtype=np.float64)
    _refuse(~np.isfinite(values), values, "rank must be finite")
    i, j = np.triu_indices(len(values), 1)
    outcome = 0.5 + 0.5 * np.sign(values[i] - values[j])
    return list(zip(i.tolist(), j.tolist(), outcome.tolist(), strict=True))


# --- Maximum a posteriori scales: Newton's method on the edges --------------------------------

# (derivative, negative second derivative) of the log-likelihood of a win, by score difference
_Link: TypeAlias = Callable[[FloatArray], tuple[FloatArray, FloatArray]]


def thurstone_map(
    comparisons: Comparisons | ArrayLike,
    *,
    prior_precision: float = 1.0,
    position_bias: bool = False,
) -> QualityScale:
    """Maximum a posteriori Thurstone Case V scale, Eq. 2 of Wu et al. 2024.

    Maximises ``sum C_ij log Phi(mu_i - mu_j) - prior_precision / 2 * sum mu_i^2``. The sum-to-zero
    constraint of Eq. 2 is left out because the prior implies it.

    Parameters
    ----------
    comparisons
        `Comparisons`, or a dense (M, M) preference matrix with ``C[i, j]`` = times i beat j.
    prior_precision
        Inverse variance of the Gaussian prior on each score; > 0.
    position_bias
        Fit one term, prior N(0, 1), added to the score of the stimulus shown first.

    Returns
    -------
    QualityScale
        Scores in standard deviations of one comparison. Stimuli never compared get exactly 0.

    Raises
    ------
    ValueError
        Bad comparisons, or `prior_precision` is not finite and positive.
    """
    return _posterior_mode(comparisons, _probit, prior_precision, position_bias)


def bradley_terry(
    comparisons: Comparisons | ArrayLike,
    *,
    prior_precision: float = 0.02,
    position_bias: bool = False,
) -> QualityScale:
    """Bradley-Terry scale in logits, with a weak Gaussian prior so that sparse data have one.

    Parameters as in `thurstone_map`. `prior_precision` is twice the `alpha` of choix's
    ``opt_pairwise``, which minimises ``-log L + alpha * sum theta^2``.
    """
    return _posterior_mode(comparisons, _logit, prior_precision, position_bias)


def _probit(difference: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``h = phi(d) / Phi(d)`` and ``h (h + d)``."""
    from scipy.special import erfcx

    # erfcx keeps the ratio exact to rounding where Phi itself underflows (d < -38).
    ratio = np.sqrt(2 / np.pi) / erfcx(difference * -np.sqrt(0.5))
    return ratio, np.clip(ratio * (ratio + difference), 0.0, 1.0)


def _logit(difference: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``p = 1 / (1 + exp(d))`` and ``p (1 - p)``."""
    from scipy.special import expit

    loss = expit(-difference)
    return loss, loss * expit(difference)


@dataclass(frozen=True, slots=True, eq=False)
class _Posterior:
    """Log-likelihood of the edges plus independent Gaussian priors.

    The unknowns are the M scores and, when `position` is given, the position bias behind them.
    """

    edges: Comparisons
    link: _Link
    precision: FloatArray
    position: FloatArray | None

    def gradient(self, unknowns: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Gradient at `unknowns`, and the (E,) negative curvature of each edge's term."""
        edges, n = self.edges, self.edges.n_stimuli
        difference = unknowns[edges.winner] - unknowns[edges.loser]
        if self.position is not None:
            difference += unknowns[n] * self.position
        pull, curvature = self.link(difference)
        pull *= edges.weight
        curvature *= edges.weight
        return self._to_unknowns(pull) - self.precision * unknowns, curvature

    def newton_step(
        self, gradient: FloatArray, curvature: FloatArray, tolerance: float
    ) -> FloatArray:
        """Solve ``H step = gradient`` to a residual of at most `tolerance` (Euclidean)."""
        if self.edges.n_stimuli <= _DENSE_LIMIT:
            return self._cholesky_step(gradient, curvature)
        return self._conjugate_gradient_step(gradient, curvature, tolerance)

    def _to_unknowns(self, per_edge: FloatArray) -> FloatArray:
        """Sum (E,) edge terms into the unknowns: + for the winner, - for the loser."""
        edges, n = self.edges, self.edges.n_stimuli
        total = _sums(edges.winner, per_edge, n) - _sums(edges.loser, per_edge, n)
        if self.position is None:
            return total
        return np.append(total, self.position @ per_edge)

    def _border(self, curvature: FloatArray) -> tuple[FloatArray, float]:
        """The position-bias row of the Hessian: its score part and its diagonal entry."""
        if self.position is None:
            return np.empty(0), 0.0
        row = self._to_unknowns(self.position * curvature)
        return row[:-1], float(np.square(self.position) @ curvature)

    def _cholesky_step(self, gradient: FloatArray, curvature: FloatArray) -> FloatArray:
        from scipy.linalg import cho_factor, cho_solve

        edges, n = self.edges, self.edges.n_stimuli
        couplings = _sums(edges.winner * n + edges.loser, curvature, n * n).reshape(n, n)
        hessian = np.diag(self.precision)
        hessian[:n, :n] -= couplings + couplings.T
        hessian[range(n), range(n)] += _degrees(self.edges, curvature)
        if self.position is not None:
            row, corner = self._border(curvature)
            hessian[n, :n] = hessian[:n, n] = row
            hessian[n, n] += corner
        factor = cho_factor(hessian, overwrite_a=True, check_finite=False)
        step: FloatArray = cho_solve(factor, gradient, check_finite=False)
        return step

    def _conjugate_gradient_step(
        self, gradient: FloatArray, curvature: FloatArray, tolerance: float
    ) -> FloatArray:
        n = self.edges.n_stimuli
        diagonal = self.precision.copy()
        diagonal[:n] += _degrees(self.edges, curvature)
        forward, backward = _edge_matrices(self.edges, curvature)
        row, corner = self._border(curvature)
        diagonal[n:] += corner

        def times(x: FloatArray) -> FloatArray:
            product = diagonal * x
            product[:n] -= forward @ x[:n]
            product[:n] -= backward @ x[:n]
            if self.position is not None:
                product[:n] += row * x[n]
                product[n] += row @ x[:n]
            return product

        return _conjugate_gradients(times, diagonal, gradient, tolerance)


def _edge_matrices(edges: Comparisons, values: FloatArray) -> tuple[Any, Any]:
    """Sparse (M, M) matrices winner -> loser and loser -> winner over the same arrays.

    Edges sorted by winner are a compressed row matrix as they stand, and read by column its
    transpose: no matrix is assembled, and products run several times faster than with bincount.
    """
    from scipy.sparse import csc_array, csr_array

    n = edges.n_stimuli
    pointers = np.concatenate([[0], np.cumsum(np.bincount(edges.winner, minlength=n))])
    parts = (values, edges.loser.astype(np.int32), pointers.astype(np.int32))
    return csr_array(parts, shape=(n, n)), csc_array(parts, shape=(n, n))


def _conjugate_gradients(
    times: Callable[[FloatArray], FloatArray],
    diagonal: FloatArray,
    target: FloatArray,
    tolerance: float,
) -> FloatArray:
    """Solve ``A x = target``, A positive (semi)definite, with Jacobi preconditioning."""
    x = np.zeros_like(target)
    residual = target.copy()
    direction = residual / diagonal
    slope = residual @ direction
    for _ in range(10 * len(target)):
        if float(np.sqrt(residual @ residual)) <= tolerance:
            break
        product = times(direction)
        length = slope / (direction @ product)
        x += length * direction
        residual -= length * product
        scaled = residual / diagonal
        slope, previous = residual @ scaled, slope
        direction *= slope / previous
        direction += scaled
    return x


@dataclass(frozen=True, slots=True, eq=False)
class _Optimum:
    unknowns: FloatArray
    gradient: FloatArray
    n_iter: int
    converged: bool


def _maximise(posterior: _Posterior, tolerance: float) -> _Optimum:
    """Newton's method from zero until the largest gradient entry is at most `tolerance`.

    Steps are accepted on the gradient norm: near the optimum, differences of the objective are
    below its rounding error, and a line search on them stalls.
    """
    unknowns = np.zeros_like(posterior.precision)
    gradient, curvature = posterior.gradient(unknowns)
    start = norm = float(np.linalg.norm(gradient))
    for n_iter in range(_MAX_NEWTON_STEPS):
        if np.max(np.abs(gradient), initial=0.0) <= tolerance:
            return _Optimum(unknowns, gradient, n_iter, True)
        # Solving tighter as the gradient shrinks keeps Newton's quadratic convergence.
        forcing = max(min(0.1, norm / start) * norm, 0.1 * tolerance)
        step = posterior.newton_step(gradient, curvature, forcing)
        size = 1.0
        while True:
            candidate = unknowns + size * step
            new_gradient, new_curvature = posterior.gradient(candidate)
            new_norm = float(np.linalg.norm(new_gradient))
            if new_norm < (1 - 1e-4 * size) * norm:
                break
            size /= 2
            if size < 1e-9:  # the gradient is at its rounding floor
                return _Optimum(unknowns, gradient, n_iter, False)
        unknowns, gradient, curvature, norm = candidate, new_gradient, new_curvature, new_norm
    return _Optimum(unknowns, gradient, _MAX_NEWTON_STEPS, False)


def _posterior_mode(
    comparisons: Comparisons | ArrayLike,
    link: _Link,
    prior_precision: float,
    position_bias: bool,
) -> QualityScale:
    if not (np.isfinite(prior_precision) and prior_precision > 0):
        raise ValueError(f"prior_precision must be finite and > 0, got {prior_precision}")
    edges = _as_comparisons(comparisons).merged()
    position = _positions(edges).astype(np.float64) if position_bias else None
    precision = np.full(edges.n_stimuli + position_bias, float(prior_precision))
    if position_bias:
        precision[-1] = 1.0
    posterior = _Posterior(edges, link, precision, position)
    optimum = _maximise(posterior, _gradient_tolerance(edges))

    bias = float(optimum.unknowns[-1]) if position_bias else None
    warnings = [] if bias is None else _position_warnings(edges, bias)
    largest = float(np.max(np.abs(optimum.gradient), initial=0.0))
    if not optimum.converged:
        warnings.append(f"not converged: largest gradient entry {largest:.3g}")
    # Strong concavity: |x - x*| <= |gradient| / smallest prior precision.
    bound = float(np.linalg.norm(optimum.gradient) / np.min(precision, initial=np.inf))
    return _quality_scale(
        edges,
        optimum.unknowns[: edges.n_stimuli],
        grad_norm=largest,
        error_bound=bound,
        n_iter=optimum.n_iter,
        position_bias=bias,
        converged=optimum.converged,
        warnings=warnings,
    )


def _gradient_tolerance(edges: Comparisons) -> float:
    """Rounding error of the gradient grows with the weight that meets in one stimulus."""
    degree = _degrees(edges, edges.weight)
    return max(1e-9, 64 * float(np.finfo(float).eps) * float(np.max(degree, initial=0.0)))


def _position_warnings(edges: Comparisons, bias: float) -> list[str]:
    if not np.any(_positions(edges)):
        return ["position bias not identified: no comparison says which stimulus was shown first"]
    if abs(bias) > _POSITION_BIAS_LIMIT:
        place = "first" if bias > 0 else "second"
        return [
            f"position bias {bias:+.2f} exceeds {_POSITION_BIAS_LIMIT:g} in size: "
            f"answers favour the stimulus shown {place} more than quality explains"
        ]
    return []


# --- Thurstone-Mosteller, Perron-Frobenius, Elo -----------------------------------------------


def thurstone_mosteller(
    comparisons: Comparisons | ArrayLike, *, position_bias: bool = False
) -> QualityScale:
    """Thurstone Case V by Mosteller's (1951) least squares, for incomplete data.

    The probit of each compared pair's win rate estimates its score difference; the scores are the
    least-squares fit, each pair weighted by its number of comparisons. Win rates are
    ``(wins + 1/2) / (comparisons + 1)``, which keeps unanimous pairs finite.

    Raises
    ------
    ValueError
        Bad comparisons.
    """
    from scipy.special import ndtri

    edges = _as_comparisons(comparisons).merged()
    pairs = _pairs(edges)
    played = pairs.first_wins + pairs.second_wins
    target = played * ndtri((pairs.first_wins + 0.5) / (played + 1))
    n = edges.n_stimuli
    right = _sums(pairs.first, target, n) - _sums(pairs.second, target, n)
    coupling = _sparse(pairs, played, played, n)
    degree = _sums(pairs.first, played, n) + _sums(pairs.second, played, n)

    def times(x: FloatArray) -> FloatArray:
        product: FloatArray = degree * x - coupling @ x
        return product

    # Singular along each component's constant, which centring fixes afterwards.
    diagonal = np.where(degree > 0, degree, 1.0)
    tolerance = max(1e-12, 64 * float(np.finfo(float).eps)) * float(np.linalg.norm(right))
    scores = _conjugate_gradients(times, diagonal, right, tolerance)
    residual = float(np.max(np.abs(right - times(scores)), initial=0.0))
    return _quality_scale(
        edges,
        scores,
        grad_norm=residual,
        n_iter=1,
        converged=bool(residual <= 100 * tolerance),
        warnings=_order_ignored(position_bias, "thurstone_mosteller"),
    )


def perron_frobenius(
    comparisons: Comparisons | ArrayLike, *, position_bias: bool = False
) -> QualityScale:
    """Logarithm of the Perron vector of the preference matrix (Keener, SIAM Review 1993).

    A stimulus is good when it beats good ones: ``r_i`` is proportional to the mean over its
    comparisons of ``(C_ij + 1) / (C_ij + C_ji + 2) * r_j``. Laplace's rule makes the matrix
    irreducible within a component, so a stimulus without a win keeps a finite score.

    Raises
    ------
    ValueError
        Bad comparisons.
    """
    edges = _as_comparisons(comparisons).merged()
    n = edges.n_stimuli
    pairs = _pairs(edges)
    credit = _keener_credit(pairs, n)
    labels, n_components = _components(edges)
    log_vector, change, n_iter = _perron_vector(credit, labels, n_components)
    warnings = _order_ignored(position_bias, "perron_frobenius")
    converged = change <= 1e-9
    if not converged:
        warnings.append(f"not converged: scores still move by {change:.3g} an iteration")
    return _quality_scale(
        edges, log_vector, grad_norm=change, n_iter=n_iter, converged=converged, warnings=warnings
    )


def _perron_vector(
    credit: Any, labels: IntArray, n_components: int
) -> tuple[FloatArray, float, int]:
    """Log Perron vector of each component by power iteration; last change, and iterations."""
    log_vector = np.zeros(len(labels))
    change = 0.0
    for n_iter in range(1, _MAX_POWER_ITERATIONS + 1):
        vector = np.exp(log_vector)
        # Adding the vector itself keeps the iteration from oscillating on bipartite graphs.
        updated = _centred(np.log(credit @ vector + 0.5 * vector), labels, n_components)
        change = float(np.max(np.abs(updated - log_vector), initial=0.0))
        log_vector = updated
        if change <= 1e-12:
            return log_vector, change, n_iter
    return log_vector, change, _MAX_POWER_ITERATIONS


def elo(
    comparisons: Comparisons | ArrayLike,
    *,
    k: float = 16.0,
    n_epochs: int = 10,
    position_bias: bool = False,
) -> QualityScale:
    """Elo ratings (400 points = odds of 10 to 1), centred on zero.

    Elo depends on the order of play, and judgements have none that means anything. So the merged
    edges are played `n_epochs` times, each time in an order shuffled with a fixed seed, and the
    ratings after each of the last half of the epochs are averaged. An edge moves a rating by at
    most `k` times its weight relative to the heaviest edge.

    Parameters
    ----------
    comparisons
        `Comparisons` or a dense preference matrix.
    k
        Largest change of a rating by one edge, in points; > 0.
    n_epochs
        Times that the edges are played; >= 1.
    position_bias
        Elo has no such term; True is noted in ``warnings``.

    Raises
    ------
    ValueError
        Bad comparisons, `k` or `n_epochs`.
    """
    if not (np.isfinite(k) and k > 0):
        raise ValueError(f"k must be finite and > 0, got {k}")
    if n_epochs < 1:
        raise ValueError(f"n_epochs must be at least 1, got {n_epochs}")
    edges = _as_comparisons(comparisons).merged()
    gain = k * edges.weight / np.max(edges.weight, initial=1e-300)
    rng = np.random.default_rng(0)
    ratings = [0.0] * edges.n_stimuli
    total = np.zeros(edges.n_stimuli)
    for epoch in range(n_epochs):
        order = rng.permutation(len(edges))
        _play(ratings, edges.winner[order], edges.loser[order], gain[order])
        if epoch >= n_epochs // 2:
            total += ratings
    return _quality_scale(
        edges,
        total / (n_epochs - n_epochs // 2),
        n_iter=n_epochs,
        warnings=_order_ignored(position_bias, "elo"),
    )


def _play(ratings: list[float], winner: IntArray, loser: IntArray, gain: FloatArray) -> None:
    """Play games in the order given, updating `ratings` in place."""
    # Each game depends on the one before it: plain floats are faster here than array elements.
    for i, j, step in zip(winner.tolist(), loser.tolist(), gain.tolist(), strict=True):
        change = step / (1.0 + 10.0 ** min((ratings[i] - ratings[j]) / 400.0, 300.0))
        ratings[i] += change
        ratings[j] -= change


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """Compared pairs, first < second, with the wins of either side; (P,) arrays."""

    first: IntArray
    second: IntArray
    first_wins: FloatArray
    second_wins: FloatArray


def _pairs(edges: Comparisons) -> _Pairs:
    low = np.minimum(edges.winner, edges.loser)
    high = np.maximum(edges.winner, edges.loser)
    key, slot = np.unique(low * edges.n_stimuli + high, return_inverse=True)
    by_low = edges.winner == low
    return _Pairs(
        key // max(edges.n_stimuli, 1),
        key % max(edges.n_stimuli, 1),
        _sums(slot, edges.weight * by_low, len(key)),
        _sums(slot, edges.weight * ~by_low, len(key)),
    )


def _sparse(pairs: _Pairs, to_first: FloatArray, to_second: FloatArray, n: int) -> Any:
    """Sparse (n, n) matrix with `to_first` at [first, second], `to_second` at [second, first]."""
    from scipy.sparse import coo_array

    rows = np.concatenate([pairs.first, pairs.second])
    columns = np.concatenate([pairs.second, pairs.first])
    values = np.concatenate([to_first, to_second])
    return coo_array((values, (rows, columns)), shape=(n, n)).tocsr()


def _keener_credit(pairs: _Pairs, n: int) -> Any:
    """Row i: smoothed win rates of i, weighted by comparisons and divided by their number."""
    played = pairs.first_wins + pairs.second_wins
    degree = _sums(pairs.first, played, n) + _sums(pairs.second, played, n)
    share = played / (played + 2)
    return _sparse(
        pairs,
        share * (pairs.first_wins + 1) / degree[pairs.first],
        share * (pairs.second_wins + 1) / degree[pairs.second],
        n,
    )


def _order_ignored(position_bias: bool, method: str) -> list[str]:
    if not position_bias:
        return []
    return [f"{method} has no position-bias term: presentation order is ignored"]


# --- Shared by all methods --------------------------------------------------------------------


def _quality_scale(
    edges: Comparisons,
    scores: FloatArray,
    *,
    grad_norm: float | None = None,
    error_bound: float | None = None,
    n_iter: int,
    position_bias: float | None = None,
    converged: bool = True,
    warnings: Sequence[str] = (),
) -> QualityScale:
    labels, n_components = _components(edges)
    return QualityScale(
        scores=_centred(scores, labels, n_components),
        grad_norm=grad_norm,
        error_bound=error_bound,
        components=labels,
        n_components=n_components,
        n_iter=n_iter,
        position_bias=position_bias,
        converged=converged,
        warnings=(*_component_warnings(labels, n_components), *warnings),
    )


def _components(edges: Comparisons) -> tuple[IntArray, int]:
    """Component label of each stimulus, by smallest member, and the number of components."""
    from scipy.sparse.csgraph import connected_components

    forward, _ = _edge_matrices(edges, np.ones(len(edges)))
    n_components, labels = connected_components(forward, directed=True, connection="weak")
    return labels.astype(np.int64), int(n_components)


def _component_warnings(labels: IntArray, n_components: int) -> list[str]:
    if n_components <= 1:
        return []
    sizes = np.sort(np.bincount(labels))[::-1].tolist()
    listed = ", ".join(map(str, sizes[:8])) + (", ..." if len(sizes) > 8 else "")
    return [
        f"the comparisons fall into {n_components} components of sizes {listed}: "
        "scores of different components do not compare"
    ]


def _centred(scores: FloatArray, labels: IntArray, n_components: int) -> FloatArray:
    """Subtract each component's mean; exact zeros for stimuli alone in theirs."""
    sizes = np.bincount(labels, minlength=n_components)
    means = _sums(labels, scores, n_components) / np.maximum(sizes, 1)
    centred: FloatArray = scores - means[labels]
    return centred


def _sums(index: IntArray, values: FloatArray, n: int) -> FloatArray:
    """Sum of `values` at each index 0 .. n - 1."""
    return np.bincount(index, values, n).astype(np.float64, copy=False)


def _degrees(edges: Comparisons, values: FloatArray) -> FloatArray:
    """Sum of the edge `values` that meet in each stimulus."""
    n = edges.n_stimuli
    return _sums(edges.winner, values, n) + _sums(edges.loser, values, n)


def _as_comparisons(comparisons: Comparisons | ArrayLike) -> Comparisons:
    if isinstance(comparisons, Comparisons):
        return comparisons
    return Comparisons.from_matrix(comparisons)


def _positions(edges: Comparisons) -> NDArray[np.int8]:
    position = edges.position
    return np.zeros(len(edges), np.int8) if position is None else position


def _outcome(outcome: Outcome, row: int) -> float:
    value = _OUTCOME_WORDS.get(outcome) if isinstance(outcome, str) else float(outcome)
    if value is None or not 0.0 <= value <= 1.0:
        expected = "1.0 ('first'), 0.0 ('second'), 0.5 ('comparable') or a share between"
        raise ValueError(f"judgement {row}: outcome must be {expected}, got {outcome!r}")
    return float(value)


def _indices(values: ArrayLike, name: str, n_stimuli: int) -> IntArray:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {array.shape}")
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers, got {array.dtype}")
    array = array.astype(np.int64)
    _refuse((array < 0) | (array >= n_stimuli), array, f"{name} must be in 0..{n_stimuli - 1}")
    return array


def _refuse(bad: NDArray[np.bool_], values: NDArray[Any], rule: str) -> None:
    """Raise a ValueError that names the first bad value and where it is."""
    where = np.flatnonzero(bad)
    if len(where):
        raise ValueError(f"{rule}, got {values[where[0]]} at index {where[0]}")


SCALINGS: dict[str, Scaling] = {
    "thurstone_map": thurstone_map,
    "thurstone_mosteller": thurstone_mosteller,
    "perron_frobenius": perron_frobenius,
    "elo": elo,
    "bradley_terry": bradley_terry,
}


def scale(
    comparisons: Comparisons | ArrayLike,
    method: str = "thurstone_map",
    *,
    position_bias: bool = False,
) -> QualityScale:
    """Scale comparisons with a method of ``SCALINGS``.

    Raises
    ------
    ValueError
        Bad comparisons, or a name that ``SCALINGS`` does not hold; the message lists those it does.
    """
    if method not in SCALINGS:
        raise ValueError(f"unknown scaling {method!r}; known: {', '.join(sorted(SCALINGS))}")
    return SCALINGS[method](comparisons, position_bias=position_bias)
