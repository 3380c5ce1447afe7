"""Stimuli that need no download: photographs that ride in dependencies, distorted as KADID-10k is.

The score of a built-in stimulus is KADID-10k's mean opinion of its distortion type and level over
81 contents: an *expected opinion*, and every table says so. Nobody has rated these pictures. (Left
one content out, that table predicts KADID-10k's human scores at SRCC 0.94.)

Images are made once into the cache as PNG, and found again by content, type and level.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_checks.selection import select_uniform
from iqa_checks.stimuli import Rated, Stimulus, StimulusSet, check_opinions, verify

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WIDTH, HEIGHT = 512, 384
VERSION = 1  # of the generator: other pixels get another folder
CONTENTS = ("astronaut", "chelsea", "coffee", "motorcycle", "china")
EXEMPLAR_CONTENTS = ("rocket", "flower")  # held out of every test set
TYPES = (1, 7, 8, 9, 10, 11, 13, 16, 17, 21)
EXEMPLARS = ((10, 4), (11, 1), (1, 5), (8, 3))  # type, level: clearly apart, in no order
SCALE = (1.0, 5.0)


def builtin_set(
    scenario: str, cache_dir: Path, *, full: bool = False, limit: int | None = None, seed: int = 0
) -> StimulusSet:
    """The built-in structure-and-texture set: 30 stimuli, or 150 when ``full``.

    FR: five references with equally many stimuli each. NR: the same photographs, spread evenly
    over the range of expected opinion.
    """
    import numpy as np

    from iqa_checks.distortions import kadid_opinion

    cells = [(c, t, level) for c in CONTENTS for t in TYPES for level in range(1, 6)]
    opinions = np.array([kadid_opinion(t, level)[0] for _, t, level in cells])
    keys = [_key(seed, *cell) for cell in cells]
    n = limit or (150 if full else 30)
    if scenario == "fr":
        picks = _per_content(cells, opinions, keys, max(1, n // len(CONTENTS)))
    else:
        picks = select_uniform(opinions, n, keys)
    stimuli = _make([cells[int(k)] for k in picks], cache_dir, seed)
    exemplar_content = EXEMPLAR_CONTENTS[0]
    exemplars = _make([(exemplar_content, t, level) for t, level in EXEMPLARS], cache_dir, seed)
    whole = StimulusSet(
        name="builtin",
        stimuli=stimuli,
        scale=SCALE,
        attribute="structure",
        opinion="expected opinion",
        sd_kind="per_opinion",
        exemplars=exemplars,
        notes=("expected opinion: KADID-10k's mean by distortion type and level, not ratings",),
    )
    return whole if scenario == "fr" else _without_references(whole)


def _per_content(
    cells: Sequence[tuple[str, int, int]],
    opinions: NDArray[np.float64],
    keys: Sequence[str],
    per_content: int,
) -> NDArray[np.intp]:
    """Equal rank steps within each content, over a random half of its cells.

    All contents share one table of opinions: over all cells they would get the same few types.
    """
    import numpy as np

    picks = []
    for content in CONTENTS:
        member = sorted((k for k, c in enumerate(cells) if c[0] == content), key=keys.__getitem__)
        pool = np.array(member[: max(per_content, len(member) // 2)])
        picks.append(pool[select_uniform(opinions[pool], per_content, [keys[k] for k in pool])])
    return np.concatenate(picks)


def _without_references(stimuli: StimulusSet) -> StimulusSet:
    def alone(stimulus: Stimulus) -> Stimulus:
        return replace(stimulus, reference_image=None)

    return replace(
        stimuli,
        stimuli=tuple(map(alone, stimuli.stimuli)),
        exemplars=tuple(map(alone, stimuli.exemplars)),
    )


def photograph(name: str) -> NDArray[np.uint8]:
    """A photograph of the box at 512 x 384, shape (384, 512, 3): centre crop, then Lanczos."""
    import numpy as np
    import PIL.Image

    pixels = _photograph_as_shipped(name)
    height, width = pixels.shape[:2]
    scale = min(height / HEIGHT, width / WIDTH)
    crop_h, crop_w = round(HEIGHT * scale), round(WIDTH * scale)
    top, left = (height - crop_h) // 2, (width - crop_w) // 2
    image = PIL.Image.fromarray(pixels[top : top + crop_h, left : left + crop_w])
    return np.asarray(image.resize((WIDTH, HEIGHT), PIL.Image.Resampling.LANCZOS))


def _make(
    cells: Sequence[tuple[str, int, int]], cache_dir: Path, seed: int
) -> tuple[Stimulus, ...]:
    from iqa_checks.distortions import DISTORTIONS, kadid_opinion

    folder = cache_dir / f"builtin-v{VERSION}"
    rows = []
    for content, number, level in cells:
        mean, sd = kadid_opinion(number, level)
        name = f"{content}_{number:02d}_{level:02d}"
        rows.append(
            Rated(
                path=_stored(folder / f"seed{seed}", name, content, number, level, seed),
                mos=mean,
                opinion_sd=sd,
                reference=_stored(folder, content, content, 0, 0, seed),
                row=f"built-in {content}, {DISTORTIONS[number].name}, level {level}",
            )
        )
    check_opinions(rows, SCALE, name="built-in stimuli")
    return verify(rows, name="built-in stimuli")


def _stored(folder: Path, name: str, content: str, number: int, level: int, seed: int) -> Path:
    """The cached image, made anew where it is absent or its recorded hash does not hold."""
    path = folder / f"{name}.png"
    record = path.with_suffix(".sha256")
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() == record.read_text().strip():
            return path
    except OSError:
        pass  # absent or unreadable: make it
    data = _png(_pixels(content, number, level, seed))
    write_atomically(path, data)
    write_atomically(record, hashlib.sha256(data).hexdigest().encode())
    return path


def _pixels(content: str, number: int, level: int, seed: int) -> NDArray[np.uint8]:
    from iqa_checks.distortions import distort

    if number == 0:
        return photograph(content)
    return distort(photograph(content), number, level, int(_key(seed, content)[:8], 16))


def _key(*parts: object) -> str:
    return hashlib.sha256(":".join(map(str, parts)).encode()).hexdigest()


def _png(pixels: NDArray[np.uint8]) -> bytes:
    import io

    import PIL.Image

    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside and move: two runs that make the same image at once do not collide."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.replace(temporary, path)


@cache
def _photograph_as_shipped(name: str) -> NDArray[np.uint8]:
    """The pixels of a photograph as its package carries it."""
    import numpy as np

    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image

        return np.asarray(load_sample_image(f"{name}.jpg"))
    from skimage import data

    if name == "motorcycle":
        left_view: Any = data.stereo_motorcycle
        return np.asarray(left_view()[0])
    return np.asarray(getattr(data, name)())
