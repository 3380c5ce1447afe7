"""Colour difference: alterations of photographs, scored by mean CIEDE2000.

The kinds of alteration follow SPCD's description (other cameras, edits, filters, wrong colour
profiles); SPCD publishes no sizes, so these were chosen to cover its range of 1 to 16. A score is
measured on the pixels that are sent: the mean over pixels of CIEDE2000 between the photograph and
its altered copy, both as 8-bit sRGB. It is *by construction*, not a rating; on the 35 rated pairs
of SPCD's scene I0249 the rule has the SRCC that docs/builtin-stimuli.md reports.

Which alterations a set holds is settled on thumbnails of 48 x 36 pixels, so only selected ones are
made at full size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iqa_checks.builtin.generation import Recipe, generate, key
from iqa_checks.builtin.photographs import Photograph, Photographs
from iqa_checks.builtin.picks import spread
from iqa_checks.distortions import _lab, _rgb, contrast_change
from iqa_checks.stimuli import Rated, Stimulus, StimulusSet, check_opinions, verify

if TYPE_CHECKING:
    from iqa_checks.builtin.generation import Pixels

Floats = NDArray[np.float64]
OPINION = "mean CIEDE2000, by construction"
NOTE = "scores: mean CIEDE2000 of the pixels, by construction, not ratings"
THUMBNAIL = (48, 36)
RANGE = (0.9, 16.5)  # SPCD's differences run from 0.93 to 16.22
QUICK_CONTENTS, MOST_CONTENTS = 5, 30
EXEMPLARS = (("hue", 15), ("gamma", 1.9), ("exposure", 0.3), ("white-balance", 1.6))


class Cell(NamedTuple):
    """One possible stimulus: a photograph and an alteration of it."""

    content: Photograph
    kind: str
    amount: float


# --- alterations: sRGB 0..1, shape (H, W, 3), in and out ------------------------------------------


def white_balance(x: Floats, stops: float) -> Floats:
    """Warmer (> 0) or cooler: red up and blue down by half of `stops` each, in linear light."""
    return _curved(_linear(x) * 2.0 ** np.array([stops / 2, 0.0, -stops / 2]))


def exposure(x: Floats, stops: float) -> Floats:
    """Linear light times 2 to the power of `stops`; highlights clip as in a camera."""
    return _curved(_linear(x) * 2.0**stops)


def gamma(x: Floats, exponent: float) -> Floats:
    """Midtones darker (> 1) or lighter."""
    return np.power(x, exponent)


def saturation(x: Floats, gain: float) -> Floats:
    """Chroma of CIELAB times `gain`."""
    return _rgb(_lab(x) * np.array([1.0, gain, gain]))


def hue(x: Floats, degrees: float) -> Floats:
    """Hue of CIELAB turned by `degrees`."""
    a = math.radians(degrees)
    turn = np.array([[1, 0, 0], [0, math.cos(a), math.sin(a)], [0, -math.sin(a), math.cos(a)]])
    return _rgb(_lab(x) @ turn)


def contrast(x: Floats, amount: float) -> Floats:
    """KADID's odd cubic tone curve (type 25), of which `amount` 0 here is the identity."""
    return contrast_change(x, amount - 0.2, np.random.default_rng(0))


def split_toning(x: Floats, strength: float) -> Floats:
    """Shadows towards blue and highlights towards orange by `strength` of CIELAB, or reversed."""
    lab = _lab(x)
    tone = (lab[..., :1] - 50.0) / 50.0
    return _rgb(lab + np.concatenate([0 * tone, 0.4 * tone, tone], axis=2) * strength)


def wrong_profile(x: Floats, number: float) -> Floats:
    """Numbers taken for those of another colour space, by number of `_PROFILES`."""
    taken_for, made_in = _PROFILES[round(number) - 1]
    return _curved(_linear(x) @ (_to_xyz(taken_for).T @ np.linalg.inv(_to_xyz(made_in)).T))


# Primaries (x, y) of red, green and blue: IEC 61966-2-1, SMPTE EG 432-1 with D65, Adobe RGB (1998),
# ITU-R BT.2020. All have the white D65 and, here, sRGB's transfer curve: SPCD's kind of error is
# one of primaries.
_PRIMARIES = {
    "srgb": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    "p3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    "adobe": ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)),
    "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
}
_PROFILES = (
    ("p3", "srgb"), ("srgb", "p3"), ("adobe", "srgb"),
    ("srgb", "adobe"), ("bt2020", "srgb"), ("srgb", "bt2020"),
)  # fmt: skip


def _to_xyz(space: str) -> Floats:
    """RGB of a space to XYZ with white D65 (x .3127, y .3290)."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in _PRIMARIES[space]]).T
    white = np.array([0.3127 / 0.3290, 1.0, (1 - 0.3127 - 0.3290) / 0.3290])
    return np.asarray(columns * np.linalg.solve(columns, white))


def _linear(x: Floats) -> Floats:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def _curved(linear: Floats) -> Floats:
    light = np.clip(linear, 0.0, 1.0)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


ALTERATIONS: Mapping[str, tuple[Callable[[Floats, float], Floats], tuple[float, ...]]] = {
    "white-balance": (white_balance, (-1.6, -0.8, -0.4, -0.15, 0.15, 0.4, 0.8, 1.6)),
    "exposure": (exposure, (-1.5, -0.8, -0.4, -0.15, 0.15, 0.3, 0.6, 1.0)),
    "gamma": (gamma, (0.55, 0.7, 0.82, 0.94, 1.08, 1.25, 1.5, 1.9)),
    "saturation": (saturation, (0.0, 0.3, 0.6, 0.85, 1.15, 1.4, 1.8, 2.5)),
    "hue": (hue, (-60, -30, -15, -5, 5, 15, 30, 60)),
    "contrast": (contrast, (-0.5, -0.35, -0.2, -0.08, 0.08, 0.2, 0.35, 0.5)),
    "split-toning": (split_toning, (-40, -24, -12, -5, 5, 12, 24, 40)),
    "profile": (wrong_profile, (1, 2, 3, 4, 5, 6)),
}


def altered(pixels: Pixels, kind: str, amount: float) -> Pixels:
    """A uint8 sRGB picture, shape (H, W, 3), after one of `ALTERATIONS`."""
    changed = ALTERATIONS[kind][0](pixels / 255.0, amount)
    return np.floor(np.clip(changed, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def mean_ciede2000(first: Pixels, second: Pixels) -> float:
    """Mean over pixels of the CIEDE2000 difference of two uint8 sRGB pictures of one size."""
    from skimage import color

    difference: Any = color.deltaE_ciede2000  # untyped in some versions
    return float(np.mean(difference(_lab(first / 255.0), _lab(second / 255.0))))


# --- the set -----------------------------------------------------------------------------------


def color_set(name: str, pictures: Photographs, cache_dir: Path, n: int, seed: int) -> StimulusSet:
    """``n`` pairs of a photograph and its altered copy, spread over sizes and kinds."""
    contents = pictures.tested[: QUICK_CONTENTS if n < 150 else MOST_CONTENTS]
    cells = _selected(contents, n, seed)
    shown = [Cell(pictures.held_out[1], *exemplar) for exemplar in EXEMPLARS]
    rows, examples = _made(cells, cache_dir), _made(shown, cache_dir)
    top = float(math.ceil(max(row.mos for row in [*rows, *examples])))
    check_opinions(rows, (0.0, top), name="generated pairs")
    return StimulusSet(
        name=name,
        stimuli=_verified(rows),
        scale=(0.0, top),
        polarity="lower_better",
        attribute="color_difference",
        opinion=OPINION,
        exemplars=_verified(examples),
        notes=(NOTE, *pictures.notes(contents)),
    )


def _selected(contents: Sequence[Photograph], n: int, seed: int) -> list[Cell]:
    cells = [
        Cell(content, kind, amount)
        for content in contents
        for kind, (_, amounts) in ALTERATIONS.items()
        for amount in amounts
    ]
    thumbnails = {content: _thumbnail(content.pixels()) for content in contents}
    sizes = [_difference(thumbnails[c.content], c.kind, c.amount) for c in cells]
    cells = [c for c, size in zip(cells, sizes, strict=True) if RANGE[0] <= size <= RANGE[1]]
    expected = [size for size in sizes if RANGE[0] <= size <= RANGE[1]]
    kinds = [(c.kind, c.content.name) for c in cells]
    keys = [key(seed, c.content.name, c.kind, c.amount) for c in cells]
    return [cells[k] for k in spread(expected, n, kinds, keys, Counter())]


def _thumbnail(pixels: Pixels) -> Pixels:
    import PIL.Image

    return np.asarray(PIL.Image.fromarray(pixels).resize(THUMBNAIL, PIL.Image.Resampling.BOX))


def _difference(pixels: Pixels, kind: str, amount: float) -> float:
    return mean_ciede2000(pixels, altered(pixels, kind, amount))


def _made(cells: Sequence[Cell], cache_dir: Path) -> list[Rated]:
    recipes = [_recipe(cell) for cell in cells]
    images = generate([*(cell.content.recipe for cell in cells), *recipes], cache_dir)
    rows = []
    for cell, recipe in zip(cells, recipes, strict=True):
        image = images[recipe.name]
        assert image.measured is not None  # the recipe measures
        rows.append(
            Rated(
                path=image.path,
                mos=image.measured,
                reference=images[cell.content.recipe.name].path,
                sha256=image.sha256,
                row=f"{cell.content.name}, {cell.kind} {cell.amount:g}",
            )
        )
    return rows


def _recipe(cell: Cell) -> Recipe:
    content = cell.content
    name = f"{content.folder}/color/{content.file}_{cell.kind}_{cell.amount:g}"
    return Recipe(name, partial(_altered, cell), partial(_distance, content))


def _altered(cell: Cell) -> Pixels:
    return altered(cell.content.pixels(), cell.kind, cell.amount)


def _distance(content: Photograph, pixels: Pixels) -> float:
    # Six digits: the last bits of a mean depend on the machine.
    return round(mean_ciede2000(content.pixels(), pixels), 6)


def _verified(rows: Sequence[Rated]) -> tuple[Stimulus, ...]:
    return verify(rows, name="generated pairs")
