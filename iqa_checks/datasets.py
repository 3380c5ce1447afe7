"""Stimulus sets by name: the built-in ones, a table of one's own, the published data sets.

`stimuli_for` is what a run uses: it selects before it opens images, so that a large set costs only
what is asked about, and it holds out exemplars.

    python -m iqa_checks.datasets DIR

lists the published sets under a folder: what is there, what is missing, what is damaged.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from iqa_checks.errors import StimuliAbsent, StimulusError, UsageError, known_names
from iqa_checks.layouts import RatingTable, read_ratings
from iqa_checks.layouts.images import check_presentation
from iqa_checks.stimuli import (
    Attribute,
    Polarity,
    Rated,
    Stimulus,
    StimulusSet,
    verify,
)

if TYPE_CHECKING:
    from iqa_checks.greedy import Div
    from iqa_checks.prompts import Scenario
    from iqa_checks.protocols import Preset

QUICK, FULL = 30, 150
N_EXEMPLARS = 4
EVERYTHING = 1_000_000  # more than any set holds
CANDIDATES_PER_PICK = 3  # of a generated set, whose candidates have to be made first
OWN = "ratings"
REVERSED = ("builtin-texture",)  # metrics of pixels fall where these scores rise
BY_CIEDE2000 = ("builtin-color", "photos-color")  # the scores of these are that expert's own


@dataclass(frozen=True, slots=True)
class Difficult:
    """How difficult samples are chosen (Eqs. 3-5): by which experts, features and terms.

    ``experts`` empty: the set's own pair. ``embedder`` empty: the offline one for built-in sets
    and photographs, CLIP for all others. ``weights`` is a folder of weight files. ``lam`` weighs
    diversity (0: no features are needed); ``div`` None: "mean", or what the preset prescribes.
    ``ray_address``: a Ray cluster that computes scores and features.
    """

    experts: tuple[str, ...] = ()
    embedder: str = ""
    weights: Path | None = None
    device: str = "cpu"
    preset: Preset = "sound"
    lam: float = 0.01
    div: Div | None = None
    ray_address: str | None = None

    def experts_of(self, name: str, scenario: Scenario) -> tuple[str, ...]:
        """The experts that select from a set."""
        from iqa_checks.experts import default_experts

        if not self.experts and name in BY_CIEDE2000:
            return ("psnr", "ssim")
        return self.experts or default_experts(name, scenario)

    def embedder_of(self, name: str) -> str:
        """The embedder for a set; '' where no features are needed."""
        from iqa_checks.builtin import NAMES

        if self.lam == 0:
            return ""
        return self.embedder or ("offline" if name in NAMES else "clip-vit-b-32")


@dataclass(frozen=True, slots=True)
class StimulusSource:
    """Where a run takes its stimuli from, as the user said.

    ``columns``, ``scale``, ``polarity``, ``attribute`` and ``resize`` are for the table of
    ratings. ``limit`` bounds the stimuli of a cell; None is the default of each kind of set.
    ``data`` is the folder of published sets, ``whole`` refuses a partial one, ``sets`` names those
    to judge (all where empty), ``selections`` the lists that choose stimuli (`selection_file`);
    ``difficult`` chooses difficult samples instead of uniform ones.
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
    data: Path | None = None
    whole: bool = False
    sets: tuple[str, ...] = ()
    selections: tuple[str, ...] = ()
    difficult: Difficult | None = None


def names_for(scenario: Scenario, source: StimulusSource) -> list[str]:
    """The stimulus sets that a run judges in a scenario, in a fixed order.

    Without ``source.sets``: the built-in ones, the paper's seven (those that are not at hand skip
    and say how to get them), and further published sets that are found under ``source.data``.
    """
    if source.ratings is not None:
        colors = source.attribute == "color_difference"
        return [OWN] if colors == (scenario == "difference") else []
    from iqa_checks.builtin import BUILTIN, PHOTOS

    if source.photos is not None:
        return list(PHOTOS[scenario])
    from iqa_checks.layouts.published import published_sets

    fitting = [p for p in published_sets().values() if p.scenario == scenario]
    if source.sets:
        known = [*BUILTIN[scenario], *(p.name for p in fitting)]
        return [name for name in known if name in source.sets]
    shown = [p.name for p in fitting if not p.extra or _is_there(p.name, source.data)]
    return [*BUILTIN[scenario], *shown]


def check_source(source: StimulusSource) -> None:
    """Find a user's mistakes about sets before a run: wrong folder, unknown or absent sets.

    Raises `UsageError` or `StimulusError`; a set that was asked for by name has to be there.
    """
    from iqa_checks.builtin import NAMES
    from iqa_checks.layouts.published import locate, published_sets
    from iqa_checks.published import check_selections

    for name in source.sets:
        if name not in NAMES and name not in published_sets():
            raise known_names("stimulus set", name, [*NAMES, *published_sets()])
    check_selections(source.selections)
    asked = [name for name in source.sets if name in published_sets()]
    if source.data is None:
        if asked:
            raise UsageError(f"{asked[0]} needs its files: give their folder with --iqa-data DIR")
        return
    for name in asked:
        locate(published_sets()[name], source.data)
    if not asked and not any(_is_there(name, source.data) for name in published_sets()):
        raise UsageError(
            f"--iqa-data {source.data}: no published data set was found there; expected a set's "
            f"own folder or one that holds several of {', '.join(published_sets())} "
            f"(python -m iqa_checks.datasets {source.data} says what was looked for)"
        )


def list_sets(data: Path | None = None) -> list[str]:
    """A line for each stimulus set: name, scenarios, what it is, and where it was found."""
    from iqa_checks.builtin import BUILTIN
    from iqa_checks.layouts.published import published_sets

    scenarios: dict[str, list[str]] = {}
    for scenario, names in BUILTIN.items():
        for name in names:
            scenarios.setdefault(name, []).append(scenario)
    return [
        *(f"{name:<18} {'/'.join(served):<11} built in" for name, served in scenarios.items()),
        *(
            f"{one.name:<18} {one.scenario:<11} {one.title}: {_where(one.name, data)}"
            for one in published_sets().values()
        ),
    ]


def n_at_hand(names: Sequence[str], source: StimulusSource) -> int:
    """How many of ``names`` are no published set that is absent (its cells will skip)."""
    from iqa_checks.layouts.published import published_sets

    absent = {
        name for name in set(names) & set(published_sets()) if not _is_there(name, source.data)
    }
    return sum(name not in absent for name in names)


def check_at_hand(name: str, source: StimulusSource) -> None:
    """`StimuliAbsent` where a published set is not there; says how to get it."""
    from iqa_checks.layouts.published import published_sets
    from iqa_checks.published import check_at_hand as check_published

    if name in published_sets():
        check_published(name, source)


def _is_there(name: str, data: Path | None) -> bool:
    """Whether a set's files are there; a damaged one is, and its cells will say so."""
    return _where(name, data).startswith(("in ", "damaged: "))


def _where(name: str, data: Path | None) -> str:
    """Where a set is ("in FOLDER"), what is wrong with it, or how to get it."""
    from iqa_checks.layouts.published import locate, published_sets

    if data is None:
        return published_sets()[name].get
    try:
        return f"in {locate(published_sets()[name], data).folder}"
    except StimuliAbsent:
        return published_sets()[name].get
    except StimulusError as error:
        return f"damaged: {error}"


def load_dataset(
    name: str,
    root: Path | str | None = None,
    *,
    whole: bool = False,
    cache_dir: Path | str | None = None,
) -> StimulusSet:
    """A stimulus set by name: all of its stimuli, verified.

    The sets of `builtin.WHOLE` are generated into ``root`` (or the user's cache). A published set
    is read from ``root``, its own folder or one that holds several; a partial one loads with what
    is there and its notes say what is lacking, unless it has to be ``whole``. Images that are made
    from its own (PNG of BMP, Aug-KADID's references) go into ``cache_dir``.

    Raises `UsageError` for an unknown name, `StimuliAbsent` where the files are not at hand, and
    `StimulusError` where they are damaged.
    """
    from iqa_checks.builtin import WHOLE, builtin_set

    if name in WHOLE:
        folder = Path(root) if root is not None else default_cache()
        generated, scenario = WHOLE[name]
        return builtin_set(scenario, folder, name=generated, full=True)
    from iqa_checks.layouts.published import published_sets

    if name not in published_sets():
        raise known_names("data set", name, [*WHOLE, *published_sets()])
    if root is None:
        raise StimuliAbsent(f"{name} is not at hand: {published_sets()[name].get}, then name it")
    from iqa_checks.published import load_published

    cache = Path(cache_dir) if cache_dir is not None else default_cache()
    return load_published(name, Path(root), cache, whole=whole)


def stimuli_for(name: str, scenario: Scenario, source: StimulusSource) -> StimulusSet:
    """The stimuli of one cell: selected, verified, exemplars held out.

    Raises
    ------
    StimuliAbsent
        The set is not at hand, or has no references where the scenario needs them.
    StimulusError
        The table or an image is not usable.
    UsageError
        Difficult samples were asked for, and an expert or the embedder lacks its weights.
    """
    if source.difficult is None:
        return _uniform(name, scenario, source)
    return _difficult(name, scenario, source, source.difficult)


def _difficult(
    name: str, scenario: Scenario, source: StimulusSource, how: Difficult
) -> StimulusSet:
    """The difficult samples of a set: as many as a uniform selection would have."""
    from iqa_checks.builtin import NAMES
    from iqa_checks.difficult_stimuli import Selecting, difficult_stimuli

    n = source.limit or (FULL if source.full or name == OWN else QUICK)
    limit = CANDIDATES_PER_PICK * n if name in NAMES else EVERYTHING
    candidates = _uniform(name, scenario, replace(source, limit=limit))
    n_references = max(1, min(15 if n >= FULL else 5, len(set(candidates.references))))
    selecting = Selecting(
        cache_dir=source.cache_dir,
        experts=how.experts_of(name, scenario),
        embedder=how.embedder_of(name),
        n_images=min(n, len(candidates)),
        n_references=n_references,
        per_reference=max(2, n // n_references),
        div=how.div or "mean",
        align="rank" if name in REVERSED else "logistic",  # a rising curve would be flat
        lam=how.lam,
        weights_dir=how.weights,
        device=how.device,
        preset=how.preset,
        ray_address=how.ray_address,
    )
    return difficult_stimuli(candidates, scenario, selecting).stimuli


def _uniform(name: str, scenario: Scenario, source: StimulusSource) -> StimulusSet:
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
    from iqa_checks.published import published_cell

    return published_cell(name, scenario, source)


def default_cache() -> Path:
    """Where generated images are kept: ``$XDG_CACHE_HOME/iqa_checks`` or ``~/.cache``."""
    import os

    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "iqa_checks"


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
        sd_kind="per_opinion" if any(r.opinion_sd is not None for r in rows) else "none",
        exemplars=_opened(held_out, scenario, source),
    )
    shown = check_presentation((*described.stimuli, *described.exemplars))
    used = f"{len(tested)} of {len(rows)} stimuli, {len(held_out)} more held out as exemplars"
    notes = [f"{source.ratings.name}: {note}", used, *shown]
    if source.resize_to_reference and scenario != "nr":
        notes.append("distorted images were resized to their reference (Lanczos)")
    return replace(described, notes=tuple(notes))


def _selected(
    rows: Sequence[Rated], scenario: Scenario, scale: tuple[float, float], source: StimulusSource
) -> tuple[list[Rated], list[Rated]]:
    """Test stimuli and held-out exemplars, both decided by scores, names and seed alone."""
    import numpy as np

    from iqa_checks.selection import (
        select_exemplars,
        select_uniform,
        select_uniform_by_reference,
    )

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
    mos = np.array([row.mos for row in rest])
    if scenario == "fr" and limit < len(rest):
        references = [str(row.reference) for row in rest]
        n = min(len(set(references)), max(1, limit // 4))  # fewer references, but whole questions
        picks = select_uniform_by_reference(mos, references, n, limit // n, names, seed=source.seed)
    else:
        picks = select_uniform(mos, limit, names)
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


def main(arguments: Sequence[str] | None = None) -> int:
    """List the published sets under a folder; 0 where all that was found is whole, else 1."""
    import argparse

    from iqa_checks.layouts.survey import progress_bar, survey, survey_lines

    parser = argparse.ArgumentParser(prog="python -m iqa_checks.datasets", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="a set's own folder, or one that holds several")
    parser.add_argument("--sets", default="", metavar="NAME,...", help="look for these sets only")
    parser.add_argument("--deep", action="store_true", help="decode every image (slow)")
    given = parser.parse_args(arguments)
    sets = tuple(filter(None, given.sets.split(",")))
    try:
        check_source(StimulusSource(Path(), sets=sets, data=given.folder))
        with progress_bar() as progress:
            surveys = list(survey(given.folder, names=sets, deep=given.deep, progress=progress))
    except (UsageError, StimulusError) as error:
        print(error)
        return 2
    print("\n".join(survey_lines(surveys)))
    return 0 if all(s.whole for s in surveys if s.found or s.trouble) else 1


if __name__ == "__main__":
    raise SystemExit(main())
