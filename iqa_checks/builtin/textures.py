"""Texture similarity: does another patch of a texture look the same, and damage not?

The reference is a patch of 256 x 256 pixels (the size of TQD's images) of a larger texture; a
stimulus is another patch of it, whole or damaged, or the reference's own patch damaged. Textures:
brick, grass and gravel (grey photographs in scikit-image) and three made here in colour: pebbles,
weave, and wood, which is kept for exemplars.

Scores, on TQD's 0..1, are *by construction*, fixed at two points by ratings:

- An undamaged other patch has .79: TQD's mean of its four resampled variants (.775 to .798).
- Damage takes from that the share of KADID-10k's range that its type and level take from a
  photograph: .79 x (expected opinion - 1) / (4.61 - 1), whichever patch it is done to. That puts
  every damaged patch below every whole one, as in TQD, where noise, blur and compression average
  .52 and the order among them is not documented.

Damage is of the types that TQD and KADID-10k share: white noise, blur, JPEG, JPEG 2000, colour
shift (TQD: chromatic aberration), colour quantization. TQD's pink noise has no opinion in
KADID-10k, and its synthesized textures need models; both are left out.

A statistic that compares pixels in place cannot see that two patches look alike. The simulated
observer has only such a one, and scores near chance here: that is what the set is for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from iqa_checks.builtin.generation import VERSION, Recipe, generate, key
from iqa_checks.builtin.photographs import stretched
from iqa_checks.builtin.picks import n_references, shares, spread
from iqa_checks.distortions import distort, kadid_opinion
from iqa_checks.stimuli import Rated, Stimulus, StimulusSet, check_opinions, verify

if TYPE_CHECKING:
    from iqa_checks.builtin.generation import Pixels

SIDE, PATCH = 512, 256
CORNERS = ((0, 0), (0, 256), (256, 0), (256, 256))  # row, column; the first is the reference
TESTED = ("brick", "grass", "gravel", "pebbles", "weave")
HELD_OUT = "wood"
TYPES = (1, 5, 6, 9, 10, 11)
UNTOUCHED = (1, 1)
WHOLE = 0.79  # TQD: mean of variants 1-4 over ten textures, .7908
OPINION = "expected similarity, by construction"
NOTE = (
    "expected similarity: .79 for an undamaged patch (TQD's mean of resampled variants), less by "
    "KADID-10k's expected opinion for the damage; not ratings"
)


class Cell(NamedTuple):
    """One possible stimulus: patch `patch` of a texture, damaged unless `number` is 0."""

    texture: str
    patch: int
    number: int = 0
    level: int = 0

    @property
    def similarity(self) -> float:
        """Expected similarity to the reference patch, 0..1."""
        if self.number == 0:
            return WHOLE
        best = kadid_opinion(1, 1)[0]
        return WHOLE * (kadid_opinion(self.number, self.level)[0] - 1) / (best - 1)


EXEMPLARS = (
    Cell(HELD_OUT, 1, 11, 5), Cell(HELD_OUT, 2), Cell(HELD_OUT, 3, 1, 5), Cell(HELD_OUT, 1, 10, 3),
)  # fmt: skip


def texture_set(name: str, cache_dir: Path, n: int, seed: int) -> StimulusSet:
    """``n`` stimuli, equal steps of rank within each texture, at least one whole patch each."""
    textures = TESTED[: n_references(n, len(TESTED))]
    used: Counter[object] = Counter()
    cells: list[Cell] = []
    for texture, share in zip(textures, shares(n, len(textures)), strict=True):
        cells += _spread(texture, share, seed, used)
    return StimulusSet(
        name=name,
        stimuli=_made(cells, cache_dir, seed),
        scale=(0.0, 1.0),
        attribute="texture",
        opinion=OPINION,
        exemplars=_made(EXEMPLARS, cache_dir, seed),
        notes=(NOTE,),
    )


def _spread(texture: str, n: int, seed: int, used: Counter[object]) -> list[Cell]:
    """Whole patches from elsewhere, and damage: two in three on the reference's own patch.

    Which third is elsewhere goes by rank of severity, in turn over textures, so that place tells
    nothing about quality.
    """
    whole = [Cell(texture, patch) for patch in (1, 2, 3)]
    whole = sorted(whole, key=lambda c: key(seed, *c))[: max(1, n // 6)]
    damage = [Cell(texture, 0, t, k) for t in TYPES for k in range(1, 6) if (t, k) != UNTOUCHED]
    kinds = [(f"type {c.number}",) for c in damage]
    keys = [key(seed, *c) for c in damage]
    picks = spread([c.similarity for c in damage], n - len(whole), kinds, keys, used)
    turn = TESTED.index(texture)
    damaged = [
        damage[k]._replace(patch=0 if (rank + turn) % 3 else 1 + rank % 3)
        for rank, k in enumerate(picks)
    ]
    return [*damaged, *whole]


def _made(cells: Sequence[Cell], cache_dir: Path, seed: int) -> tuple[Stimulus, ...]:
    references = {cell.texture: _recipe(Cell(cell.texture, 0), seed) for cell in cells}
    images = generate([*references.values(), *(_recipe(cell, seed) for cell in cells)], cache_dir)
    rows = [
        Rated(
            path=images[_recipe(cell, seed).name].path,
            mos=cell.similarity,
            reference=images[references[cell.texture].name].path,
            sha256=images[_recipe(cell, seed).name].sha256,
            row=f"{cell.texture}, patch {cell.patch}, distortion {cell.number}, level {cell.level}",
        )
        for cell in cells
    ]
    check_opinions(rows, (0.0, 1.0), name="generated textures")
    return verify(rows, name="generated textures")


def _recipe(cell: Cell, seed: int) -> Recipe:
    folder = f"textures-v{VERSION}/seed{seed}"
    name = f"{cell.texture}_{cell.patch}_{cell.number:02d}_{cell.level:02d}"
    return Recipe(f"{folder}/{name}", partial(_patch, cell, seed))


def _patch(cell: Cell, seed: int) -> Pixels:
    """Damage is done to the whole texture, whose range is 0..255, then the patch is cut out."""
    pixels = texture(cell.texture)
    if cell.number:
        draw = int(key(seed, cell.texture)[:8], 16)
        pixels = distort(pixels, cell.number, cell.level, draw)
    row, column = CORNERS[cell.patch]
    return np.ascontiguousarray(pixels[row : row + PATCH, column : column + PATCH])


# --- the textures, 512 x 512 -------------------------------------------------------------------


@cache
def texture(name: str) -> Pixels:
    """A texture of 512 x 512 pixels that spans 0..255, shape (512, 512, 3)."""
    if name in _PAINTED:
        return stretched(_PAINTED[name]())
    from skimage import data

    grey = np.asarray(getattr(data, name)())
    return stretched(np.repeat(grey[:SIDE, :SIDE, None], 3, axis=2))


def weave() -> Pixels:
    """Plain weave of uneven blue and ochre threads with fibre noise.

    A thread is 17.3 pixels wide, of which no patch offset is a multiple: patches must not coincide.
    """
    from scipy.ndimage import gaussian_filter1d

    rng = np.random.default_rng(11)
    place = np.arange(SIDE)
    bend = gaussian_filter1d(rng.normal(0, 1, (2, SIDE)), 20, axis=1) * 8
    warp = (place[None, :] + bend[0][:, None]) / 17.3
    weft = (place[:, None] + bend[1][None, :]) / 17.3
    over = (np.floor(warp) + np.floor(weft)) % 2 == 0
    round_warp, round_weft = (np.sin(np.pi * (t % 1)) for t in (warp, weft))
    shade = np.where(over, round_warp * (0.6 + 0.4 * round_weft), round_weft)
    tone = rng.uniform(0.75, 1.0, (2, 64))
    tone = np.where(over, tone[0][warp.astype(int) % 64], tone[1][weft.astype(int) % 64])
    fibre = rng.normal(0, 0.06, (SIDE, SIDE))
    light = np.clip((0.25 + 0.75 * shade) * tone + fibre, 0, 1)
    color = np.where(over[..., None], (0.45, 0.62, 0.95), (0.95, 0.80, 0.50))
    return np.asarray((light[..., None] * color * 255).round(), dtype=np.uint8)


def pebbles() -> Pixels:
    """Rounded stones of 14 to 40 pixels (cells of a Voronoi diagram) in earth colours."""
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(12)
    centres = rng.uniform(-20, SIDE + 20, (520, 2))
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    points = np.stack([rows.ravel(), columns.ravel()], axis=1)
    distance, nearest = cKDTree(centres).query(points, k=2)
    height = np.clip((distance[:, 1] - distance[:, 0]) / 9, 0, 1) ** 0.6
    lit = 0.5 + 0.03 * ((centres[nearest[:, 0]] - points) @ np.array([0.6, 0.8]))
    stones = rng.uniform(0.45, 1.0, (len(centres), 1)) * np.array([1.0, 0.92, 0.8])
    stones = stones + rng.normal(0, 0.05, stones.shape)
    light = height * np.clip(lit + 0.35, 0.2, 1.2) + rng.normal(0, 0.03, len(points))
    image = np.clip(light[:, None] * stones[nearest[:, 0]], 0, 1)
    return np.asarray((image * 255).round(), dtype=np.uint8).reshape(SIDE, SIDE, 3)


def wood() -> Pixels:
    """Planed wood: bands and fibres of several lengths along the rows, pores, browns."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(13)
    light = np.zeros((SIDE, SIDE))
    for thick, long, weight in ((8, 55, 1.0), (2.5, 35, 0.6), (0.7, 14, 0.45)):
        band = gaussian_filter(rng.normal(0, 1, (SIDE, SIDE)), (thick, long), mode="wrap")
        light += weight * band / band.std()
    pores = gaussian_filter((rng.random((SIDE, SIDE)) < 0.004) * 1.0, (0.6, 5), mode="wrap")
    share = 1 / (1 + np.exp(-light)) * np.exp(-6 * pores)
    dark, pale = np.array([0.24, 0.12, 0.05]), np.array([0.86, 0.64, 0.40])
    image = dark + (pale - dark) * share[..., None]
    return np.asarray((image * 255).round(), dtype=np.uint8)


_PAINTED = {"pebbles": pebbles, "weave": weave, "wood": wood}
