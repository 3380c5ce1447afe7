"""Difficult samples: where an expert metric and people disagree most, and people agree.

Eqs. 3-5 of Wu et al. 2024. Arrays only, no images. Human scores (MOS), their standard deviations
(opinion SD) and expert scores all stand on 0..100, higher = better: with epsilon = 1 the variance
term does nothing on 0..1. Each of the two terms is divided by its largest value, so that lambda
means the same on every scale. ``preset="paper"`` repeats the released code instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from iqa_checks.errors import UsageError, known_names
from iqa_checks.greedy import DIVS, Div, pick_greedily

N_IMAGES, N_REFERENCES, PER_REFERENCE = 150, 15, 10
LAMBDA, EPSILON = 0.01, 1.0
FEW = 0.02  # a term that changes fewer of the picks than this gets a warning

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class DifficultPicks:
    """Which stimuli are difficult, and what decided it.

    ``picks`` are positions in the input, in the order of selection (FR: reference by reference).
    ``objective`` belongs to each pick (FR: to each of ``references``). The ``changed_by`` counts
    say how many picks differ from a selection without that term, None where it was not compared.
    ``sd_*`` hold the opinion SDs, 0..100, of the picks, of the picks without variance
    normalisation under the same diversity, and of all: what the paper's Fig. 4 shows.
    ``mos_spread`` is the SD of the picks' MOS over that of all. People agree most at the ends of a
    scale, so it is often above 1, and a wider range alone raises a correlation.
    """

    picks: NDArray[np.intp]
    objective: FloatArray
    difficulty: FloatArray
    div: Div
    lam: float
    epsilon: float
    preset: str
    mos_spread: float
    references: tuple[str, ...] = ()
    changed_by_diversity: int | None = None
    changed_by_variance: int | None = None
    sd_picks: FloatArray | None = None
    sd_without_variance: FloatArray | None = None
    sd_all: FloatArray | None = None
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for a report: how many, and what each term did."""
        text = f"{len(self.picks)} difficult samples (Div {self.div}, lambda {self.lam:g})"
        if self.changed_by_diversity is not None and self.changed_by_variance is not None:
            text += (
                f"; diversity changed {self.changed_by_diversity} picks, variance normalisation "
                f"{self.changed_by_variance}"
            )
        if self.sd_picks is not None and self.sd_all is not None:
            without = self.sd_without_variance
            beside = "" if without is None else f" ({np.mean(without):.1f} without it)"
            text += (
                f"; mean opinion SD {np.mean(self.sd_picks):.1f}{beside}, "
                f"{np.mean(self.sd_all):.1f} over all"
            )
        return f"{text}; SD of MOS {self.mos_spread:.2f} times that of all"


_Selected = tuple[NDArray[np.intp], FloatArray, tuple[str, ...]]
"""Picks, the objective of each pick (FR: of each reference), and the references chosen (FR)."""


@dataclass(frozen=True, slots=True)
class _Inputs:
    """Checked and scaled: MOS, SD and expert in the unit of the preset, shape (M,)."""

    mos: FloatArray
    sd: FloatArray
    expert: FloatArray
    warnings: tuple[str, ...]

    def difficulty(self, epsilon: float, *, normalised: bool = True) -> FloatArray:
        """(d - q)^2 / (sigma^2 + epsilon), or its numerator alone."""
        squared = (self.expert - self.mos) ** 2
        return squared / (self.sd**2 + epsilon) if normalised else squared

    def spread(self, picks: NDArray[np.intp]) -> float:
        """SD of the MOS of some stimuli over that of all; 1 where all are equal."""
        whole = float(np.std(self.mos))
        return float(np.std(self.mos[picks])) / whole if whole > 0 else 1.0


@dataclass(frozen=True, slots=True)
class _Terms:
    div: Div
    lam: float
    epsilon: float
    preset: Literal["sound", "paper"]

    def pick(
        self, difficulty: FloatArray, features: NDArray[np.floating] | None, n: int
    ) -> tuple[NDArray[np.intp], FloatArray]:
        return pick_greedily(
            difficulty, features, n, div=self.div, lam=self.lam, scaled=self.preset == "sound"
        )


def difficulty(
    mos: ArrayLike, opinion_sd: ArrayLike | None, expert: ArrayLike, *, epsilon: float = EPSILON
) -> FloatArray:
    """The variance-normalised squared error of an expert, shape (M,): first term of Eqs. 3-5."""
    return _inputs(mos, opinion_sd, expert, "sound").difficulty(epsilon)


def select_difficult(
    mos: ArrayLike,
    opinion_sd: ArrayLike | None,
    expert: ArrayLike,
    features: NDArray[np.floating] | None,
    n: int = N_IMAGES,
    *,
    div: Div = "mean",
    lam: float = LAMBDA,
    epsilon: float = EPSILON,
    preset: Literal["sound", "paper"] = "sound",
    compare: bool = True,
) -> DifficultPicks:
    """The ``n`` most difficult images of a no-reference set (Eq. 5).

    Parameters
    ----------
    mos, expert : (M,)
        Human and expert scores on 0..100, higher = better, the expert aligned to the MOS scale
        (`iqa_checks.experts.fuse`).
    opinion_sd : (M,) or None
        Standard deviation of single opinions, on 0..100. What is missing (None, nan) counts as 0
        and is warned about.
    features : (M, D) or None
        Image features in any scale, possibly memory-mapped; None only with ``lam`` 0.
    div, lam, epsilon
        As in Eq. 5; `pick_greedily` defines ``div``.
    preset
        'paper': as the released code, which brings MOS and SD each to 0..1, leaves the two terms
        unscaled, takes only the sign of each feature, and 1 - cosine to the mean as Div.
    compare
        Select twice more, without each term, to count what it changed.

    Raises
    ------
    UsageError
        Arrays of different lengths, expert scores that are not finite or all equal, MOS outside
        0..100, a negative SD, feature rows that do not match or are zero, an unknown ``div``.
    """
    terms = _terms(div, lam, epsilon, preset)
    inputs = _inputs(mos, opinion_sd, expert, preset)
    rows = _features(features, len(inputs.mos), terms, "stimulus")
    warnings = [*inputs.warnings, *_too_many(n, len(inputs.mos), "stimuli")]

    def select(terms: _Terms, normalised: bool) -> _Selected:
        picks, objective = terms.pick(
            inputs.difficulty(terms.epsilon, normalised=normalised), rows, n
        )
        return picks, objective, ()

    return _recorded(select, inputs, terms, warnings, opinion_sd, compare)


def select_difficult_by_reference(
    mos: ArrayLike,
    opinion_sd: ArrayLike | None,
    expert: ArrayLike,
    references: Sequence[str],
    features: NDArray[np.floating] | None,
    n_references: int = N_REFERENCES,
    per_reference: int = PER_REFERENCE,
    *,
    div: Div = "mean",
    lam: float = LAMBDA,
    epsilon: float = EPSILON,
    preset: Literal["sound", "paper"] = "sound",
    compare: bool = True,
) -> DifficultPicks:
    """The most difficult references (Eq. 3), and the most difficult images of each (Eq. 4).

    Parameters
    ----------
    references : (M,)
        Name of each stimulus's reference.
    features : (R, D) or None
        One row per distinct reference, in the order in which ``references`` first names them.
    n_references, per_reference
        N and K of Eqs. 3 and 4.

    The other parameters, and what is raised, as in `select_difficult`. Difficulty of a reference
    is the mean over its stimuli.
    """
    terms = _terms(div, lam, epsilon, preset)
    inputs = _inputs(mos, opinion_sd, expert, preset)
    _same_length("references", len(references), len(inputs.mos))
    names = list(dict.fromkeys(references))
    rows = _features(features, len(names), terms, "reference")
    code = {name: k for k, name in enumerate(names)}
    of_reference = np.array([code[name] for name in references], dtype=np.intp)
    count = np.bincount(of_reference, minlength=len(names))
    warnings = [*inputs.warnings, *_too_many(n_references, len(names), "references")]
    if len(count) and count.min() < per_reference:
        short = int((count < per_reference).sum())
        warnings.append(
            f"{short} references have fewer than {per_reference} stimuli: all are taken"
        )

    def select(terms: _Terms, normalised: bool) -> _Selected:
        each = inputs.difficulty(terms.epsilon, normalised=normalised)
        mean = np.bincount(of_reference, each, len(names)) / count
        chosen, objective = terms.pick(mean, rows, n_references)
        hardest = np.argsort(-each, kind="stable")
        members = [hardest[of_reference[hardest] == r][:per_reference] for r in chosen]
        return np.concatenate(members), objective, tuple(names[r] for r in chosen)

    return _recorded(select, inputs, terms, warnings, opinion_sd, compare)


def _recorded(
    select: Callable[[_Terms, bool], _Selected],
    inputs: _Inputs,
    terms: _Terms,
    warnings: Sequence[str],
    opinion_sd: ArrayLike | None,
    compare: bool,
) -> DifficultPicks:
    """The record of a selection, compared with those without a term where that is asked for."""
    picks, objective, references = select(terms, True)
    found = DifficultPicks(
        picks,
        objective,
        inputs.difficulty(terms.epsilon),
        terms.div,
        terms.lam,
        terms.epsilon,
        terms.preset,
        inputs.spread(picks),
        references=references,
        warnings=tuple(warnings),
    )
    if not compare:
        return found
    return _compared(found, terms, lambda t, norm: select(t, norm)[0], opinion_sd)


def _compared(
    found: DifficultPicks,
    terms: _Terms,
    select: Callable[[_Terms, bool], NDArray[np.intp]],
    opinion_sd: ArrayLike | None,
) -> DifficultPicks:
    """The same record with what each term changed, and warnings where that is little."""
    without_variance = select(terms, False)
    by_variance = _n_changed(found.picks, without_variance)
    by_diversity = _n_changed(found.picks, select(replace(terms, lam=0.0), True))
    warnings = list(found.warnings)
    everything = len(found.picks) == len(found.difficulty)
    few = FEW * len(found.picks)
    if found.lam > 0 and by_diversity <= few and not everything:
        warnings.append(
            f"the diversity term (lambda {found.lam:g}) changed {by_diversity} of "
            f"{len(found.picks)} picks: raise lambda for more"
        )
    if opinion_sd is not None and by_variance <= few and not everything:
        warnings.append(
            f"variance normalisation changed {by_variance} of {len(found.picks)} picks: "
            "check that the opinion SD stands on 0..100, as MOS does"
        )
    sd = None if opinion_sd is None else np.nan_to_num(np.asarray(opinion_sd, dtype=np.float64))
    return replace(
        found,
        changed_by_diversity=by_diversity,
        changed_by_variance=by_variance,
        sd_picks=None if sd is None else sd[found.picks],
        sd_without_variance=None if sd is None else sd[without_variance],
        sd_all=sd,
        warnings=tuple(warnings),
    )


def _n_changed(picks: NDArray[np.intp], others: NDArray[np.intp]) -> int:
    return len(set(picks.tolist()) - set(others.tolist()))


def _terms(div: Div, lam: float, epsilon: float, preset: Literal["sound", "paper"]) -> _Terms:
    if div not in DIVS:
        raise known_names("diversity measure", div, DIVS)
    if preset not in ("sound", "paper"):
        raise known_names("preset", preset, ("sound", "paper"))
    if not (lam >= 0 and np.isfinite(lam)):
        raise UsageError(f"lambda {lam:g}: expected a number >= 0")
    if not (epsilon > 0 and np.isfinite(epsilon)):
        raise UsageError(f"epsilon {epsilon:g}: expected a number > 0")
    return _Terms("cosine_to_mean" if preset == "paper" else div, lam, epsilon, preset)


def _inputs(
    mos: ArrayLike, opinion_sd: ArrayLike | None, expert: ArrayLike, preset: str
) -> _Inputs:
    human = _finite(mos, "MOS")
    scores = _finite(expert, "expert scores")
    _same_length("expert scores", len(scores), len(human))
    if not len(human):
        raise UsageError("no stimuli to select from")
    if human.min() < -1e-6 or human.max() > 100 + 1e-6:
        raise UsageError(
            f"MOS of {human.min():g}..{human.max():g}: expected 0..100 (`StimulusSet.quality`)"
        )
    if np.ptp(scores) == 0:
        raise UsageError(
            f"the expert gives {scores[0]:g} to all {len(scores)} stimuli: "
            "it cannot say which are difficult; take another expert"
        )
    sd, warnings = _opinion_sd(opinion_sd, len(human))
    if preset == "paper":
        low, span = human.min(), max(np.ptp(human), 1e-12)
        human, scores = (human - low) / span, (scores - low) / span
        sd = (sd - sd.min()) / max(np.ptp(sd), 1e-12)
    elif human.max() <= 1.5 and len(human) > 2:
        warnings.append(
            f"MOS of {human.min():g}..{human.max():g} look like a scale of 0..1: with epsilon = 1 "
            "variance normalisation does nothing there; give them on 0..100"
        )
    return _Inputs(human, sd, scores, tuple(warnings))


def _opinion_sd(opinion_sd: ArrayLike | None, n: int) -> tuple[FloatArray, list[str]]:
    """SDs with 0 for what is missing, and the warning that says so."""
    if opinion_sd is None:
        return np.zeros(n), ["no opinion SD: treated as 0, so difficulty is the squared error"]
    sd = np.asarray(opinion_sd, dtype=np.float64)
    _same_length("opinion SD", len(sd), n)
    missing = np.isnan(sd)
    if (sd[~missing] < 0).any() or np.isinf(sd).any():
        raise UsageError("an opinion SD is negative or infinite: expected finite numbers >= 0")
    warnings = []
    if missing.any():
        warnings.append(
            f"opinion SD of {missing.sum()} of {n} stimuli is missing: treated as 0, "
            "which makes those look certain"
        )
    return np.where(missing, 0.0, sd), warnings


def _features(
    features: NDArray[np.floating] | None, n: int, terms: _Terms, what: str
) -> NDArray[np.floating] | None:
    if features is None:
        if terms.lam == 0:
            return None
        raise UsageError("a diversity term (lambda > 0) needs features; give them, or lambda 0")
    if features.ndim != 2 or len(features) != n:
        raise UsageError(
            f"features of shape {features.shape}: expected {n} rows, one per {what}, "
            "in the same order"
        )
    # The released code divides each feature by its own absolute value: L2 over the wrong axis.
    return np.sign(features) if terms.preset == "paper" else features


def _finite(values: ArrayLike, what: str) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise UsageError(f"{what} of shape {array.shape}: expected one number per stimulus")
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise UsageError(
            f"{len(bad)} of {len(array)} {what} are not finite, the first at position {bad[0]}: "
            "leave those stimuli out or compute them again"
        )
    return array


def _same_length(what: str, got: int, expected: int) -> None:
    if got != expected:
        raise UsageError(f"{got} {what} for {expected} MOS: expected one for each stimulus")


def _too_many(n: int, available: int, what: str) -> list[str]:
    if n < 1:
        raise UsageError(f"{n} {what} asked for: expected at least 1")
    if n < available:
        return []
    return [f"{n} {what} asked for and {available} are there: all are taken, none is left out"]
