"""A stimulus set reduced to its difficult samples: scores, features and Eqs. 3-5 put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from iqa_checks.difficult import (
    EPSILON,
    LAMBDA,
    N_IMAGES,
    N_REFERENCES,
    PER_REFERENCE,
    DifficultPicks,
    select_difficult,
    select_difficult_by_reference,
)
from iqa_checks.experts import default_experts, fuse, score_stimuli
from iqa_checks.experts.fusion import Align
from iqa_checks.features import embed_images
from iqa_checks.greedy import Div

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqa_checks.stimuli import Image, StimulusSet


@dataclass(frozen=True, slots=True)
class Selecting:
    """How difficult samples are selected; every choice is stated in the notes of the set.

    ``experts`` empty: `default_experts`. ``n_images`` is N of Eq. 5, ``n_references`` and
    ``per_reference`` are N and K of Eqs. 3 and 4. ``n_folds`` aligns experts out of fold.
    """

    cache_dir: Path
    experts: tuple[str, ...] = ()
    embedder: str = "clip-vit-b-32"
    n_images: int = N_IMAGES
    n_references: int = N_REFERENCES
    per_reference: int = PER_REFERENCE
    div: Div = "mean"
    lam: float = LAMBDA
    epsilon: float = EPSILON
    align: Align = "logistic"
    n_folds: int | None = None
    preset: Literal["sound", "paper"] = "sound"
    weights_dir: Path | None = None
    device: str = "cpu"
    jobs: int | None = None
    ray_address: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DifficultSet:
    """The difficult samples as a stimulus set, and the record of their selection.

    ``expert_scores`` are those of the experts that selected, for the samples kept.
    """

    stimuli: StimulusSet
    picks: DifficultPicks
    experts: tuple[str, ...]
    expert_scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)


def difficult_stimuli(stimuli: StimulusSet, scenario: str, how: Selecting) -> DifficultSet:
    """The difficult samples of a set; FR by reference (Eqs. 3-4), else over all (Eq. 5).

    Raises
    ------
    UsageError
        Absent weights or packages of an expert or the embedder, or what `select_difficult` and
        `fuse` refuse.
    StimuliAbsent
        A full-reference expert for stimuli without references.
    """
    names = how.experts or default_experts(stimuli.name, scenario)
    scores = {
        name: score_stimuli(
            stimuli,
            name,
            cache_dir=how.cache_dir,
            weights_dir=how.weights_dir,
            device=how.device,
            jobs=how.jobs,
            ray_address=how.ray_address,
        )
        for name in names
    }
    by_reference = scenario == "fr"
    groups = stimuli.references if by_reference else None
    fused = fuse(
        scores,
        stimuli.quality,
        align=how.align,
        n_folds=how.n_folds,
        groups=groups,
        preset=how.preset,
    )
    picks = _select(stimuli, fused, by_reference, how)
    kept = np.sort(picks.picks)
    by_rank = " (aligned by rank)" if how.align == "rank" else ""
    chosen = stimuli.subset(
        [stimuli.stimuli[int(k)] for k in kept],
        f"difficult for {' + '.join(names)}{by_rank}, "
        f"features {how.embedder if how.lam else 'none'}",
    )
    noted = replace(chosen, notes=(*chosen.notes, str(picks), *picks.warnings))
    return DifficultSet(noted, picks, names, {name: x[kept] for name, x in scores.items()})


def _select(
    stimuli: StimulusSet, fused: NDArray[np.float64], by_reference: bool, how: Selecting
) -> DifficultPicks:
    shown = _references(stimuli) if by_reference else [s.image for s in stimuli.stimuli]
    features = _embedded(shown, how) if how.lam else None
    terms: dict[str, Any] = {
        "div": how.div,
        "lam": how.lam,
        "epsilon": how.epsilon,
        "preset": how.preset,
    }
    sd = opinion_sd(stimuli)
    if by_reference:
        return select_difficult_by_reference(
            stimuli.quality,
            sd,
            fused,
            stimuli.references,
            features,
            how.n_references,
            how.per_reference,
            **terms,
        )
    return select_difficult(stimuli.quality, sd, fused, features, how.n_images, **terms)


def opinion_sd(stimuli: StimulusSet) -> NDArray[np.float64] | None:
    """SDs of single opinions on 0..100, nan where missing; None where the set has none.

    An SD of the mean opinion is another thing and counts as missing.
    """
    if stimuli.sd_kind != "per_opinion":
        return None
    low, high = stimuli.scale
    sd = [np.nan if s.opinion_sd is None else s.opinion_sd for s in stimuli.stimuli]
    return 100.0 * np.array(sd) / (high - low)


def _references(stimuli: StimulusSet) -> list[Image]:
    """The distinct references, in the order in which the stimuli first name them."""
    images = [s.reference_image for s in stimuli.stimuli]
    return list({image.sha256: image for image in images if image is not None}.values())


def _embedded(images: Sequence[Image], how: Selecting) -> NDArray[np.float32]:
    return embed_images(
        images,
        how.embedder,
        cache_dir=how.cache_dir,
        weights_dir=how.weights_dir,
        device=how.device,
        jobs=how.jobs,
        ray_address=how.ray_address,
    )
