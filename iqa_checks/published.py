"""Published data sets as stimulus sets: whole, or what one cell asks about.

For a cell, selection happens on the table of scores; only the images that were chosen are opened,
hashed, re-wrapped (BMP) or made (Aug-KADID's references).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from iqa_checks.errors import StimuliAbsent, StimulusError, UsageError
from iqa_checks.layouts.derived import augmented_reference, sendable_copy
from iqa_checks.layouts.images import check_presentation
from iqa_checks.layouts.plain import read_text
from iqa_checks.layouts.published import (
    Found,
    Published,
    Reading,
    find_published,
    locate,
    published_sets,
    read,
)
from iqa_checks.stimuli import Rated, Stimulus, StimulusSet, check_opinions, verify

if TYPE_CHECKING:
    from iqa_checks.datasets import StimulusSource
    from iqa_checks.prompts import Scenario

N_EXEMPLARS = 4
REFERENCES = {False: (5, 30), True: (15, 150)}  # full or not: references, stimuli
THREADS = 4
CHUNK = 32


def load_published(name: str, root: Path, cache_dir: Path, *, whole: bool = False) -> StimulusSet:
    """Every stimulus of a published set that is at hand, verified and hashed.

    ``root`` is the set's folder or one that holds several. The notes say what is lacking; with
    ``whole`` that is an error. A damaged image is always one: a set never shrinks silently.

    Raises `StimuliAbsent` where nothing under ``root`` is the set, else `StimulusError`.
    """
    reading = _read(name, root, whole=whole)
    return _described(reading, _opened(reading.rows, reading, cache_dir), (), ())


def check_at_hand(name: str, source: StimulusSource) -> None:
    """`StimuliAbsent` for a published set that is not there; opens no image."""
    if source.data is None:
        raise _without_folder(name)
    locate(find_published(name), source.data)


def _without_folder(name: str) -> StimuliAbsent:
    how = find_published(name).get
    return StimuliAbsent(f"{name} is not at hand: {how}, then give --iqa-data DIR")


def published_cell(name: str, scenario: Scenario, source: StimulusSource) -> StimulusSet:
    """What a cell asks about: uniform by score, or the rows of a given list; exemplars held out.

    Raises `StimuliAbsent` where the set is not at hand or has no references and needs them.
    """
    if source.data is None:
        raise _without_folder(name)
    reading = _read(name, source.data, whole=source.whole)
    if reading.found.published.scenario != scenario:
        raise StimuliAbsent(
            f"{reading.found.table} serves {reading.found.published.scenario} cells, not {scenario}"
        )
    given = selection_file(name, source.selections)
    tested, held_out, how = _chosen(reading, scenario, source, given)
    return _described(
        reading,
        _opened(tested, reading, source.cache_dir),
        _opened(held_out, reading, source.cache_dir),
        (f"{len(tested)} of {len(reading.rows):,} stimuli: {how}",),
    )


def _read(name: str, root: Path, *, whole: bool) -> Reading:
    found = locate(find_published(name), root)
    reading = read(found)
    if whole and reading.missing:
        first = f" (first: {reading.absent[0]})" if reading.absent else ""
        raise StimulusError(
            f"{name} in {found.folder} is not whole: {'; '.join(reading.missing)}{first}; "
            "get the rest, or run without --iqa-whole"
        )
    check_opinions(reading.rows, found.published.scale, name=str(found.table))
    return reading


def _described(
    reading: Reading,
    stimuli: tuple[Stimulus, ...],
    exemplars: tuple[Stimulus, ...],
    notes: tuple[str, ...],
) -> StimulusSet:
    published = reading.found.published
    rated_sd = any(row.opinion_sd is not None for row in reading.rows)
    made = _made(reading.found, reading.rows)
    shown = check_presentation((*stimuli, *exemplars))
    return StimulusSet(
        name=published.name,
        stimuli=stimuli,
        scale=published.scale,
        polarity=published.polarity,
        attribute=published.attribute,
        opinion=published.opinion,
        sd_kind=published.sd_kind if rated_sd else "none",
        exemplars=exemplars,
        notes=(*published.notes, *reading.missing, *made, *shown, *notes),
    )


def _made(found: Found, rows: Sequence[Rated]) -> tuple[str, ...]:
    """Notes on images that are not the published bytes."""
    notes = []
    if any(row.path.suffix.casefold() == ".bmp" for row in rows):
        notes.append("BMP files are sent as pixel-identical PNG")
    plain = [row for row in rows if row.reference and not row.reference.stem.endswith("_aug")]
    if found.published.reference_layout == "augmented" and plain:
        notes.append(
            "references transformed by iqa_checks: 5 % shift, 3 degrees rotation, 1.05 scale or "
            "all three, in turn over the contents; the scores are KADID-10k's, not ratings of "
            "these pairs"
        )
    return tuple(notes)


# --- opening -------------------------------------------------------------------------------------


def _opened(rows: Sequence[Rated], reading: Reading, cache_dir: Path) -> tuple[Stimulus, ...]:
    """Rows as verified stimuli, in order; threads, because zlib and hashing run beside Python."""
    published = reading.found.published

    def work(chunk: list[Rated]) -> tuple[Stimulus, ...]:
        prepared = [_prepared(row, published, cache_dir) for row in chunk]
        return verify(prepared, name=published.name)

    with ThreadPoolExecutor(THREADS) as pool:
        done = pool.map(work, _chunks(rows))
        return tuple(stimulus for chunk in done for stimulus in chunk)


def _chunks(rows: Sequence[Rated]) -> Iterator[list[Rated]]:
    """Rows that share a reference stay together, so that it is read once."""
    chunk: list[Rated] = []
    for row in rows:
        apart = bool(chunk) and (row.reference is None or row.reference != chunk[-1].reference)
        if len(chunk) >= (CHUNK if apart else 8 * CHUNK):
            yield chunk
            chunk = []
        chunk.append(row)
    if chunk:
        yield chunk


def _prepared(row: Rated, published: Published, cache_dir: Path) -> Rated:
    """The row with the files that will be sent."""
    reference = row.reference
    if reference is not None and published.reference_layout == "augmented":
        reference = augmented_reference(reference, cache_dir, where=row.row)
    if reference is not None:
        reference = sendable_copy(reference, cache_dir, where=row.row)
    return replace(row, path=sendable_copy(row.path, cache_dir, where=row.row), reference=reference)


# --- choosing ------------------------------------------------------------------------------------


def _chosen(
    reading: Reading, scenario: Scenario, source: StimulusSource, given: Path | None
) -> tuple[list[Rated], list[Rated], str]:
    """Test stimuli, held-out exemplars, and how the former were chosen.

    The test stimuli come first: a selection of the whole table is the published one. Where they
    would leave too few for exemplars (TQD, whose 150 are all tested in the paper), exemplars go
    first and the rest is tested.
    """
    rows = sorted(reading.rows, key=lambda row: (_content(row), row.path.name))
    if given is not None:
        tested, how = _listed(rows, given, reading), f"the list {given.name}"
        return tested, _exemplars(rows, tested, scenario, source.seed), how
    tested = _uniform(rows, scenario, source)
    held_out = _exemplars(rows, tested, scenario, source.seed)
    if not held_out and len(rows) >= 4 * N_EXEMPLARS:
        held_out = _exemplars(rows, [], scenario, source.seed)
        tested = _uniform([row for row in rows if row not in held_out], scenario, source)
    how = "equal rank steps over the scores" + (" of each reference" if scenario == "fr" else "")
    return tested, held_out, how


def _uniform(rows: Sequence[Rated], scenario: Scenario, source: StimulusSource) -> list[Rated]:
    import numpy as np

    from iqa_checks.selection import select_uniform, select_uniform_by_reference

    mos = np.array([row.mos for row in rows])
    names = [row.path.name for row in rows]
    n_references, n = REFERENCES[source.full]
    n = source.limit or n
    if scenario != "fr":
        pairs = [f"{_content(row)} {name}" for row, name in zip(rows, names, strict=True)]
        picks = select_uniform(mos, n, pairs if scenario == "difference" else names)
    else:
        contents = [_content(row) for row in rows]
        n_references = max(1, min(n_references, len(set(contents)), n // 2))
        picks = select_uniform_by_reference(
            mos, contents, n_references, max(2, n // n_references), names, seed=source.seed
        )
    return [rows[int(k)] for k in picks]


def _exemplars(
    rows: Sequence[Rated], tested: Sequence[Rated], scenario: Scenario, seed: int
) -> list[Rated]:
    """Four rows that are not tested and share no image with a tested one; [] where there are none.

    FR: all of one reference, because a prompt shows one.
    """
    import numpy as np

    from iqa_checks.selection import select_exemplars

    shown = {path for row in tested for path in (row.path, row.reference)}
    rest = [row for row in rows if not {row.path, row.reference or row.path} & shown]
    if scenario == "fr" and rest:
        counts = Counter(_content(row) for row in rest)
        most = max(counts, key=lambda content: (counts[content], _drawn(seed, content)))
        rest = [row for row in rest if _content(row) == most]
    if len(rest) < 2 * N_EXEMPLARS:
        return []
    mos = np.array([row.mos for row in rest])
    return [rest[int(k)] for k in select_exemplars(mos, N_EXEMPLARS, seed=seed)]


def _drawn(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def _content(row: Rated) -> str:
    """The name of a row's reference, transformed or not; '' without one."""
    return "" if row.reference is None else _key(row.reference.name)


def _key(name: str) -> str:
    """A file's name as lists compare it: no folder, no case, ``I12_aug.png`` as ``i12.png``."""
    return name.replace("\\", "/").rpartition("/")[2].casefold().replace("_aug.", ".")


# --- lists of others -----------------------------------------------------------------------------


def read_selection(path: Path) -> list[tuple[str, ...]]:
    """A list of stimuli: (image,) or (reference, image) on each line, scores after them ignored.

    The released lists of Wu et al. 2024 (``*_sampled_uniform.txt``, ``*_sampled_difficult.txt``)
    are such; blanks, tabs and commas separate, lines that begin with # are comments.
    """
    listed = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        fields = [field for field in re.split(r"[\s,]+", line.strip()) if field]
        if not fields or line.startswith("#"):
            continue
        names = tuple(_key(field) for field in fields if not _is_number(field))
        if not 1 <= len(names) <= 2:
            raise StimulusError(
                f"{path}, row {number}: {len(names)} names; expected IMAGE or REFERENCE IMAGE, "
                "and then a score or nothing"
            )
        listed.append(names)
    if not listed:
        raise StimulusError(f"{path}: an empty list; expected one stimulus a line")
    return listed


def selection_file(name: str, given: Iterable[str]) -> Path | None:
    """The list for a set among ``--iqa-selection`` values: NAME=FILE, FILE, or a folder of lists.

    A bare file is taken for the set that its name begins with (``FR_KADID_sampled_uniform.txt``
    for FR-KADID). Raises `UsageError` where several are for the set.
    """
    wanted = _plain(name)
    matching = []
    for text in given:
        set_name, equals, file = text.partition("=")
        if equals and _plain(set_name) == wanted:
            matching.append(Path(file))
        elif not equals:
            path = Path(text)
            files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
            matching += [file for file in files if _plain(file.stem).startswith(wanted + "sampled")]
    if len(matching) > 1:
        names = ", ".join(str(path) for path in matching)
        raise UsageError(f"{name}: several lists are given ({names}); name one: {name}=FILE")
    return matching[0] if matching else None


def check_selections(given: Iterable[str]) -> None:
    """Each list must exist and be for a known set; `UsageError` where not."""
    for text in given:
        set_name, equals, file = text.partition("=")
        path = Path(file if equals else text)
        if equals:
            find_published(set_name)
        if not path.exists():
            raise UsageError(f"--iqa-selection {text}: there is no {path}; check the path")
        if not any(selection_file(name, [text]) for name in published_sets()):
            raise UsageError(
                f"--iqa-selection {text}: for which set? Say NAME=FILE, or name the file as in "
                "FR_KADID_sampled_uniform.txt"
            )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _listed(rows: Sequence[Rated], path: Path, reading: Reading) -> list[Rated]:
    """The rows that a list names. One that the set lacks is an error; if it is merely absent from
    a partial set, the note on the number of stimuli tells."""
    by_name: dict[tuple[str, ...], Rated] = {}
    for row in rows:
        by_name.setdefault((_key(row.path.name),), row)
        by_name[_content(row), _key(row.path.name)] = row
    listed = dict.fromkeys(read_selection(path))
    if not _content(rows[0]):  # without references an FR list names its images all the same
        listed = dict.fromkeys(names[-1:] for names in listed)
    lacking = [" ".join(names) for names in listed if names not in by_name]
    chosen = [by_name[names] for names in listed if names in by_name]
    if not chosen or (lacking and not reading.missing):
        raise StimulusError(
            f"{path} names {len(lacking)} stimuli that {reading.found.table} lacks (first: "
            f"{lacking[0]}); is it a list for {reading.found.published.name}?"
        )
    return chosen
