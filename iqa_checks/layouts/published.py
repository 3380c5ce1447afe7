"""Published data sets: described in ``data/sets/*.yaml``, found in a folder, read as `Rated` rows.

A set in a known layout is one YAML file, with no code:

    title, source, citation, terms, get     for people
    scenario, attribute                     what the set is used for
    opinion, scale, polarity                what its scores are; all as published
    sd_kind, sd_factor                      of what the SD is; what brings it to the unit of the MOS
    expected: {stimuli: N}                  what a whole set holds
    folders                                 names that its folder is known by
    images, references                      where images lie inside it, the first that has a name
    names                                   pattern of image names: how a table is told from others
    tables                                  the forms its scores come in, the preferred one first
    based_on                                another set, of which only the differences are given
    extra: true                             judged only where it is asked for or found

A table's ``columns`` maps image, reference, mos and opinion_sd to a column (a name, a position, or
several names of which one is there) or to a pattern such as ``{image}.{dst_type}.png``. ``layout``
names a reader of `LAYOUTS` where the file is no delimited text. What else a table states (polarity,
opinion, scale, sd_kind, scenario, expected) holds in place of the set's: LIQE's tables of CSIQ and
LIVE, say, are reversed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from iqa_checks.errors import StimuliAbsent, StimulusError, UsageError, known_names
from iqa_checks.layouts.folders import Folder, folders_below, require_inside
from iqa_checks.layouts.live import live_entries, looks_like_live
from iqa_checks.layouts.tables import Table, first_fields, number, read_table
from iqa_checks.stimuli import Attribute, Polarity, Rated, SdKind

if TYPE_CHECKING:
    from iqa_checks.prompts import Scenario

Column = str | int | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableForm:
    """One form in which the scores of a set are published.

    ``reference_of`` is (pattern, replacement): from an image's name to its reference's.
    ``beside`` names files that hold one more column, row by row. ``instead`` holds what the table
    says in place of its set.
    """

    file: str
    columns: Mapping[str, Column]
    header: bool = True
    layout: str = "table"
    reference_of: tuple[str, str] | None = None
    beside: Mapping[str, str] | None = None
    instead: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """A published data set; the fields are described at the top of this module."""

    name: str
    title: str
    source: str
    citation: str
    terms: str
    get: str
    scenario: Scenario
    attribute: Attribute
    opinion: str
    scale: tuple[float, float]
    polarity: Polarity
    sd_kind: SdKind
    expected: Mapping[str, int]
    folders: tuple[str, ...]
    images: tuple[str, ...]
    names: str
    tables: tuple[TableForm, ...]
    references: tuple[str, ...] = ()
    sd_factor: float = 1.0
    notes: tuple[str, ...] = ()
    extra: bool = False
    reference_layout: Literal["published", "augmented"] = "published"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of scores, with names instead of paths."""

    image: str
    reference: str | None
    mos: float
    opinion_sd: float | None
    where: str


@dataclass(frozen=True, slots=True)
class Found:
    """A set that was found: its folder, its table, and what that table says it is.

    ``augmented`` is the folder with the authors' transformed references, where it was found.
    """

    published: Published
    folder: Path
    table: Path
    form: TableForm
    augmented: Path | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """A set's rows whose images are present, and the rows whose images are not.

    ``absent`` holds messages, one for each row that lacks a file.
    """

    found: Found
    rows: tuple[Rated, ...]
    absent: tuple[str, ...]

    @property
    def n_rows(self) -> int:
        return len(self.rows) + len(self.absent)

    @property
    def missing(self) -> tuple[str, ...]:
        """What the set lacks, in words; () where it is whole."""
        expected = self.found.published.expected.get("stimuli", 0)
        lacks = []
        if self.n_rows != expected:
            lacks.append(f"the table holds {self.n_rows:,} of {expected:,} stimuli")
        if self.absent:
            lacks.append(f"{len(self.rows):,} of {self.n_rows:,} images present")
        return tuple(lacks)


class Layout(Protocol):
    """Reads a table of one form: its entries in file order."""

    def __call__(self, found: Found) -> Iterator[Entry]: ...


@cache
def published_sets() -> Mapping[str, Published]:
    """The published data sets by name, the paper's seven first."""
    folder = resources.files("iqa_checks").joinpath("data/sets")
    found = {}
    for file in folder.iterdir():
        if file.name.endswith(".yaml"):
            name = file.name.removesuffix(".yaml")
            found[name] = _described(name, file.read_text(encoding="utf-8"))
    order = ("FR-KADID", "Aug-KADID", "TQD", "SPCD", "NR-KADID", "SPAQ", "AGIQA-3K")
    rest = sorted(found.keys() - set(order), key=lambda name: (found[name].extra, name))
    return {name: found[name] for name in [*order, *rest]}


def find_published(name: str) -> Published:
    """A published set by name; `UsageError` lists the known ones."""
    if name not in published_sets():
        raise known_names("data set", name, published_sets())
    return published_sets()[name]


def locate(published: Published, root: Path) -> Found:
    """Find a set under ``root``: the set's own folder, or one that holds several.

    Up to three folders deep, links not followed, one table form after the other in the order of
    preference. A file with a table's name is taken only if its columns and its first names are
    the set's. Of several places the one with more of the first images wins, then the nearest.

    Raises
    ------
    StimuliAbsent
        Nothing under ``root`` is this set.
    StimulusError
        A table has the right name in the right folder, but not the columns (renamed, cut off).
    """
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder; give the one that holds the data sets")
    candidates, strange, alike = _candidates(published, root)
    if candidates:
        best = candidates[0] if len(candidates) == 1 else max(candidates, key=_n_first_images)
        if published.reference_layout == "augmented":
            return replace(best, augmented=_folder_of_augmented(root))
        return best
    if strange:
        raise StimulusError(strange[0])
    near = f" ({alike[0]})" if alike else ""
    raise StimuliAbsent(f"{published.name} was not found under {root}: {published.get}{near}")


def read(found: Found) -> Reading:
    """All rows of a set. Each subfolder is listed once; no image is opened.

    Raises `StimulusError` for a damaged table, a name that breaks a rule of
    `iqa_checks.layouts.folders`, and where no image at all is present.
    """
    published, folder = found.published, Folder(found.folder)
    augmented = None if found.augmented is None else Folder(found.augmented)
    rows: list[Rated] = []
    absent: list[str] = []
    for entry in entries(found):
        row = _resolved(entry, published, folder, augmented)
        if isinstance(row, str):
            absent.append(row)
        else:
            rows.append(row)
    if absent and not rows:
        raise StimulusError(
            f"{found.table} is there, but none of its {len(absent):,} images "
            f"({absent[0].rpartition(': ')[2]}); expected them in {_places(published)} of "
            f"{found.folder}; {published.get}"
        )
    if not rows:
        raise StimulusError(f"{found.table}: no rows of scores; get the table again")
    return Reading(found, tuple(rows), tuple(absent))


def entries(found: Found) -> Iterator[Entry]:
    """The rows of scores of a set's table, in its order, no file but the table looked at."""
    return LAYOUTS[found.form.layout](found)


def delimited_entries(found: Found) -> Iterator[Entry]:
    """Rows of delimited text or of a spreadsheet."""
    form, published = found.form, found.published
    table = read_table(found.table, header=form.header)
    get = {ours: _getter(theirs, table) for ours, theirs in form.columns.items()}
    beside = _columns_beside(found, len(table.rows))
    for k, (line, fields) in enumerate(table.rows):
        where = f"{found.table}, row {line}"
        image = get["image"](fields)
        sd = beside["opinion_sd"][k] if "opinion_sd" in beside else ""
        sd = sd or ("opinion_sd" in get and get["opinion_sd"](fields)) or ""
        yield Entry(
            image=image,
            reference=_reference(get, fields, image, found),
            mos=number(get["mos"](fields), "score", where),
            opinion_sd=number(sd, "SD", where) * published.sd_factor if sd else None,
            where=where,
        )


LAYOUTS: Mapping[str, Layout] = {"table": delimited_entries, "live_mat": live_entries}


# --- descriptions --------------------------------------------------------------------------------


def _described(name: str, text: str) -> Published:
    import yaml

    given: dict[str, Any] = yaml.safe_load(text)
    base = given.pop("based_on", None)
    if base is not None:
        file = resources.files("iqa_checks").joinpath(f"data/sets/{base}.yaml")
        given = {**yaml.safe_load(file.read_text(encoding="utf-8")), **given}
    given["tables"] = tuple(_form(table) for table in given["tables"])
    for key in ("scale", "folders", "images", "references", "notes"):
        given[key] = tuple(given.get(key, ()))
    return Published(name=name, **given)


def _form(given: dict[str, Any]) -> TableForm:
    own = ("file", "header", "layout", "beside")
    columns = {ours: _as_tuple(theirs) for ours, theirs in given.get("columns", {}).items()}
    pattern = given.get("reference_of")
    known = {*own, "columns", "reference_of"}
    return TableForm(
        columns=columns,
        reference_of=None if pattern is None else (pattern[0], pattern[1]),
        instead={k: _as_tuple(v) for k, v in given.items() if k not in known},
        **{k: given[k] for k in own if k in given},
    )


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# --- finding -------------------------------------------------------------------------------------


def _candidates(published: Published, root: Path) -> tuple[list[Found], list[str], list[str]]:
    """Places that hold the set, the preferred first.

    Then what is wrong with tables that should be its, by the folder they stand in; and with those
    that share a table's name and may well be something else (a data.csv).
    """
    found: list[Found] = []
    strange: list[str] = []
    alike: list[str] = []
    folders = folders_below(root)
    for form in published.tables:
        for folder in folders:
            table = folder / form.file
            if not table.is_file():
                continue
            require_inside(table, root)
            why = _misfit(form, table, published)
            own = root.resolve().name if folder == root else folder.name
            if not why:
                home = _home(published, form, folder, folders, root)
                told = replace(published, **(form.instead or {}))
                found.append(Found(told, home, table, form))
            elif own.casefold() in published.folders or len(form.file.split("/")) > 1:
                strange.append(why)
            else:
                alike.append(why)
    return found, strange, alike


def _home(
    published: Published, form: TableForm, folder: Path, folders: Sequence[Path], root: Path
) -> Path:
    """The folder that names are relative to: the table's, or for pyiqa's lists the images'."""
    if not form.file.startswith("meta_info_"):
        return folder
    named = [f for f in folders if f.name.casefold() in published.folders]
    if not named and root.resolve().name.casefold() in published.folders:
        return root
    return named[0] if named else folder


def _folder_of_augmented(root: Path) -> Path | None:
    """The folder with ``I01_aug.png`` and its kin: beside KADID-10k's or inside it."""
    for folder in folders_below(root):
        try:
            names = os.listdir(folder)
        except OSError:
            continue  # not ours to read
        if any(re.fullmatch(r"I\d\d_aug\.png", name) for name in names):
            return folder
    return None


def _misfit(form: TableForm, table: Path, published: Published) -> str:
    """Why a table of the right name is not the set's; '' where it is."""
    if form.layout == "live_mat":
        return "" if looks_like_live(table) else f"{table} is not LIVE's: it lacks dmos_new"
    first = first_fields(table)
    if form.header:
        lacking = [c for c in _columns_needed(form) if not set(c) & set(first)]
        if lacking:
            return (
                f"{table}: no column {' or '.join(lacking[0])!r}; it has "
                f"{', '.join(first)[:200] or 'none'}; restore the table of {published.name}"
            )
        return _misnamed(form, table, published)
    width = 1 + max(c for c in form.columns.values() if isinstance(c, int))
    if len(first) < width:
        return f"{table}: {len(first)} fields in its first row, expected {width}; get it again"
    image = first[_position(form.columns["image"])]
    return "" if re.fullmatch(published.names, image) else _not_named(table, image, published)


def _misnamed(form: TableForm, table: Path, published: Published) -> str:
    """Whether the first name under a header is of this set; plain headers fit many tables."""
    try:
        whole = read_table(table)
        image = _getter(form.columns["image"], whole)
        names = [image(fields) for _, fields in whole.rows[:1]]
    except StimulusError:
        return ""  # damaged further down: to be read, and reported, by name
    if not names or re.fullmatch(published.names, names[0]):
        return ""
    return _not_named(table, names[0], published)


def _not_named(table: Path, image: str, published: Published) -> str:
    return f"{table}: {image!r} is no name of {published.name}; restore the published table"


def _columns_needed(form: TableForm) -> Iterable[tuple[str, ...]]:
    for column in form.columns.values():
        if isinstance(column, tuple):
            yield column
        elif isinstance(column, str):
            yield from ((name,) for name in re.findall(r"\{(\w+)\}", column) or [column])


def _position(column: Column) -> int:
    return column if isinstance(column, int) else 0


def _n_first_images(found: Found) -> int:
    """How many of the first 20 images are there: tells a set from a lone table of its scores."""
    folder, n = Folder(found.folder), 0
    try:
        for entry, _ in zip(entries(found), range(20), strict=False):
            n += not isinstance(_resolved(entry, found.published, folder), str)
    except StimulusError:
        return 20  # something is wrong with it that its reading will name
    return n


def _places(published: Published) -> str:
    return ", ".join(f"{folder}/" if folder else "the top" for folder in published.images)


# --- rows ----------------------------------------------------------------------------------------


def _resolved(
    entry: Entry, published: Published, folder: Folder, augmented: Folder | None = None
) -> Rated | str:
    """The row with paths, or which of its files is absent."""
    path = folder.find(entry.image, published.images, entry.where)
    if path is None:
        return f"{entry.where}: image {entry.image} is absent"
    reference = None
    if published.scenario != "nr":
        if entry.reference is None:
            return f"{entry.where}: the table names no reference for {entry.image}"
        places = published.references or published.images
        if augmented is not None:  # the authors' where they are, else the one to be transformed
            stem = entry.reference.rpartition(".")[0]
            reference = augmented.find(f"{stem}_aug.png", [""], entry.where)
        reference = reference or folder.find(entry.reference, places, entry.where)
        if reference is None:
            return f"{entry.where}: reference {entry.reference} is absent"
    return Rated(path, entry.mos, entry.opinion_sd, reference, None, entry.where)


class _Getter(Protocol):
    def __call__(self, fields: Sequence[str]) -> str: ...


def _getter(column: Column, table: Table) -> _Getter:
    """How to take a column's text from a row."""
    header = table.header
    if isinstance(column, tuple):
        column = next((name for name in column if name in header), column[0])
    if isinstance(column, int):
        k = column
        return lambda fields: fields[k]
    if "{" in column:
        pattern: str = column
        return lambda fields: re.sub(
            r"\{(\w+)\}", lambda m: fields[header.index(m.group(1))], pattern
        )
    if header.count(column) != 1:
        raise StimulusError(
            f"{table.path}: {header.count(column) or 'no'} columns are called {column!r}; it has "
            f"{', '.join(header) or 'none'}; restore the published table"
        )
    at = header.index(column)
    return lambda fields: fields[at]


def _reference(
    get: Mapping[str, _Getter], fields: Sequence[str], image: str, found: Found
) -> str | None:
    if "reference" in get:
        return get["reference"](fields)
    if found.form.reference_of is None:
        return None
    pattern, replacement = found.form.reference_of
    return re.sub(pattern, replacement, image)


def _columns_beside(found: Found, n_rows: int) -> dict[str, list[str]]:
    """Columns that stand in files of their own; an absent one is left out."""
    columns = {}
    for ours, name in (found.form.beside or {}).items():
        path = found.table.parent / name
        if not path.is_file():
            continue
        require_inside(path, found.table.parent)
        column = [fields[0] for _, fields in read_table(path, header=False).rows]
        if len(column) != n_rows:
            raise StimulusError(
                f"{path} has {len(column)} rows, {found.table.name} has {n_rows}; get both again"
            )
        columns[ours] = column
    return columns
