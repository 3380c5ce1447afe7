"""Scores of an expert for a stimulus set: higher = better, each image once, kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_checks.errors import MissingExtra, StimuliAbsent, UsageError
from iqa_checks.experts.computing import (
    Item,
    Measure,
    Opener,
    Pair,
    Where,
    compute_once,
    measure,
    remarks,
)
from iqa_checks.experts.opening import open_expert
from iqa_checks.experts.registry import Expert, find_expert
from iqa_checks.experts.weights import find_all, identity

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from iqa_checks.stimuli import Stimulus, StimulusSet

BATCH = 16  # images on an accelerator
COMPARED = 4  # first images of a run that are scored on the CPU too
TOLERANCE = 0.01  # of the largest of their scores; float32 on two devices differs by 1e-4 and less


def score_stimuli(
    stimuli: StimulusSet,
    expert: str,
    *,
    cache_dir: Path,
    weights_dir: Path | None = None,
    device: str = "cpu",
    jobs: int | None = None,
    ray_address: str | None = None,
    batch: int | None = None,
) -> NDArray[np.float64]:
    """Scores of one expert, higher = better, on its own scale, shape (M,) in stimulus order.

    Images go in at their own size. What was computed before for the same bytes by the same version
    with the same weights is read from ``cache_dir``; a run that was killed goes on where it was.

    Parameters
    ----------
    expert
        A name of `EXPERTS`.
    weights_dir
        Folder with weight files, looked at before the caches of PyTorch and Hugging Face.
    device
        "cpu" or as torch names it; part of what identifies a score, since they differ slightly.
    jobs, ray_address
        Where to compute: `Where`. On another device than the CPU always one process.
    batch
        Images of equal size that go through the network together. None: 1 on the CPU, `BATCH`
        elsewhere; always 1 for an expert whose scores depend on their neighbours. How far batches
        on the device lie from single images on the CPU is measured on the first images of a run
        and kept beside the scores: `how_computed`.

    Raises
    ------
    UsageError
        An unknown expert, absent weights, an absent package, or batches that change scores by more
        than `TOLERANCE`.
    StimuliAbsent
        A full-reference expert, and stimuli without a reference.
    StimulusError
        An image that the expert cannot take; it is named.
    """
    found = find_expert(expert)
    items = [_item(stimulus, found, stimuli.name) for stimulus in stimuli.stimuli]
    weights = find_all(found.weights, weights_dir, who=f"expert {expert}")
    device = "cpu" if found.route == "own" else device
    where = Where(cache_dir, 1 if device != "cpu" else jobs, ray_address)
    size = _batch(found, device, batch)
    opener = Opener(_open, (expert, weights_dir, device), size)
    alone = Opener(_open, (expert, weights_dir, "cpu"))
    about = about_expert(found, identity(list(weights.values())), device, size)
    raw = compute_once(
        items,
        opener,
        about,
        where,
        name=expert,
        remark=None
        if device == "cpu" and size == 1
        else lambda few: _deviation(few, opener, alone),
    )
    oriented = raw[:, 0] if len(items) else raw.reshape(0)
    return -oriented if found.lower_better else oriented


def how_computed(
    expert: str,
    *,
    cache_dir: Path,
    weights_dir: Path | None = None,
    device: str = "cpu",
    batch: int | None = None,
) -> tuple[str, ...]:
    """What is kept beside an expert's scores: how far batches on the device lie from the CPU.

    () where images went through the CPU one at a time. The parameters are those of
    `score_stimuli`.
    """
    found = find_expert(expert)
    weights = find_all(found.weights, weights_dir, who=f"expert {expert}")
    size = _batch(found, device, batch)
    about = about_expert(found, identity(list(weights.values())), device, size)
    return remarks(about, cache_dir, name=expert)


def _batch(expert: Expert, device: str, asked: int | None) -> int:
    if asked is not None and asked < 1:
        raise UsageError(f"batches of {asked} images: expected at least 1")
    if not expert.batched or expert.route == "own":
        return 1
    return asked or (1 if device == "cpu" else BATCH)


def _deviation(items: Sequence[Item], opener: Opener, alone: Opener) -> str:
    """How far ``opener`` lies from single images on the CPU; `UsageError` where it is too far."""
    few = items[:COMPARED]
    name, _, device = opener.arguments
    first, second = ([measure(o, few)[i.key][0] for i in few] for o in (opener, alone))
    farthest = max(abs(a - b) for a, b in zip(first, second, strict=True))
    largest = max(abs(value) for value in second)
    said = (
        f"{name}: batches of {opener.batch} on {device} lie within {farthest:.2g} of single images "
        f"on the CPU (first {len(few)} images, scores up to {largest:.3g})"
    )
    if not farthest <= TOLERANCE * max(largest, 1e-3):
        raise UsageError(
            f"{said}: more than {TOLERANCE:.0%}; score this expert on the CPU (--iqa-device cpu)"
        )
    return said


def about_expert(expert: Expert, weights: Sequence[str], device: str, batch: int) -> dict[str, Any]:
    """All that decides a score besides the image: the identity under which it is kept."""
    return {
        "expert": expert.name,
        "revision": expert.revision,
        "package": {expert.package: _version(expert)},
        "metric": expert.metric,
        "weights": list(weights),
        "dtype": expert.dtype,
        "device": "cpu" if expert.route == "own" else device,
        "resize": "none",
        "batch": batch,
    }


def _version(expert: Expert) -> str:
    try:
        return version(expert.package)
    except PackageNotFoundError:
        raise MissingExtra(expert.package, "experts", f"expert {expert.name}") from None


def _item(stimulus: Stimulus, expert: Expert, name: str) -> Item:
    if expert.reference == "none":
        return Item(stimulus.image.sha256, stimulus.path)
    if stimulus.reference is None:
        raise StimuliAbsent(
            f"expert {expert.name} compares with a reference, and {stimulus.path.name} of {name} "
            "has none: take a no-reference expert, or a table with a column 'reference'"
        )
    return Item(stimulus.sha256, stimulus.path, stimulus.reference)


def _open(expert: str, weights_dir: Path | None, device: str) -> Measure:
    score = open_expert(expert, weights_dir, device)

    def values(pairs: Sequence[Pair]) -> list[tuple[float]]:
        found = score(pairs)
        for (path, _), value in zip(pairs, found, strict=True):
            if value != value:
                raise UsageError(f"expert {expert} gives no number for {path}: take another expert")
        return [(value,) for value in found]

    return values
