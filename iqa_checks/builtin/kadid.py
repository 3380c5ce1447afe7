"""Structure and geometry: KADID-10k's 25 distortions at 5 levels, with its mean opinions.

The score of a stimulus is KADID-10k's mean over 81 contents for its distortion type and level: an
*expected opinion*, and every table says so. Nobody has rated these pictures. Left one content out,
that table predicts KADID-10k's 10,125 human scores at SRCC 0.94 (per reference 0.95).

Geometry shows the same distorted images beside a reference that is slightly moved. The scores stay
(people discount mild misalignment; so do the lists of Aug-KADID), hence the gap between the two
sets is what misalignment costs a model.

Of the four cells that are the untouched picture (01-1, 03-1, 08-1, 18-3) one is used: a hidden
reference is worth testing, four equal pictures are not.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from iqa_checks.builtin.generation import Recipe, generate, key
from iqa_checks.builtin.photographs import Photograph, Photographs
from iqa_checks.builtin.picks import n_references, shares, spread
from iqa_checks.stimuli import Rated, Stimulus, StimulusSet, check_opinions, verify

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from iqa_checks.prompts import Scenario

SCALE = (1.0, 5.0)
UNTOUCHED = {(3, 1), (8, 1), (18, 3)}  # the same pixels as (1, 1)
CELLS = [(t, level) for t in range(1, 26) for level in range(1, 6) if (t, level) not in UNTOUCHED]
UNMISTAKABLE = (1, 10, 11)  # blur, JPEG, noise: seen at a glance by whoever looks
VERSION_LEVELS = (3, 5)
EXEMPLARS = ((10, 4), (11, 1), (1, 5), (8, 3))  # type, level: clearly apart, in no order
MOVES = ("mixed", "shift", "rotation", "scale")  # dealt to contents in turn
QUICK_REFERENCES, MOST_REFERENCES = 5, 15
OPINION = "expected opinion"
NOTE = "expected opinion: KADID-10k's mean by distortion type and level, not ratings"
MOVED = "references moved by 5 % of the width, 3 degrees, 1.05 x, or all three"


class Cell(NamedTuple):
    """One possible stimulus."""

    content: Photograph
    number: int
    level: int

    @property
    def opinion(self) -> tuple[float, float]:
        from iqa_checks.distortions import kadid_opinion

        return kadid_opinion(self.number, self.level)


def kadid_set(
    name: str, pictures: Photographs, scenario: Scenario, cache_dir: Path, n: int, seed: int
) -> StimulusSet:
    """``n`` stimuli. FR: several per reference. NR: over all contents, without references."""
    moved = name.endswith("-geometry")
    cells = _for_references(pictures, n, seed) if scenario == "fr" else _over_all(pictures, n, seed)
    whole = StimulusSet(
        name=name,
        stimuli=_made(cells, moved, cache_dir, seed),
        scale=SCALE,
        attribute="geometry" if moved else "structure",
        opinion=OPINION,
        sd_kind="per_opinion",
        exemplars=_made(
            [Cell(pictures.held_out[0], *cell) for cell in EXEMPLARS], moved, cache_dir, seed
        ),
        notes=(NOTE, *([MOVED] if moved else []), *pictures.notes(c.content for c in cells)),
    )
    return whole if scenario == "fr" else _without_references(whole)


def damaged_sets(pictures: Photographs, cache_dir: Path, n: int, seed: int) -> list[StimulusSet]:
    """``n`` sets of three stimuli: a picture, and one distortion of it at levels 3 and 5."""
    kinds = itertools.product(UNMISTAKABLE, pictures.tested)
    sets = []
    for number, content in itertools.islice(kinds, n):
        cells = [Cell(content, 1, 1), *(Cell(content, number, v) for v in VERSION_LEVELS)]
        made = _made(cells, False, cache_dir, seed)
        name = f"{content.name}, distortion {number}"
        sets.append(StimulusSet(name, made, SCALE, attribute="structure", opinion=OPINION))
    return [_without_references(whole) for whole in sets]


def _for_references(pictures: Photographs, n: int, seed: int) -> list[Cell]:
    """Equal steps of rank within each reference, types shared out over all of them."""
    most = QUICK_REFERENCES if n < 150 else MOST_REFERENCES
    contents = pictures.tested[: n_references(n, most)]
    used: Counter[object] = Counter()
    chosen = []
    for content, share in zip(contents, shares(n, len(contents)), strict=True):
        chosen += _spread([Cell(content, *cell) for cell in CELLS], share, seed, used)
    return chosen


def _over_all(pictures: Photographs, n: int, seed: int) -> list[Cell]:
    contents = pictures.tested[:n]
    return _spread([Cell(c, *cell) for c in contents for cell in CELLS], n, seed, Counter())


def _spread(cells: Sequence[Cell], n: int, seed: int, used: Counter[object]) -> list[Cell]:
    opinions = [cell.opinion[0] for cell in cells]
    kinds = [(f"type {c.number}", f"content {c.content.name}") for c in cells]
    keys = [key(seed, c.content.name, c.number, c.level) for c in cells]
    return [cells[k] for k in spread(opinions, n, kinds, keys, used)]


def _made(cells: Sequence[Cell], moved: bool, cache_dir: Path, seed: int) -> tuple[Stimulus, ...]:
    contents = list(dict.fromkeys(cell.content for cell in cells))
    moves = dict(zip(contents, itertools.cycle(MOVES)))  # the first: all three at once
    references = {c: _moved(c, moves[c]) if moved else c.recipe for c in contents}
    recipes = [*references.values(), *(_recipe(cell, seed) for cell in cells)]
    images = generate(recipes, cache_dir)
    rows = [
        Rated(
            path=images[_recipe(cell, seed).name].path,
            mos=cell.opinion[0],
            opinion_sd=cell.opinion[1],
            reference=images[references[cell.content].name].path,
            sha256=images[_recipe(cell, seed).name].sha256,
            row=f"{cell.content.name}, distortion {cell.number}, level {cell.level}",
        )
        for cell in cells
    ]
    check_opinions(rows, SCALE, name="generated stimuli")
    return verify(rows, name="generated stimuli")


def _recipe(cell: Cell, seed: int) -> Recipe:
    folder = f"{cell.content.folder}/seed{seed}"
    name = f"{cell.content.file}_{cell.number:02d}_{cell.level:02d}"
    return Recipe(f"{folder}/{name}", partial(_distorted, cell, seed))


def _distorted(cell: Cell, seed: int) -> NDArray[np.uint8]:
    from iqa_checks.distortions import distort

    draw = int(key(seed, cell.content.file)[:8], 16)
    return distort(cell.content.pixels(), cell.number, cell.level, draw)


def _moved(content: Photograph, move: str) -> Recipe:
    return Recipe(f"{content.folder}/{content.file}_{move}", partial(_warped, content, move))


def _warped(content: Photograph, move: str) -> NDArray[np.uint8]:
    from iqa_checks.distortions import transform_reference

    return transform_reference(content.pixels(), move)


def _without_references(stimuli: StimulusSet) -> StimulusSet:
    def alone(stimulus: Stimulus) -> Stimulus:
        return replace(stimulus, reference_image=None)

    return replace(
        stimuli,
        stimuli=tuple(map(alone, stimuli.stimuli)),
        exemplars=tuple(map(alone, stimuli.exemplars)),
    )
