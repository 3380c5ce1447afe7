"""Cost of difficult selection over its floor: N matrix-vector products with the feature matrix.

Run ``python tests/benchmarks/bench_selection.py [--million]``. Both are timed in the same run, so
that the ratios do not depend on the machine. ``--million`` writes a memory-mapped file of
1,000,000 x 512 float32 (2 GB, deleted afterwards) and reports the memory that selection adds.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iqa_checks.greedy import DIVS, pick_greedily

N_PICKS, N_FEATURES = 150, 512


def simulated(m: int, seed: int = 0) -> NDArray[np.float64]:
    """Variance-normalised squared errors with the heavy tail that real tables have."""
    rng = np.random.default_rng(seed)
    error = rng.normal(0, 12, m) ** 2
    return error / (rng.gamma(6, 2.3, m) ** 2 + 1)


def clustered(m: int, seed: int = 1) -> Iterator[NDArray[np.float32]]:
    """Blocks of features around 60 centres, as images of 60 subjects have."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(60, N_FEATURES)).astype(np.float32)
    for start in range(0, m, 20_000):
        size = min(20_000, m - start)
        noise = rng.normal(size=(size, N_FEATURES)).astype(np.float32)
        yield centres[rng.integers(0, 60, size)] + noise


def seconds(call: Callable[[], object], repeats: int) -> float:
    def once() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return min(once() for _ in range(repeats))


def floor(features: NDArray[np.float32]) -> None:
    vector = np.array(features[0])
    for _ in range(N_PICKS):
        for start in range(0, len(features), 100_000):
            features[start : start + 100_000] @ vector


def report(features: NDArray[np.float32], repeats: int, lams: tuple[float, ...]) -> None:
    difficulty = simulated(len(features))
    least = seconds(lambda: floor(features), repeats)
    print(f"{len(features):,} x {N_FEATURES}, N = {N_PICKS}; floor {1000 * least:,.0f} ms")
    for lam in lams:
        for div in DIVS:
            before = _peak_mb()
            took = seconds(
                lambda d=div, x=lam: pick_greedily(difficulty, features, N_PICKS, div=d, lam=x),
                repeats,
            )
            print(
                f"  lambda {lam:<5g} {div:15} {1000 * took:9,.0f} ms  {took / least:5.2f} x floor"
                f"  peak memory +{_peak_mb() - before:.0f} MB",
                flush=True,
            )


def _peak_mb() -> float:
    """Peak resident memory, pages of mapped files included where the system counts them."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--rows", type=int, default=1_000_000)
    chosen = parser.parse_args()
    if not chosen.million:
        report(np.concatenate(list(clustered(10_125))), 5, (0.01, 0.1, 1.0))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.f32"
        with path.open("wb") as file:
            for block in clustered(chosen.rows):
                file.write(block.tobytes())
        shape = (chosen.rows, N_FEATURES)
        report(np.memmap(path, np.float32, "r", shape=shape), 1, (0.01, 1.0))


if __name__ == "__main__":
    main()
