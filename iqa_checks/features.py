"""Image features for the diversity term of Eqs. 3 and 5: unit vectors whose distances mean content.

The paper takes the visual encoder of CLIP. Where its weights are not at hand, "offline" can be
asked for by name; one never takes the other's place unasked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from iqa_checks.errors import MissingExtra, UsageError, known_names
from iqa_checks.experts.computing import (
    Item,
    Measure,
    Opener,
    Pair,
    Where,
    compute_once,
    measure,
)
from iqa_checks.experts.opening import quiet
from iqa_checks.experts.packages import require
from iqa_checks.experts.scoring import BATCH, COMPARED, TOLERANCE
from iqa_checks.experts.weights import WeightFile, find_all, identity, staged

if TYPE_CHECKING:
    from iqa_checks.stimuli import Image

Features = NDArray[np.float32]
Embed = Callable[[Sequence[Path]], NDArray[np.floating]]
"""Features of image files, in any scale, shape (N, D)."""

SIDE, GRID, ORIENTATIONS, LEVELS = 96, 4, 8, 4


@dataclass(frozen=True, slots=True)
class Embedder:
    """What turns an image into a feature vector.

    ``open`` takes the weight files found and a device. ``revision`` counts changes of our own code
    that change features.
    """

    name: str
    package: str
    licence: str
    open: Callable[[Sequence[Path], str], Embed]
    weights: tuple[WeightFile, ...] = ()
    revision: int = 1


def embed_images(
    images: Sequence[Image],
    embedder: str,
    *,
    cache_dir: Path,
    weights_dir: Path | None = None,
    device: str = "cpu",
    jobs: int | None = None,
    ray_address: str | None = None,
    batch: int | None = None,
) -> Features:
    """Feature rows of unit length, shape (len(images), D); each image is embedded once.

    Give the stimuli's images for Eq. 5, and the distinct references for Eq. 3. The parameters, and
    what is raised, are those of `iqa_checks.experts.score_stimuli`; batches on an accelerator are
    compared with single images on the CPU, as there (a row has length 1, so a difference of
    `TOLERANCE` is an angle of half a degree).
    """
    found = find_embedder(embedder)
    weights = find_all(found.weights, weights_dir, who=f"embedder {embedder}")
    items = [Item(image.sha256, image.path) for image in images]
    size = batch or (1 if device == "cpu" else BATCH)
    about = {
        "embedder": found.name,
        "revision": found.revision,
        "package": {found.package: _version(found)},
        "weights": identity(list(weights.values())),
        "device": device,
    }
    if size > 1:
        about["batch"] = size
    where = Where(cache_dir, 1 if device != "cpu" else jobs, ray_address)
    opener = Opener(_open, (embedder, weights_dir, device), size)
    alone = Opener(_open, (embedder, weights_dir, "cpu"))
    values = compute_once(
        items,
        opener,
        about,
        where,
        name=embedder,
        remark=None
        if device == "cpu" and size == 1
        else lambda few: _deviation(few, opener, alone),
    )
    return values.astype(np.float32)


def _deviation(items: Sequence[Item], opener: Opener, alone: Opener) -> str:
    """How far rows of ``opener`` lie from those of single images on the CPU."""
    few = items[:COMPARED]
    first, second = (np.array([measure(o, few)[i.key] for i in few]) for o in (opener, alone))
    farthest = float(np.linalg.norm(first - second, axis=1).max())
    name, _, device = opener.arguments
    said = (
        f"{name}: rows of batches of {opener.batch} on {device} lie within {farthest:.2g} of those "
        f"of single images on the CPU (first {len(few)} images, rows of length 1)"
    )
    if not farthest <= TOLERANCE:
        raise UsageError(f"{said}: more than {TOLERANCE}; embed on the CPU (--iqa-device cpu)")
    return said


def find_embedder(name: str) -> Embedder:
    """The embedder of that name; `UsageError` that lists the known ones otherwise."""
    if name not in EMBEDDERS:
        raise known_names("embedder", name, EMBEDDERS)
    return EMBEDDERS[name]


def offline_features(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Where which colours and edges are, with numpy alone; shape (240,), unit length.

    Of the picture scaled to 96 x 96 (Pillow, box filter): mean opponent colours in a 4 x 4 grid
    (48 values, less their mean), gradient energy by 8 orientations in the same grid (128, square
    roots), and a 4 x 4 x 4 RGB histogram (64, square roots). Each of the three parts has the same
    length. It tells layouts and palettes apart, not what is shown: two cats are not near each
    other.
    """
    small = _scaled(pixels) / 255.0
    parts = [_colour_layout(small), _edge_layout(small @ np.array([0.299, 0.587, 0.114])),
             _palette(small)]  # fmt: skip
    return _unit(np.concatenate([_unit(part) for part in parts]))


def _scaled(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    import PIL.Image

    image = PIL.Image.fromarray(pixels).resize((SIDE, SIDE), PIL.Image.Resampling.BOX)
    return np.asarray(image, dtype=np.float64)


def _in_grid(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """(SIDE, SIDE, C) to means over a GRID x GRID of cells, shape (GRID * GRID, C)."""
    cell = SIDE // GRID
    blocks = plane.reshape(GRID, cell, GRID, cell, -1)
    means: NDArray[np.float64] = blocks.mean(axis=(1, 3)).reshape(GRID * GRID, -1)
    return means


def _colour_layout(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    red, green, blue = np.moveaxis(rgb, 2, 0)
    opponent = np.stack([(red + green + blue) / 3, red - green, (red + green) / 2 - blue], axis=2)
    cells = _in_grid(opponent)
    centred = cells - np.array([0.5, 0.0, 0.0])  # mid-grey is the origin
    layout: NDArray[np.float64] = centred.ravel()
    return layout


def _edge_layout(luma: NDArray[np.float64]) -> NDArray[np.float64]:
    down, across = np.gradient(luma)
    angle = np.arctan2(down, across) % np.pi
    which = np.minimum((angle / np.pi * ORIENTATIONS).astype(int), ORIENTATIONS - 1)
    energy = np.hypot(down, across)[:, :, None] * (which[:, :, None] == np.arange(ORIENTATIONS))
    return np.sqrt(_in_grid(energy)).ravel()


def _palette(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    level = np.minimum((rgb * LEVELS).astype(int), LEVELS - 1)
    code = (level @ [LEVELS * LEVELS, LEVELS, 1]).ravel()
    shares: NDArray[np.float64] = np.bincount(code, minlength=LEVELS**3) / code.size
    return np.sqrt(shares)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Length 1; a vector of zeros stays one."""
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else vector


def _open_offline(_weights: Sequence[Path], _device: str) -> Embed:
    from iqa_checks.experts.opening import read_pixels

    return lambda paths: np.stack([offline_features(read_pixels(path)) for path in paths])


def _open_clip(weights: Sequence[Path], device: str, *, model: str = "ViT-B-32") -> Embed:
    """CLIP's image encoder with its official preprocessing: bicubic 224, centre crop, its means.

    OpenAI's weights were trained with QuickGELU, which open_clip must be told for a local file.
    """
    open_clip = require("open_clip", "the CLIP embedder")
    torch = require("torch", "the CLIP embedder")
    (path,) = weights
    with quiet(), staged({}):
        network, _, preprocess = open_clip.create_model_and_transforms(
            model, pretrained=str(path), force_quick_gelu=True, device=device
        )
    network.eval()

    def shown(path: Path) -> Any:
        import PIL.Image

        with PIL.Image.open(path) as image:
            return preprocess(image.convert("RGB"))

    def embed(paths: Sequence[Path]) -> NDArray[np.floating]:
        tensor = torch.stack([shown(path) for path in paths]).to(device)
        with torch.inference_mode():
            features: NDArray[np.floating] = network.encode_image(tensor).cpu().numpy()
        return features

    return embed


EMBEDDERS: dict[str, Embedder] = {
    e.name: e
    for e in (
        Embedder(
            "clip-vit-b-32",
            "open_clip_torch",
            "MIT (code and weights)",
            _open_clip,
            (
                WeightFile(
                    "timm/vit_base_patch32_clip_224.openai/open_clip_model.safetensors",
                    605,
                    "huggingface",
                ),
            ),
        ),
        Embedder("offline", "numpy", "Apache-2.0", _open_offline),
    )
}


def _open(embedder: str, weights_dir: Path | None, device: str) -> Measure:
    found = find_embedder(embedder)
    weights = find_all(found.weights, weights_dir, who=f"embedder {embedder}")
    embed = found.open(list(weights.values()), device)

    def rows(pairs: Sequence[Pair]) -> list[list[float]]:
        features = np.asarray(embed([path for path, _ in pairs]), dtype=np.float64)
        return [_unit(row).tolist() for row in features]

    return rows


def _version(embedder: Embedder) -> str:
    try:
        return version(embedder.package)
    except PackageNotFoundError:
        raise MissingExtra(embedder.package, "experts", f"embedder {embedder.name}") from None
