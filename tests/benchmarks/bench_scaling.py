"""Cost of `thurstone_map`, in passes over the edges, beside scipy's L-BFGS-B and choix.

Run ``OMP_NUM_THREADS=1 python tests/benchmarks/bench_scaling.py [--quick]``. A pass is one
evaluation of the objective and gradient of Eq. 2 of Wu et al. 2024 over the edges; it and the
solvers are timed in the same run, so that the ratios do not depend on the machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import choix
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_ndtr

from iqa_checks.scaling import Comparisons, thurstone_map

FloatArray = NDArray[np.float64]

# choix loops over a Python list and builds dense matrices: slow, and M x M in memory, above this.
CHOIX_LIMIT = 1_000
L_BFGS_LIMIT = 10_000


def simulated(n_stimuli: int, n_judgements: int | None, seed: int) -> Comparisons:
    """Judgements of a Thurstone observer (true SD 1.5, about 10 % ties); None: every pair once."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(0, 1.5, n_stimuli)
    if n_judgements is None:
        first, second = np.triu_indices(n_stimuli, 1)
    else:
        first = rng.integers(0, n_stimuli, n_judgements)
        second = (first + rng.integers(1, n_stimuli, n_judgements)) % n_stimuli
    answer = quality[first] - quality[second] + rng.normal(size=len(first))
    wins = np.where(np.abs(answer) < 0.2, 0.5, (answer > 0).astype(float))
    return Comparisons(
        winner=np.concatenate([first, second]),
        loser=np.concatenate([second, first]),
        weight=np.concatenate([wins, 1 - wins]),
        n_stimuli=n_stimuli,
    ).merged()


def one_pass(edges: Comparisons, scores: FloatArray) -> tuple[float, FloatArray]:
    """Negative log posterior of Eq. 2 and its gradient."""
    difference = scores[edges.winner] - scores[edges.loser]
    log_win = log_ndtr(difference)
    ratio = np.exp(-0.5 * difference**2 - 0.5 * np.log(2 * np.pi) - log_win) * edges.weight
    gradient = scores - np.bincount(edges.winner, ratio, edges.n_stimuli)
    gradient += np.bincount(edges.loser, ratio, edges.n_stimuli)
    return float(0.5 * scores @ scores - edges.weight @ log_win), gradient


def best_seconds(call: Callable[[], object], budget_s: float = 0.5) -> float:
    """Shortest of at least two calls, repeated for about `budget_s`."""
    times: list[float] = []
    end = time.perf_counter() + budget_s
    while len(times) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def l_bfgs(edges: Comparisons) -> FloatArray:
    """Scores by L-BFGS-B with tight tolerances."""
    options = {"maxiter": 5_000, "maxfun": 10_000, "ftol": 0.0, "gtol": 1e-9}
    found = minimize(
        lambda x: one_pass(edges, x),
        np.zeros(edges.n_stimuli),
        jac=True,
        method="L-BFGS-B",
        options=options,
    )
    return np.asarray(found.x)


def row(name: str, edges: Comparisons) -> str:
    """One line of the table."""
    scale = thurstone_map(edges)
    pass_s = best_seconds(lambda: one_pass(edges, scale.scores))
    newton_s = best_seconds(lambda: thurstone_map(edges))
    cells = [
        f"{name:<10}{edges.n_stimuli:>8,}{len(edges):>9,}{pass_s * 1e3:>10.3f}",
        f"{scale.n_iter:>7}{newton_s * 1e3:>10.2f}{newton_s / pass_s:>8.1f}",
        f"{scale.grad_norm:>10.0e}",
    ]
    if edges.n_stimuli <= L_BFGS_LIMIT:
        found = l_bfgs(edges)
        l_bfgs_s = best_seconds(lambda: l_bfgs(edges))
        _, gradient = one_pass(edges, found)
        cells.append(f"{l_bfgs_s / pass_s:>10.1f}{np.max(np.abs(gradient)):>10.0e}")
    if edges.n_stimuli <= CHOIX_LIMIT:
        pairs = list(zip(edges.winner.tolist(), edges.loser.tolist(), strict=True))
        choix_s = best_seconds(
            lambda: choix.ilsr_pairwise(edges.n_stimuli, pairs, alpha=0.01), budget_s=0
        )
        cells.append(f"{choix_s / pass_s:>10.0f}")
    return "".join(cells)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out M > 1,000")
    quick = parser.parse_args().quick
    print("Newton, L-BFGS-B and choix (Bradley-Terry by ILSR) in passes; [g] = largest gradient")
    print(
        f"{'design':<10}{'M':>8}{'edges':>9}{'pass, ms':>10}{'steps':>7}{'ms':>10}{'passes':>8}"
        f"{'[g]':>10}{'L-BFGS':>10}{'[g]':>10}{'choix':>10}"
    )
    for n in (50, 150, 500, 1_000) if quick else (50, 150, 500, 1_000, 3_000, 10_000):
        print(row("~16/item", simulated(n, 8 * n, seed=n)), flush=True)
    for n in (50, 150, 500):
        print(row("all pairs", simulated(n, None, seed=n)), flush=True)
    if not quick:
        print(row("large", simulated(100_000, 775_000, seed=1)), flush=True)


if __name__ == "__main__":
    main()
