"""Stimulus sets by name: the built-in ones, a table of one's own, the published data sets.

`stimuli_for` is what a run uses: it selects before it opens images, so that a large set costs only
what is asked about, and it holds out exemplars.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from iqa_checks.errors import StimuliAbsent, UsageError, known_names
from iqa_checks.layouts import RatingTable, read_ratings
from iqa_checks.stimuli import (
    Attribute,
    Polarity,
    Rated,
    Stimulus,
    StimulusSet,
    verify,
)

if TYPE_CHECKING:
    from iqa_checks.prompts import Scenario

QUICK, FULL = 30, 150
N_EXEMPLARS = 4
OWN = "ratings"


@dataclass(frozen=True, slots=True)
class Published:
    """One line of ``data/sets.yaml``: a published data set and how to get it."""

    name: str
    scenario: Scenario
    attribute: Attribute
    get: str


@dataclass(frozen=True, slots=True)
class StimulusSource:
    """Where a run takes its stimuli from, as the user said.

    ``columns``, ``scale``, ``polarity``, ``attribute`` and ``resize`` are for the table of
    ratings. ``limit`` bounds the stimuli of a cell; None is the default of each kind of set.
    """

    cache_dir: Path
    ratings: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    scale: tuple[float, float] | None = None
    polarity: Polarity | None = None
    attribute: Attribute = "general"
    resize_to_reference: bool = False
    full: bool = False
    limit: int | None = None
    seed: int = 0
    photos: Path | None = None


@cache
def published() -> dict[str, Published]:
    """The published data sets, by name."""
    import yaml

    text = resources.files("iqa_checks").joinpath("data/sets.yaml").read_text(encoding="utf-8")
    return {name: Published(name, **line) for name, line in yaml.safe_load(text).items()}


def names_for(scenario: Scenario, source: StimulusSource) -> list[str]:
    """The stimulus sets that a run judges in a scenario, in a fixed order."""
    if source.ratings is not None:
        colors = source.attribute == "color_difference"
        return [OWN] if colors == (scenario == "difference") else []
    from iqa_checks.builtin import BUILTIN, PHOTOS

    if source.photos is not None:
        return list(PHOTOS[scenario])
    from_others = [p.name for p in published().values() if p.scenario == scenario]
    return [*BUILTIN[scenario], *from_others]


def load_dataset(name: str, root: Path | str | None = None) -> StimulusSet:
    """A stimulus set by name, whole.

    The sets of `builtin.WHOLE` are generated into ``root`` (or the user's cache). Raises
    `UsageError` for an unknown name and `StimuliAbsent` where the files are not at hand.
    """
    from iqa_checks.builtin import WHOLE, builtin_set

    if name in WHOLE:
        folder = Path(root) if root is not None else default_cache()
        generated, scenario = WHOLE[name]
        return builtin_set(scenario, folder, name=generated, full=True)
    if name not in published():
        raise known_names("data set", name, [*WHOLE, *published()])
    raise _absent(name)


def stimuli_for(name: str, scenario: Scenario, source: StimulusSource) -> StimulusSet:
    """The stimuli of one cell: selected, verified, exemplars held out.

    Raises
    ------
    StimuliAbsent
        The set is not at hand, or has no references where the scenario needs them.
    StimulusError
        The table or an image is not usable.
    """
    from iqa_checks.builtin import NAMES, builtin_set

    if name in NAMES:
        return builtin_set(
            scenario,
            source.cache_dir,
            name=name,
            photos=source.photos,
            full=source.full,
            limit=source.limit,
            seed=source.seed,
        )
    if name == OWN:
        return _own(scenario, source)
    raise _absent(name)


def default_cache() -> Path:
    """Where generated images are kept: ``$XDG_CACHE_HOME/iqa_checks`` or ``~/.cache``."""
    import os

    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "iqa_checks"


def _absent(name: str) -> StimuliAbsent:
    return StimuliAbsent(f"{name} is not at hand: {published()[name].get}")


def _own(scenario: Scenario, source: StimulusSource) -> StimulusSet:
    if source.ratings is None:
        raise UsageError("no table of ratings was given: use --iqa-ratings FILE")
    table = RatingTable(source.ratings, source.columns, source.scale, source.polarity)
    rows, scale, polarity, note = read_ratings(table)
    if scenario != "nr":
        rows = [row for row in rows if row.reference is not None]
        if not rows:
            raise StimuliAbsent(
                f"{source.ratings} names no references: {scenario} cells need a column "
                "'reference' (or --iqa-columns reference=NAME)"
            )
    tested, held_out = _selected(rows, scenario, scale, source)
    described = StimulusSet(
        name=OWN,
        stimuli=_opened(tested, scenario, source),
        scale=scale,
        polarity=polarity,
        attribute=source.attribute,
        opinion="MOS" if polarity == "higher_better" else "DMOS",
        sd_kind="none" if rows[0].opinion_sd is None else "per_opinion",
        exemplars=_opened(held_out, scenario, source),
    )
    notes = [f"{source.ratings.name}: {note}", f"{len(tested)} of {len(rows)} stimuli"]
    if source.resize_to_reference and scenario != "nr":
        notes.append("distorted images were resized to their reference (Lanczos)")
    return replace(described, notes=tuple(notes))


def _selected(
    rows: Sequence[Rated], scenario: Scenario, scale: tuple[float, float], source: StimulusSource
) -> tuple[list[Rated], list[Rated]]:
    """Test stimuli and held-out exemplars, both decided by scores, names and seed alone."""
    import numpy as np

    from iqa_checks.selection import select_exemplars, select_uniform

    rows = sorted(rows, key=lambda row: (str(row.path), str(row.reference)))
    pool = list(range(len(rows)))
    if scenario == "fr":
        pool = _largest_reference(rows, source.seed)
    held: list[int] = []
    if len(pool) >= 2 * N_EXEMPLARS:
        mos = np.array([rows[k].mos for k in pool])
        held = [pool[int(k)] for k in select_exemplars(mos, N_EXEMPLARS, seed=source.seed)]
    rest = [row for k, row in enumerate(rows) if k not in held]
    limit = source.limit or FULL
    names = [str(row.path) for row in rest]
    picks = select_uniform(np.array([row.mos for row in rest]), limit, names)
    return [rest[int(k)] for k in picks], [rows[k] for k in held]


def _largest_reference(rows: Sequence[Rated], seed: int) -> list[int]:
    """Rows of the reference with the most stimuli, drawn by seed among equals."""
    members: dict[str, list[int]] = {}
    for k, row in enumerate(rows):
        members.setdefault(str(row.reference), []).append(k)

    def rank(name: str) -> tuple[int, str]:
        return len(members[name]), hashlib.sha256(f"{seed}:{Path(name).name}".encode()).hexdigest()

    return members[max(members, key=rank)]


def _opened(
    rows: Sequence[Rated], scenario: Scenario, source: StimulusSource
) -> tuple[Stimulus, ...]:
    if scenario == "nr":
        rows = [replace(row, reference=None) for row in rows]
    stimuli = verify(rows, name=str(source.ratings))
    if source.resize_to_reference:
        return tuple(_resized(stimulus, source.cache_dir) for stimulus in stimuli)
    return stimuli


def _resized(stimulus: Stimulus, cache_dir: Path) -> Stimulus:
    """The stimulus scaled to its reference's size: another image, with a hash of its own."""
    from iqa_checks.builtin import write_atomically
    from iqa_checks.stimuli import read_image

    reference, image = stimulus.reference_image, stimulus.image
    if reference is None or (reference.width, reference.height) == (image.width, image.height):
        return stimulus
    name = f"{image.sha256[:32]}-{reference.width}x{reference.height}.png"
    path = cache_dir / "resized" / name
    if not path.exists():
        write_atomically(path, _scaled(image.path, reference.width, reference.height))
    return replace(stimulus, image=read_image(path, where=f"{image.path} resized"))


def _scaled(path: Path, width: int, height: int) -> bytes:
    import PIL.Image

    with PIL.Image.open(path) as image:
        scaled = image.convert("RGB").resize((width, height), PIL.Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    scaled.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def read_columns(text: str) -> dict[str, str]:
    """Read "mos=lab_mos,opinion_sd=lab_std"; our names are those of `layouts.COLUMNS`."""
    from iqa_checks.layouts import COLUMNS

    columns = {}
    for item in filter(None, text.split(",")):
        ours, equals, theirs = item.partition("=")
        if ours.strip() not in COLUMNS or not (equals and theirs.strip()):
            raise UsageError(
                f"--iqa-columns {text}: {item!r} must read OURS=THEIRS with OURS one of "
                f"{', '.join(COLUMNS)}"
            )
        columns[ours.strip()] = theirs.strip()
    return columns


def as_attribute(text: str) -> Attribute:
    """Check the name of a visual attribute."""
    from iqa_checks.stimuli import ATTRIBUTES

    if text not in ATTRIBUTES:
        raise known_names("attribute", text, ATTRIBUTES)
    return text
