"""How often does the release gate cry wolf, and what does it see? Simulated and real releases.

    python tests/benchmarks/study_gate_calibration.py --part single --pairs 1000
    python tests/benchmarks/study_gate_calibration.py --part reference --pairs 1000
    python tests/benchmarks/study_gate_calibration.py --part comparative --pairs 1000
    python tests/benchmarks/study_gate_calibration.py --part trials --pairs 250
    python tests/benchmarks/study_gate_calibration.py --part plan --pairs 500
    python tests/benchmarks/study_gate_calibration.py --part paper --pairs 2000
    IQA_CHECKS_RATED_DATA=FOLDER python tests/benchmarks/study_gate_calibration.py --part qbench

Each condition simulates pairs of releases whose population SRCC differ by a known drop (0: no
change) and counts how often each test says "worse" at one-sided alpha = .05; the Monte-Carlo
standard error is sqrt(p (1 - p) / pairs). The tables of ``docs/gates.md`` are this output.

The world: opinions y are standard normal; a release perceives ``r y + sqrt(1 - r^2) e``, and the
errors e of two releases correlate by .64 (their scores by about .9). Ratings are perceived values
in steps of 5 on 0..100. Comparisons add normal noise per judgement and run through the real
designs, Swiss pairing included.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iqa_checks.agreement import Correlation, cluster_mean, correlation, srcc
from iqa_checks.comparison import (
    Difference,
    Judged,
    compare_plcc,
    compare_srcc,
    compare_trials,
)
from iqa_checks.decision import Decision, decide
from iqa_checks.paper import PaperFigure
from iqa_checks.power import power_plan
from iqa_checks.protocols import (
    Design,
    Judgement,
    Preference,
    Trial,
    double_stimulus,
    multiple_stimulus,
)

FloatArray = NDArray[np.float64]
ALPHA = 0.05
BASELINE_SRCC = 0.85
RESEMBLANCE = 0.64
NOISE = 0.35  # SD of one judgement, in SDs of perceived quality
TIE = 0.1  # perceived difference below which two stimuli look comparable


@dataclass
class Tally:
    """Rejections of each test in one condition."""

    condition: str
    pairs: int = 0
    rejected: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    tested: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    drops: list[float] = field(default_factory=list)

    def count(self, name: str, worse: bool) -> None:
        self.tested[name] += 1
        self.rejected[name] += worse

    def plain(self) -> dict[str, object]:
        rates = {name: self.rejected[name] / n for name, n in self.tested.items()}
        errors = {n: (p * (1 - p) / self.tested[n]) ** 0.5 for n, p in rates.items()}
        return {
            "condition": self.condition,
            "pairs": self.pairs,
            "mean_drop": float(np.mean(self.drops)),
            "sd_drop": float(np.std(self.drops)),
            "rates": rates,
            "errors": errors,
            "tested": dict(self.tested),
        }


def says_worse(difference: Difference) -> bool:
    p = difference.p_worse
    return p is not None and p < ALPHA


# --- Tests that others use ------------------------------------------------------------------------


def fisher_independent(candidate: float, baseline: float, n: int) -> bool:
    """Two independent correlations: z = (z1 - z2) / sqrt(2 / (n - 3))."""
    from scipy.special import ndtr

    gap = np.arctanh(min(candidate, 0.999999)) - np.arctanh(min(baseline, 0.999999))
    return bool(ndtr(gap / np.sqrt(2 / (n - 3))) < ALPHA)


def meng(candidate: FloatArray, baseline: FloatArray, y: FloatArray) -> bool:
    """Meng, Rosenthal and Rubin 1992 for two dependent correlations with one variable, on ranks."""
    from scipy.special import ndtr

    r1, r2, rx = srcc(candidate, y), srcc(baseline, y), srcc(candidate, baseline)
    if rx > 0.999999:
        return False
    mean = (r1**2 + r2**2) / 2
    f = min((1 - rx) / (2 * (1 - mean)), 1.0)
    h = (1 - f * mean) / (1 - mean)
    z = (np.arctanh(r1) - np.arctanh(r2)) * np.sqrt((len(y) - 3) / (2 * (1 - rx) * h))
    return bool(ndtr(z) < ALPHA)


def steiger(candidate: FloatArray, baseline: FloatArray, y: FloatArray) -> bool:
    """Steiger 1980, his Z1* with the mean correlation, on ranks."""
    from scipy.special import ndtr

    r1, r2, rx = srcc(candidate, y), srcc(baseline, y), srcc(candidate, baseline)
    if rx > 0.999999:
        return False
    m = (r1 + r2) / 2
    covariance = rx * (1 - 2 * m**2) - 0.5 * m**2 * (1 - 2 * m**2 - rx**2)
    c = covariance / (1 - m**2) ** 2
    z = (np.arctanh(r1) - np.arctanh(r2)) * np.sqrt((len(y) - 3) / (2 - 2 * c))
    return bool(ndtr(z) < ALPHA)


def count_others(tally: Tally, candidate: FloatArray, baseline: FloatArray, y: FloatArray) -> None:
    now, before = srcc(candidate, y), srcc(baseline, y)
    tally.drops.append(before - now)
    tally.count("independent Fisher z", fisher_independent(now, before, len(y)))
    tally.count("Meng on ranks", meng(candidate, baseline, y))
    tally.count("Steiger on ranks", steiger(candidate, baseline, y))
    tally.count("raw drop > .02", before - now > 0.02)


# --- The world ------------------------------------------------------------------------------------


def pearson_of(spearman: float) -> float:
    """Pearson's r of a bivariate normal with this SRCC."""
    return float(2 * np.sin(np.pi * spearman / 6))


def perceive(y: FloatArray, r: float, errors: FloatArray) -> FloatArray:
    return r * y + np.sqrt(1 - r * r) * errors


def two_errors(
    rng: np.random.Generator, shape: int | tuple[int, int], resemblance: float, heavy: bool = False
) -> tuple[FloatArray, FloatArray]:
    """Errors of baseline and candidate, unit variance."""

    def draw() -> FloatArray:
        if not heavy:
            return rng.standard_normal(shape)
        return rng.standard_t(4, shape) / np.sqrt(2)

    first = draw()
    return first, resemblance * first + np.sqrt(1 - resemblance**2) * draw()


def rating(perceived: FloatArray) -> FloatArray:
    return np.clip(np.round((50 + 20 * perceived) / 5) * 5, 0, 100)


# --- Single-stimulus, no reference ----------------------------------------------------------------


def single(pairs: int, seed: int) -> Iterator[Tally]:
    for n, drop in itertools.product((60, 150, 300), (0.0, 0.02, 0.05, 0.10)):
        yield single_condition(n, drop, pairs, seed)
    yield single_condition(30, 0.0, pairs, seed)
    yield single_condition(150, 0.0, pairs, seed, heavy=True)
    yield single_condition(150, 0.0, pairs, seed, resemblance=0.95)
    yield single_condition(150, 0.0, pairs, seed, level=0.5)


def single_condition(
    n: int,
    drop: float,
    pairs: int,
    seed: int,
    *,
    heavy: bool = False,
    resemblance: float = RESEMBLANCE,
    level: float = BASELINE_SRCC,
) -> Tally:
    extra = (
        (", heavy tails" if heavy else "")
        + (f", resemblance {resemblance:g}" if resemblance != RESEMBLANCE else "")
        + (f", baseline {level:g}" if level != BASELINE_SRCC else "")
    )
    tally = Tally(f"NR single, n = {n}, drop {drop:g}{extra}")
    rng = np.random.default_rng([seed, n, round(100 * drop), heavy, round(100 * resemblance)])
    strength = pearson_of(level), pearson_of(level - drop)
    for k in range(pairs):
        y = rng.standard_normal(n)
        errors = two_errors(rng, n, resemblance, heavy)
        baseline, candidate = (
            rating(perceive(y, r, e)) for r, e in zip(strength, errors, strict=True)
        )
        tally.pairs += 1
        tally.count("jackknife", says_worse(compare_srcc(candidate, baseline, y)))
        if k < pairs // 5:
            drawn = compare_srcc(
                candidate, baseline, y, method="bootstrap", n_resamples=500, seed=k
            )
            tally.count("bootstrap", says_worse(drawn))
        if drop == 0 and n in (60, 150) and not extra and k < pairs // 5:
            tally.count("PLCC jackknife", says_worse(compare_plcc(candidate, baseline, y)))
        count_others(tally, candidate, baseline, y)
    return tally


# --- Full-reference, clustered --------------------------------------------------------------------


def reference(pairs: int, seed: int) -> Iterator[Tally]:
    inverse = within_reference_inverse(10)
    for n_references, drop in itertools.product((6, 15, 30), (0.0, 0.02, 0.05, 0.10)):
        yield reference_condition(n_references, drop, pairs, seed, inverse)


def within_reference_inverse(per_reference: int) -> Callable[[float], float]:
    """Pearson's r whose mean SRCC within a reference of so many stimuli is the one asked for."""
    rng = np.random.default_rng(99)
    grid = np.linspace(0.3, 0.99, 24)
    means = []
    for r in grid:
        y = rng.standard_normal((4000, per_reference))
        x = perceive(y, r, rng.standard_normal(y.shape))
        rank_x, rank_y = (v.argsort(1).argsort(1) - (per_reference - 1) / 2 for v in (x, y))
        means.append(float(((rank_x * rank_y).sum(1) / (rank_y**2).sum(1)).mean()))
    return lambda target: float(np.interp(target, means, grid))


def reference_condition(
    n_references: int, drop: float, pairs: int, seed: int, inverse: Callable[[float], float]
) -> Tally:
    """10 stimuli a reference; a reference shifts scores (ICC .3) and some are harder to judge."""
    tally = Tally(f"FR single, {n_references} x 10, drop {drop:g}")
    rng = np.random.default_rng([seed, n_references, round(100 * drop), 7])
    strength = inverse(BASELINE_SRCC), inverse(BASELINE_SRCC - drop)
    cluster = np.repeat(np.arange(n_references), 10)
    for k in range(pairs):
        y = rng.standard_normal(len(cluster))
        hard = rng.lognormal(0, 0.25, n_references)[cluster]
        shifts = two_errors(rng, n_references, RESEMBLANCE)
        errors = two_errors(rng, len(cluster), RESEMBLANCE)
        baseline, candidate = (
            rating(perceive(y, r, e * hard) + np.sqrt(0.3 / 0.7) * np.sqrt(1 - r * r) * s[cluster])
            for r, e, s in zip(strength, errors, shifts, strict=True)
        )
        tally.pairs += 1
        mean = compare_srcc(candidate, baseline, y, cluster, summary="cluster_mean")
        tally.count("headline: t over references", says_worse(mean))
        pooled = compare_srcc(candidate, baseline, y, cluster)
        tally.count("pooled: reference jackknife", says_worse(pooled))
        tally.count("pooled: image jackknife", says_worse(compare_srcc(candidate, baseline, y)))
        if k < 300 and drop == 0:
            boot = compare_srcc(candidate, baseline, y, cluster, "bootstrap", n_resamples=500)
            tally.count("pooled: reference bootstrap", says_worse(boot))
        count_others(tally, candidate, baseline, y)
        if mean.candidate is not None and mean.baseline is not None:
            tally.count("raw mean drop > .02", mean.baseline - mean.candidate > 0.02)
            tally.drops[-1] = mean.baseline - mean.candidate
    return tally


# --- Double- and multiple-stimulus through the real designs ---------------------------------------


def comparative(pairs: int, seed: int) -> Iterator[Tally]:
    """Fewer pairs where a condition is slow or only illustrates: rescaling, replay, power."""
    protocols = ("double", "multiple")
    for name, same in itertools.product(protocols, (False, True)):
        rescaled = max(2, pairs // 25)
        yield comparative_condition(name, 60, 0.0, pairs, seed, same_model=same, rescaled=rescaled)
    for n, same in itertools.product((60, 150), (False, True)):
        some = max(2, pairs * 6 // 100)
        yield comparative_condition("double", n, 0.0, some, seed, same_model=same, replay=True)
    for name, same in itertools.product(protocols, (False, True)):
        half = pairs // 2 if name == "double" else pairs
        yield comparative_condition(name, 150, 0.0, half, seed, same_model=same)
    for name, n, drop in itertools.product(protocols, (60, 150), (0.05, 0.10)):
        yield comparative_condition(name, n, drop, max(2, pairs // 5), seed)


def comparative_condition(
    protocol: str,
    n: int,
    drop: float,
    pairs: int,
    seed: int,
    *,
    same_model: bool = False,
    replay: bool = False,
    rescaled: int = 0,
) -> Tally:
    what = "the same model asked again" if same_model else "another model"
    design = ", asked the baseline's own trials" if replay else ""
    tally = Tally(f"NR {protocol}, n = {n}, drop {drop:g}, {what}{design}")
    rng = np.random.default_rng([seed, n, round(100 * drop), same_model, len(protocol)])
    strength = pearson_of(BASELINE_SRCC), pearson_of(BASELINE_SRCC - drop)
    for k in range(pairs):
        y = rng.standard_normal(n)
        errors = two_errors(rng, n, RESEMBLANCE)
        seen = [perceive(y, r, e) for r, e in zip(strength, errors, strict=True)]
        if same_model:
            seen[1] = seen[0]
        baseline, trials = run_design(protocol, seen[0], rng, k)
        candidate = (
            judged_of(trials, answers(trials, seen[1], rng), n, protocol)
            if replay
            else run_design(protocol, seen[1], rng, k)[0]
        )
        count_comparative(tally, candidate, baseline, y, k < rescaled, k)
    return tally


def count_comparative(
    tally: Tally, candidate: Judged, baseline: Judged, y: FloatArray, rescaled: bool, k: int
) -> None:
    now, before = candidate.scores(), baseline.scores()
    tally.pairs += 1
    tally.count("jackknife of scores", says_worse(compare_srcc(now, before, y)))
    count_others(tally, now, before, y)
    if rescaled:
        noise = compare_trials(candidate, baseline, y, n_resamples=100, seed=k)
        tally.count("trials resampled", says_worse(noise))
        stimuli = compare_trials(candidate, baseline, y, resample="stimuli")
        tally.count("jackknife, rescaled", says_worse(stimuli))
        both = stimuli_and_trials(stimuli, noise)
        tally.count("jackknife + trials", says_worse(both))


def stimuli_and_trials(stimuli: Difference, noise: Difference) -> Difference:
    """Both variances added: counts the judgement noise twice."""
    from dataclasses import replace

    error = float(np.hypot(stimuli.std_error or 0, noise.std_error or 0))
    return replace(stimuli, std_error=error)


def run_design(
    protocol: str, seen: FloatArray, rng: np.random.Generator, number: int, noise: float = NOISE
) -> tuple[Judged, list[Trial]]:
    """Ask a release the real design's trials; the stimuli's identities depend on ``number``."""
    n = len(seen)
    hashes = [hashlib.sha256(f"{number}-{i}".encode()).hexdigest() for i in range(n)]
    design: Design

    def current(trials: Sequence[Trial], judgements: Sequence[Judgement]) -> FloatArray:
        outcomes = [_OUTCOME[j.choice] for j in judgements if isinstance(j, Preference)]
        return judged_of(list(trials), [[o] for o in outcomes], n, protocol).scores()

    groups = [""] * n
    if protocol == "double":
        design = double_stimulus(hashes, groups, current, seed=0)
    else:
        design = multiple_stimulus(hashes, groups, seed=0)
    asked: list[Trial] = []
    given: list[list[float]] = []
    trials = next(design)
    while True:
        outcomes = answers(trials, seen, rng, noise)
        asked += trials
        given += outcomes
        try:
            trials = design.send([Preference(_CHOICE[o[0]]) for o in outcomes])
        except StopIteration:
            return judged_of(asked, given, n, protocol), asked


_OUTCOME = {"first": 1.0, "second": 0.0, "comparable": 0.5}
_CHOICE = {1.0: "first", 0.0: "second", 0.5: "comparable"}


def answers(
    trials: Sequence[Trial], seen: FloatArray, rng: np.random.Generator, noise: float = NOISE
) -> list[list[float]]:
    """Outcomes of each trial's pairs, in the order of `itertools.combinations`."""
    shown = np.array([t.stimuli for t in trials])
    felt = seen[shown] + noise * rng.standard_normal(shown.shape)
    first, second = np.triu_indices(shown.shape[1], 1)
    gap = felt[:, first] - felt[:, second]
    outcome = np.where(np.abs(gap) < TIE, 0.5, (gap > 0).astype(float))
    rows: list[list[float]] = outcome.tolist()
    return rows


def judged_of(
    trials: Sequence[Trial], outcomes: Sequence[Sequence[float]], n: int, protocol: str
) -> Judged:
    size = len(trials[0].stimuli) if trials else 2
    shown = np.array([t.stimuli for t in trials], dtype=np.int64).reshape(len(trials), size)
    first, second = np.triu_indices(size, 1)
    each = len(first)
    return Judged(
        trial=np.repeat(np.arange(len(trials)), each),
        first=shown[:, first].ravel(),
        second=shown[:, second].ravel(),
        outcome=np.array(outcomes, dtype=np.float64).ravel(),
        n_trials=len(trials),
        n_stimuli=n,
        ordered=protocol == "double",
    )


def trials(pairs: int, seed: int) -> Iterator[Tally]:
    """Is resampling trials enough? With noisy judgements, and with nearly reliable ones."""
    for noise, same, name in itertools.product((NOISE, 0.1), (False, True), ("double", "multiple")):
        yield trials_condition(name, same, noise, pairs, seed)


def trials_condition(protocol: str, same: bool, noise: float, pairs: int, seed: int) -> Tally:
    what = "the same model asked again" if same else "another model"
    tally = Tally(f"NR {protocol}, n = 60, {what}, noise {noise:g}")
    rng = np.random.default_rng([seed, same, len(protocol), round(100 * noise), 5])
    r = pearson_of(BASELINE_SRCC)
    for k in range(pairs):
        y = rng.standard_normal(60)
        seen = [perceive(y, r, e) for e in two_errors(rng, 60, RESEMBLANCE)]
        asked = (seen[0], seen[0] if same else seen[1])
        baseline, candidate = (run_design(protocol, x, rng, k, noise)[0] for x in asked)
        resampled = compare_trials(candidate, baseline, y, n_resamples=60, seed=k)
        tally.pairs += 1
        tally.drops.append(-(resampled.value or 0))
        tally.count("trials resampled", says_worse(resampled))
        scores = compare_srcc(candidate.scores(), baseline.scores(), y)
        tally.count("jackknife of scores", says_worse(scores))
    return tally


# --- Does the power plan keep its promise? --------------------------------------------------------


def plan(pairs: int, seed: int) -> Iterator[Tally]:
    """Plans from baselines of 100 stimuli; then the power that the planned size really has."""
    for drop in (0.05, 0.10):
        rng = np.random.default_rng([seed, round(100 * drop), 3])
        sizes = []
        for k in range(100):
            y = rng.standard_normal(100)
            x = rating(perceive(y, pearson_of(BASELINE_SRCC), rng.standard_normal(100)))
            sizes.append(power_plan(x, y, drop=drop, seed=k)[1].n)
        n = int(np.median(sizes))
        low, high = np.quantile(sizes, (0.1, 0.9))
        tally = single_condition(n, drop, pairs, seed)
        tally.condition = (
            f"planned from 100 stimuli for a drop of {drop:g}: n = {n} "
            f"(80 % of the plans {low:.0f} to {high:.0f})"
        )
        yield tally


# --- Gates from published figures -----------------------------------------------------------------


def paper(pairs: int, seed: int) -> Iterator[Tally]:
    """A published SRCC of one sample, a measured one of another, with and without a drop."""
    for n, level, drop in itertools.product((30, 150), (BASELINE_SRCC, 0.4), (0.0, 0.10)):
        yield paper_pooled(n, level, drop, pairs, seed)
    inverse = within_reference_inverse(10)
    for n_references, drop in itertools.product((5, 15), (0.0, 0.10)):
        yield paper_by_reference(n_references, drop, pairs, seed, inverse)


def paper_pooled(n: int, level: float, drop: float, pairs: int, seed: int) -> Tally:
    tally = Tally(f"paper, NR, n = {n} against 150, SRCC {level:g}, drop {drop:g}")
    rng = np.random.default_rng([seed, n, round(100 * level), round(100 * drop), 11])

    def sample(size: int, r: float) -> tuple[FloatArray, FloatArray]:
        y = rng.standard_normal(size)
        return rating(perceive(y, r, rng.standard_normal(size))), y

    for _ in range(pairs):
        published = srcc(*sample(150, pearson_of(level)))
        count_paper(tally, published, correlation(*sample(n, pearson_of(level - drop))))
    return tally


def paper_by_reference(
    n_references: int, drop: float, pairs: int, seed: int, inverse: Callable[[float], float]
) -> Tally:
    """Ten stimuli a reference; some references are harder than others, on both sides."""
    tally = Tally(f"paper, FR, {n_references} x 10 against 15 x 10, drop {drop:g}")
    rng = np.random.default_rng([seed, n_references, round(100 * drop), 12])

    def sample(size: int, r: float) -> Correlation:
        cluster = np.repeat(np.arange(size), 10)
        y = rng.standard_normal(10 * size)
        hard = rng.lognormal(0, 0.25, size)[cluster]
        return cluster_mean(
            rating(perceive(y, r, rng.standard_normal(10 * size) * hard)), y, cluster
        )

    for _ in range(pairs):
        published = sample(15, inverse(BASELINE_SRCC)).value
        assert published is not None
        count_paper(tally, published, sample(n_references, inverse(BASELINE_SRCC - drop)))
    return tally


def count_paper(tally: Tally, published: float, measured: Correlation) -> None:
    """The gate, the figure taken for an exact threshold, and the bare comparison."""
    assert measured.value is not None
    tally.pairs += 1
    tally.drops.append(published - measured.value)
    p, blunt = PaperFigure("", published).p_below(measured), measured.p_below(published)
    tally.count("both errors", p is not None and p < ALPHA)
    tally.count("figure taken as exact", blunt is not None and blunt < ALPHA)
    tally.count("raw drop > .02", published - measured.value > 0.02)


# --- Q-Bench's models as releases -----------------------------------------------------------------


def qbench(folder: Path, splits: int, seed: int) -> Iterator[dict[str, object]]:
    for name in ("livec", "agi"):
        scores, mos = qbench_scores(folder, name)
        yield pairs_of_models(name, scores, mos)
        for size in (60, 150, 300, len(mos) // 2):
            fewer = splits if size <= 300 else max(1, splits // 5)
            yield halves(name, scores, mos, size, fewer, seed)


def qbench_scores(folder: Path, name: str) -> tuple[dict[str, FloatArray], FloatArray]:
    """Score of every model on the stimuli that all of them scored, and the human scores."""
    tables: dict[str, dict[str, tuple[float, float]]] = {}
    for path in sorted(folder.glob(f"raw/*/{name}.json")):
        text = path.read_text(encoding="utf-8").strip().replace("}{", "},{")
        rows = json.loads(f"[{text}]")
        tables[path.parent.name] = {
            r["img_path"].rpartition("/")[2]: (
                float(r["logit_good"]) - float(r["logit_poor"]), float(r["gt_score"]),
            )
            for r in rows
        }  # fmt: skip
    common = sorted(set.intersection(*(set(t) for t in tables.values())))
    mos = np.array([next(iter(tables.values()))[k][1] for k in common])
    return {m: np.array([t[k][0] for k in common]) for m, t in tables.items()}, mos


def pairs_of_models(name: str, scores: dict[str, FloatArray], mos: FloatArray) -> dict[str, object]:
    """Every better model as baseline, every worse one as its next release."""
    ranked = sorted(scores, key=lambda m: -srcc(scores[m], mos))
    by_status: dict[str, int] = defaultdict(int)
    raw = fisher = steps = 0
    neighbours = []
    for before, now in itertools.combinations(ranked, 2):
        difference = compare_srcc(scores[now], scores[before], mos)
        decision = decide(difference)
        by_status[decision.status] += 1
        raw += -(difference.value or 0) > 0.02
        fisher += fisher_independent(difference.candidate or 0, difference.baseline or 0, len(mos))
        if ranked.index(now) == ranked.index(before) + 1:
            steps += decision.status == "FAIL"
            neighbours.append(f"{before} -> {now}: {decision}")
    return {
        "set": name, "n": len(mos), "models": len(ranked), "statuses": dict(by_status),
        "raw_rule": raw, "independent_fisher": fisher, "neighbours_significant": steps,
        "srcc": {m: round(srcc(scores[m], mos), 3) for m in ranked}, "neighbours": neighbours,
    }  # fmt: skip


def halves(
    name: str, scores: dict[str, FloatArray], mos: FloatArray, size: int, splits: int, seed: int
) -> dict[str, object]:
    """Two disjoint samples: does the gate say the same on both? Ordered pairs of models."""
    rng = np.random.default_rng([seed, size])
    ranked = sorted(scores, key=lambda m: -srcc(scores[m], mos))
    agree: dict[str, int] = defaultdict(int)
    table: dict[str, int] = defaultdict(int)
    total = contradictions = raw_flips = wrong = 0
    for _ in range(splits):
        order = rng.permutation(len(mos))
        samples = order[:size], order[size : 2 * size]
        for before, now in itertools.permutations(ranked, 2):
            found = [_verdict(scores, mos, s, before, now) for s in samples]
            total += 1
            statuses = [d.status for d, _ in found]
            agree["gate"] += statuses[0] == statuses[1]
            table["/".join(sorted(statuses))] += 1
            contradictions += sorted(statuses) == ["FAIL", "PASS"]
            drops = [-(difference.value or 0) > 0.02 for _, difference in found]
            agree["raw"] += drops[0] == drops[1]
            raw_flips += drops[0] != drops[1]
            if ranked.index(now) < ranked.index(before):
                wrong += statuses[0] == "FAIL"
    return {
        "set": name, "half": size, "splits": splits, "comparisons": total,
        "gate_agrees": agree["gate"] / total, "fail_against_pass": contradictions / total,
        "raw_agrees": agree["raw"] / total, "raw_contradicts": raw_flips / total,
        "fails_the_better_model": wrong / (total / 2),
        "table": {k: v / total for k, v in sorted(table.items())},
    }  # fmt: skip


def _verdict(
    scores: dict[str, FloatArray], mos: FloatArray, s: NDArray[np.int64], before: str, now: str
) -> tuple[Decision, Difference]:
    difference = compare_srcc(scores[now][s], scores[before][s], mos[s])
    return decide(difference), difference


# --- Output ---------------------------------------------------------------------------------------


def markdown(tally: Tally) -> str:
    plain = tally.plain()
    rates, errors = plain["rates"], plain["errors"]
    assert isinstance(rates, dict)
    assert isinstance(errors, dict)
    cells = ", ".join(f"{name} {rates[name]:.3f} ± {errors[name]:.3f}" for name in rates)
    return f"{tally.condition} ({tally.pairs} pairs, mean drop {plain['mean_drop']:+.3f}): {cells}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {
        "single": single, "reference": reference, "comparative": comparative, "trials": trials,
        "plan": plan, "paper": paper,
    }  # fmt: skip
    parser.add_argument("--part", choices=(*parts, "qbench"), required=True)
    parser.add_argument("--pairs", type=int, default=1000, help="simulated pairs a condition")
    parser.add_argument("--splits", type=int, default=20, help="random halves of the real data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="append one JSON line per condition")
    given = parser.parse_args()
    started = time.perf_counter()
    if given.part == "qbench":
        folder = Path(os.environ["IQA_CHECKS_RATED_DATA"]) / "qbench"
        for found in qbench(folder, given.splits, given.seed):
            _show(json.dumps(found), found, given.json)
    else:
        for tally in parts[given.part](given.pairs, given.seed):
            _show(markdown(tally), tally.plain(), given.json)
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
    return 0


def _show(line: str, plain: dict[str, object], path: Path | None) -> None:
    print(line, flush=True)
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
