"""Scores of an expert for a stimulus set: higher = better, each image once, kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_checks.errors import MissingExtra, StimuliAbsent, UsageError
from iqa_checks.experts.computing import Item, Opener, Where, compute_once
from iqa_checks.experts.opening import open_expert
from iqa_checks.experts.registry import Expert, find_expert
from iqa_checks.experts.weights import find_all, identity

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from iqa_checks.stimuli import Stimulus, StimulusSet


def score_stimuli(
    stimuli: StimulusSet,
    expert: str,
    *,
    cache_dir: Path,
    weights_dir: Path | None = None,
    device: str = "cpu",
    jobs: int | None = None,
    ray_address: str | None = None,
) -> NDArray[np.float64]:
    """Scores of one expert, higher = better, on its own scale, shape (M,) in stimulus order.

    Images go in one at a time and at their own size. What was computed before for the same bytes
    by the same version with the same weights is read from ``cache_dir``; a run that was killed
    goes on where it was.

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

    Raises
    ------
    UsageError
        An unknown expert, absent weights, or an absent package.
    StimuliAbsent
        A full-reference expert, and stimuli without a reference.
    StimulusError
        An image that the expert cannot take; it is named.
    """
    found = find_expert(expert)
    items = [_item(stimulus, found, stimuli.name) for stimulus in stimuli.stimuli]
    weights = find_all(found.weights, weights_dir, who=f"expert {expert}")
    where = Where(cache_dir, 1 if device != "cpu" else jobs, ray_address)
    opener = Opener(_open, (expert, weights_dir, device))
    about = about_expert(found, identity(list(weights.values())), device)
    raw = compute_once(items, opener, about, where, name=expert)
    oriented = raw[:, 0] if len(items) else raw.reshape(0)
    return -oriented if found.lower_better else oriented


def about_expert(expert: Expert, weights: Sequence[str], device: str) -> dict[str, Any]:
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
        "batch": 1,
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


def _open(expert: str, weights_dir: Path | None, device: str) -> Any:
    score = open_expert(expert, weights_dir, device)

    def values(path: Path, reference: Path | None) -> tuple[float]:
        value = score(path, reference)
        if value != value:
            raise UsageError(f"expert {expert} gives no number for {path}: take another expert")
        return (value,)

    return values
