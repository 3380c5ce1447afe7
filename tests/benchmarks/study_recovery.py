"""How well each protocol and design recovers a known quality scale, by number of queries.

Run ``OMP_NUM_THREADS=1 python tests/benchmarks/study_recovery.py [--quick]``; the full run takes
minutes. Observers are simulated at the level of judgements, in the package's own cell: its designs
choose the trials, its scaling reads the answers. Only prompts, replies and their parsing are left
out.

An observer sees the true quality of a stimulus plus normal noise whose SD is 1 for the difference
of two stimuli, in pairs, lists and ratings alike. The SD of the true qualities and the threshold
below which a difference is "comparable" are set so that it calls 10 % of random pairs comparable
and gets a stated share, its accuracy, of the rest right. Position bias is added to what is shown
first in a pair.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from iqa_checks import protocols
from iqa_checks.agreement import cluster_mean, srcc, srcc_after_logistic
from iqa_checks.cell import Asked, Cell, _design, _mean_ratings, _scale
from iqa_checks.prompts import Scenario
from iqa_checks.protocols import (
    PROTOCOLS,
    Design,
    Judgement,
    Preference,
    Preset,
    Ranking,
    Rating,
    Trial,
    rng,
)
from iqa_checks.replies import Reply
from iqa_checks.stimuli import Image, Stimulus, StimulusSet

FloatArray = NDArray[np.float64]
ACCURACIES = (0.83, 0.93, 0.98)
TIE_RATE = 0.1
PER_REFERENCE = 10
BIAS = 1.0  # SD of the noise of a difference
TARGET = 0.98


# --- Observers ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Observer:
    """``spread`` (SD of true quality), ``tie`` and ``bias`` in SD of a difference's noise."""

    spread: float
    tie: float
    bias: float = 0.0

    def judge(self, trial: Trial, truth: FloatArray, seed: int) -> Judgement:
        """Noise depends on the trial alone: one question has one answer in every design."""
        draw = np.random.default_rng([seed, trial.repeat, *trial.stimuli])
        seen = self.spread * truth[list(trial.stimuli)]
        seen = seen + draw.normal(0, np.sqrt(0.5), len(seen))
        if len(seen) == 1:
            return Rating(float(np.clip(round(50 + 15 * seen[0] / self.spread), 0, 100)))
        if len(seen) == 2:
            gap = seen[0] - seen[1] + self.bias
            if abs(gap) < self.tie:
                return Preference("comparable")
            return Preference("first" if gap > 0 else "second")
        return Ranking(self._ranks(seen))

    def _ranks(self, seen: FloatArray) -> tuple[int, ...]:
        """Neighbours in order of quality that differ by less than the threshold share a rank."""
        order = np.argsort(seen)
        ranks = np.zeros(len(seen), int)
        ranks[order[1:]] = np.cumsum(np.diff(seen[order]) >= self.tie)
        return tuple(map(int, ranks))


@cache
def observer(accuracy: float, bias: float = 0.0) -> Observer:
    """The observer who is right on this share of the pairs that it does not call comparable."""

    def tie_of(spread: float) -> float:
        return float(np.sqrt(1 + 2 * spread**2) * ndtri((1 + TIE_RATE) / 2))

    def excess(spread: float) -> float:
        sd, tie = np.sqrt(2) * spread, tie_of(spread)
        right = 2 * quad(lambda z: np.exp(-z * z / 2) * ndtr(sd * z - tie), 0, 12)[0]
        return float(right / np.sqrt(2 * np.pi) / (1 - TIE_RATE) - accuracy)

    spread = float(brentq(excess, 0.1, 50))
    return Observer(spread, tie_of(spread), bias)


# --- Stimuli and cells ----------------------------------------------------------------------------


def stimuli(n: int, seed: int) -> StimulusSet:
    """``n`` stimuli with normal true quality, ten to a reference; no image files stand behind."""
    quality = rng("recovery", n, seed).normal(0, 1, n)
    rows = tuple(
        Stimulus(
            _image(f"{seed}:{i}"),
            float(np.clip(50 + 10 * quality[i], 0, 100)),
            None,
            _image(f"{seed}:reference {i // PER_REFERENCE}"),
        )
        for i in range(n)
    )
    return StimulusSet("recovery", rows, (0, 100))


def _image(name: str) -> Image:
    return Image(Path(name), hashlib.sha256(name.encode()).hexdigest(), "image/png", 1, 1)


def truth_of(cell: Cell) -> FloatArray:
    """True qualities, mean about 0 and SD about 1."""
    return (cell.stimuli.quality - 50) / 10


Judged = list[tuple[Trial, Judgement]]


def rounds(cell: Cell, design: Design, seen_by: Observer) -> Iterator[Judged]:
    """All that has been judged after each round of ``design``; one list that grows."""
    truth = truth_of(cell)
    judged: Judged = []
    try:
        trials = next(design)
        while True:
            answers = [seen_by.judge(t, truth, cell.seed) for t in trials]
            judged += zip(trials, answers, strict=True)
            yield judged
            trials = design.send(answers)
    except StopIteration:
        return


def scores_of(cell: Cell, judged: Judged) -> FloatArray:
    """Scores as `run_cell` makes them."""
    if cell.protocol == "single":
        asked = [Asked(trial, Reply(""), judgement) for trial, judgement in judged]
        return _mean_ratings(asked, len(cell.stimuli))
    return _scale(cell, judged).scores


def recovered(cell: Cell, scores: FloatArray, *, reported: bool = False) -> float:
    """SRCC of the scores with the truth: mean over references in FR; nan counts as 0.

    ``reported``: the statistic that the cell's preset puts into tables instead of the SRCC.
    """
    after_fit = reported and cell.preset == "paper"
    truth = cell.stimuli.quality
    if cell.scenario == "nr":
        return srcc_after_logistic(scores, truth) if after_fit else srcc(scores, truth)
    mean = cluster_mean(
        scores,
        truth,
        cell.stimuli.references,
        statistic="srcc_after_logistic" if after_fit else "srcc",
        undefined="zero",
    )
    return float(mean.value or 0.0)


@contextmanager
def designs_set(**constants: float) -> Iterator[None]:
    """Other values for the constants of `iqa_checks.protocols` that say how much is asked."""
    shipped = {name: getattr(protocols, name) for name in constants}
    for name, value in constants.items():
        setattr(protocols, name, value)
    try:
        yield
    finally:
        for name, value in shipped.items():
            setattr(protocols, name, value)


# --- Study 1: the designs as shipped --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class System:
    """A row of the table: what is asked, without strategy (an observer reads no prompts)."""

    n: int
    scenario: Scenario
    protocol: protocols.ProtocolName
    preset: Preset

    def run(self, seen_by: Observer, seed: int) -> tuple[int, float, float]:
        """Number of queries, SRCC with the truth, and the figure that the preset reports."""
        cell = Cell(
            stimuli(self.n, seed), self.scenario, self.protocol, preset=self.preset, seed=seed
        )
        *_, judged = rounds(cell, _design(cell), seen_by)
        scores = scores_of(cell, judged)
        return len(judged), recovered(cell, scores), recovered(cell, scores, reported=True)


def print_systems(sizes: Sequence[int], n_repeats: int) -> None:
    """SRCC with the truth of every protocol and preset."""
    print(
        "| M | scenario | protocol | preset | queries / M "
        "| SRCC .83 | .93 | .98 | .93, position bias 1 | reported .83 | reported .93 |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    observers = [*map(observer, ACCURACIES), observer(0.93, BIAS)]
    presets: tuple[Preset, ...] = ("sound", "paper")
    scenarios: tuple[Scenario, ...] = ("fr", "nr")
    for n, scenario, protocol, preset in itertools.product(sizes, scenarios, PROTOCOLS, presets):
        system = System(n, scenario, protocol, preset)
        runs = np.array([[system.run(o, seed) for seed in range(n_repeats)] for o in observers])
        values = [f"{m:.3f} ± {s:.3f}" for m, s in zip(
            runs[:, :, 1].mean(1), runs[:, :, 1].std(1), strict=True
        )]  # fmt: skip
        if protocol != "double":
            values[-1] = "-"
        print(
            f"| {n} | {scenario} | {protocol} | {preset} | {runs[0, :, 0].mean() / n:.2f} | "
            f"{' | '.join(values)} | {runs[0, :, 2].mean():.3f} | {runs[1, :, 2].mean():.3f} |",
            flush=True,
        )
    print()


# --- Study 2: pair designs against number of queries ----------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Mean over repeats after each round: queries per stimulus, SRCC with full design and truth."""

    queries: FloatArray
    to_full: FloatArray
    to_truth: FloatArray
    full_to_truth: float

    def needed(self, target: float = TARGET) -> float:
        """Queries per stimulus where the SRCC with the full design passes ``target``."""
        above = np.flatnonzero(self.to_full >= target)
        if not len(above):
            return float("nan")
        k = above[0]
        if k == 0:
            return float(self.queries[0])
        span = slice(k - 1, k + 1)
        return float(np.interp(target, self.to_full[span], self.queries[span]))

    def at(self, queries: float) -> float:
        """SRCC with the truth at a number of queries per stimulus."""
        return float(np.interp(queries, self.queries, self.to_truth))


def random_pairs(cell: Cell, n_rounds: int) -> Design:
    """Rounds of M / 2 pairs drawn without replacement: what Swiss pairing is compared to."""
    n, hashes = len(cell.stimuli), [s.sha256 for s in cell.stimuli.stimuli]
    pairs = list(itertools.combinations(range(n), 2))
    order = rng("random pairs", n, cell.seed).permutation(len(pairs))
    for start in range(0, min(len(pairs), n_rounds * (n // 2)), n // 2):
        chosen = [pairs[int(k)] for k in order[start : start + n // 2]]
        trials = protocols._ordered(chosen, hashes, cell.seed)
        yield trials + protocols._audit(trials, hashes, cell.seed)


def swiss(cell: Cell, n_rounds: int) -> Design:
    """Swiss pairing as shipped, with another number of rounds."""
    with designs_set(SWISS_ROUNDS=n_rounds):
        yield from _design(cell)


Family = Callable[[Cell, int], Design]


def curve(
    family: Family, n: int, accuracy: float, n_rounds: int, n_repeats: int, audit: float
) -> Curve:
    """Follow a family of designs over its rounds."""
    rows, ceiling = [], []
    with designs_set(AUDIT_FRACTION=audit):
        for seed in range(n_repeats):
            cell = Cell(stimuli(n, seed), "nr", "double", seed=seed)
            full = full_design(n, seed, accuracy, audit)
            ceiling.append(srcc(full, cell.stimuli.quality))
            row = []
            for judged in rounds(cell, family(cell, n_rounds), observer(accuracy)):
                scores = scores_of(cell, judged)
                own = srcc(scores, full), srcc(scores, cell.stimuli.quality)
                row.append((len(judged) / n, *own))
            rows.append(row)
    return Curve(*np.mean(rows, axis=0).T, full_to_truth=float(np.mean(ceiling)))


@cache
def full_design(n: int, seed: int, accuracy: float, audit: float) -> FloatArray:
    """Scores when every pair is asked."""
    cell = Cell(stimuli(n, seed), "nr", "double", seed=seed)
    with designs_set(ROUND_ROBIN_LIMIT=n, AUDIT_FRACTION=audit):
        *_, judged = rounds(cell, _design(cell), observer(accuracy))
    return scores_of(cell, judged)


def print_needed(sizes: Sequence[int], n_repeats: int) -> None:
    """Queries per stimulus until the SRCC with the full design's scores is .98."""
    audit = protocols.AUDIT_FRACTION
    print(
        "| M | accuracy | Swiss | Swiss, audit counted | random pairs | random, audit counted "
        "| SRCC to truth at 5 queries / M: Swiss | random | with audit: Swiss | random | full |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for n, accuracy in itertools.product(sizes, ACCURACIES):
        repeats = n_repeats if n < 500 else max(2, n_repeats // 8)
        found = [
            curve(family, n, accuracy, n_rounds, repeats, share)
            for share in (0.0, audit)
            for family, n_rounds in ((swiss, 44), (random_pairs, 60))
        ]
        needed = [found[k].needed() for k in (0, 2, 1, 3)]
        at_5 = [found[k].at(5) for k in (0, 1, 2, 3)]
        print(
            f"| {n} | {accuracy:.2f} | {' | '.join(f'{v:.1f}' for v in needed)} "
            f"| {' | '.join(f'{v:.3f}' for v in at_5)} | {found[0].full_to_truth:.3f} |",
            flush=True,
        )
    print()


def print_curve(sizes: Sequence[int], n_repeats: int) -> None:
    """SRCC with the full design and with the truth after each round of Swiss pairing."""
    print(f"SWISS_ROUNDS as shipped: {protocols.SWISS_ROUNDS}\n")
    heads = [f"full {a:.2f} | truth {a:.2f}" for a in ACCURACIES]
    print(f"| M | SWISS_ROUNDS | queries / M | {' | '.join(heads)} |")
    print("|---|---|---|" + "---|---|" * len(ACCURACIES))
    for n in sizes:
        repeats = n_repeats if n < 500 else max(2, n_repeats // 8)
        curves = [curve(swiss, n, a, 24, repeats, protocols.AUDIT_FRACTION) for a in ACCURACIES]
        for k in (1, 3, 5, 7, 9, 12, 15, 18, 21, 24):
            values = " | ".join(f"{c.to_full[k - 1]:.3f} | {c.to_truth[k - 1]:.3f}" for c in curves)
            print(f"| {n} | {k} | {curves[0].queries[k - 1]:.2f} | {values} |", flush=True)
    print()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="M = 50 and fewer repeats")
    quick = parser.parse_args().quick
    n_repeats = 4 if quick else 24
    for accuracy in ACCURACIES:
        o = observer(accuracy)
        print(f"accuracy {accuracy}: SD of true quality {o.spread:.2f}, threshold {o.tie:.2f}")
    print()
    print_systems((50,) if quick else (50, 150), n_repeats)
    print_needed((50,) if quick else (50, 150, 500), n_repeats)
    print_curve((50,) if quick else (50, 150, 500), n_repeats)


if __name__ == "__main__":
    main()
