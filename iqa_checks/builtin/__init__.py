"""Stimuli that need no download: photographs that ride in dependencies, or a team's own.

`builtin_set` makes every set; one module per idea behind it:

``photographs``  pristine pictures: those in the box, and those of a folder (``--iqa-photos``)
``kadid``        structure and geometry: KADID-10k's 25 distortions at 5 levels
``textures``     texture similarity: other patches of a texture, and damaged ones
``colors``       colour difference: alterations of photographs, scored by mean CIEDE2000
``picks``        which of the possible stimuli a set holds: spread over scores, diverse in types
``generation``   the cache: made once, in parallel, verified by hash, safe for two runs at once

No score here is a rating: each set's ``opinion`` and ``notes`` say what it is instead. Nothing is
imported until a set is asked for, because names are needed while pytest collects.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from iqa_checks.builtin.generation import write_atomically as write_atomically
from iqa_checks.errors import DesignError, known_names

if TYPE_CHECKING:
    from iqa_checks.prompts import Scenario
    from iqa_checks.stimuli import StimulusSet

QUICK, FULL = 30, 150
#: Names of the sets by scenario: from the photographs in the box, and from a folder of one's own.
BUILTIN: dict[Scenario, tuple[str, ...]] = {
    "fr": ("builtin", "builtin-geometry", "builtin-texture"),
    "nr": ("builtin",),
    "difference": ("builtin-color",),
}
PHOTOS: dict[Scenario, tuple[str, ...]] = {
    "fr": ("photos", "photos-geometry"),
    "nr": ("photos",),
    "difference": ("photos-color",),
}
#: What `load_dataset` calls them: (name of the set, scenario).
WHOLE: dict[str, tuple[str, Scenario]] = {
    "builtin-fr": ("builtin", "fr"),
    "builtin-nr": ("builtin", "nr"),
    "builtin-geometry": ("builtin-geometry", "fr"),
    "builtin-texture": ("builtin-texture", "fr"),
    "builtin-color": ("builtin-color", "difference"),
}
NAMES = tuple(dict.fromkeys(n for table in (BUILTIN, PHOTOS) for ns in table.values() for n in ns))


def builtin_set(
    scenario: Scenario,
    cache_dir: Path,
    *,
    name: str = "builtin",
    photos: Path | None = None,
    full: bool = False,
    limit: int | None = None,
    seed: int = 0,
) -> StimulusSet:
    """One generated set: 30 stimuli, 150 when ``full``, ``limit`` where given.

    Parameters
    ----------
    name
        One of `BUILTIN`, or of `PHOTOS` with the folder of pristine photographs in ``photos``.

    Raises
    ------
    UsageError
        Unknown name, or the scenario has no such set.
    StimuliAbsent, StimulusError
        The folder holds no usable photograph; says which file and why.
    """
    known = (BUILTIN if photos is None else PHOTOS)[scenario]
    if name not in known:
        raise known_names(f"generated {scenario} set", name, known)
    n = limit if limit is not None else FULL if full else QUICK
    if n < 2:
        raise DesignError(f"{name}: a set needs at least 2 stimuli, asked for {n}")
    kind = name.partition("-")[2]
    if kind == "texture":
        from iqa_checks.builtin.textures import texture_set

        return texture_set(name, cache_dir, n, seed)
    from iqa_checks.builtin.photographs import Photographs, box, from_folder

    pictures: Photographs = box() if photos is None else from_folder(photos, seed)
    if kind == "color":
        from iqa_checks.builtin.colors import color_set

        return color_set(name, pictures, cache_dir, n, seed)
    from iqa_checks.builtin.kadid import kadid_set

    return kadid_set(name, pictures, scenario, cache_dir, n, seed)


def damaged_versions(
    cache_dir: Path, *, photos: Path | None = None, n: int, seed: int = 0
) -> list[StimulusSet]:
    """At most ``n`` sets of three versions of one picture: pristine, moderately, badly damaged.

    Of the pictures in the box, or of the folder ``photos``. Errors as in `builtin_set`.
    """
    from iqa_checks.builtin.kadid import damaged_sets
    from iqa_checks.builtin.photographs import box, from_folder

    return damaged_sets(box() if photos is None else from_folder(photos, seed), cache_dir, n, seed)
