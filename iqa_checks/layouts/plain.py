"""Readers of rating tables: from files on disk to `Rated` rows, one reader per layout.

All input is untrusted: a table is read as UTF-8 text, every field is checked, and the first thing
that is wrong is reported with its file, row, value and remedy.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

from iqa_checks.errors import StimulusError
from iqa_checks.layouts.images import check_presentation
from iqa_checks.stimuli import Polarity, Rated, StimulusSet, check_opinions, verify

COLUMNS = ("image", "mos", "opinion_sd", "reference", "sha256")
REQUIRED = ("image", "mos")
MAX_TABLE_BYTES = 256 * 2**20
_SMALL_SD = 0.05  # of the scale: SDs of opinions lie at 10 to 20 %, LIVE's of the mean at 2.5 %


@dataclass(frozen=True, slots=True)
class RatingTable:
    """A table of one's own ratings, and how to read it.

    ``columns`` maps our names (`COLUMNS`) to the file's. ``scale`` and ``polarity`` are taken from
    header lines ("# scale: 1:5", "# polarity: lower_better") where not given.

    The column opinion_sd holds SDs of single opinions. Where it holds standard errors of the mean
    (LIVE, TID2013) a header line must say so, "# opinion_sd: of_the_mean": they are left out, or
    turned into SDs of opinions where a further line gives the opinions per image ("# raters: 25").
    """

    path: Path
    columns: Mapping[str, str]
    scale: tuple[float, float] | None = None
    polarity: Polarity | None = None


def read_ratings(table: RatingTable) -> tuple[list[Rated], tuple[float, float], Polarity, str]:
    """Rows, scale, polarity and a note on the scale; nothing but the table is opened.

    Raises `StimulusError` naming file, row, value and remedy.
    """
    lines = list(io.StringIO(read_text(table.path)))  # not splitlines: U+2028 may stand in a name
    stated, n_comments = _stated(lines)
    rows = list(_rows(table, lines[n_comments:], n_comments))
    if not rows:
        raise StimulusError(f"{table.path}: no ratings; expected a header and one row per image")
    polarity = table.polarity or _polarity(stated.get("polarity"), table)
    scale = table.scale
    if scale is None and "scale" in stated:
        scale = parse_scale(stated["scale"], where=f"{table.path}: ")
    note = f"scale {scale[0]:g}..{scale[1]:g}" if scale else ""
    if scale is None:
        scale = (min(row.mos for row in rows), max(row.mos for row in rows))
        note = f"scale not given: the data's own range {scale[0]:g}..{scale[1]:g}"
        if scale[0] == scale[1]:
            scale = (scale[0] - 1, scale[1] + 1)  # constant: refused below, with its own words
    rows, about_sd = _opinion_sds(rows, stated, scale, table)
    check_opinions(rows, scale, name=str(table.path))
    return rows, scale, polarity, "; ".join(filter(None, (note, about_sd)))


def _opinion_sds(
    rows: list[Rated], stated: Mapping[str, str], scale: tuple[float, float], table: RatingTable
) -> tuple[list[Rated], str]:
    """The rows with SDs of single opinions or none, and a note on where those come from."""
    given = [row.opinion_sd for row in rows if row.opinion_sd is not None]
    kind = stated.get("opinion_sd", "per_opinion")
    if kind not in ("per_opinion", "of_the_mean"):
        raise StimulusError(
            f"{table.path}: opinion_sd {kind!r}; expected per_opinion or of_the_mean"
        )
    if not given:
        return rows, ""
    if kind == "per_opinion":
        share = sum(given) / len(given) / (scale[1] - scale[0])
        if "opinion_sd" in stated or share >= _SMALL_SD:
            return rows, ""
        return rows, (
            f"opinion SDs average {share:.1%} of the scale: if they are standard errors of the "
            "mean, say so in the table ('# opinion_sd: of_the_mean')"
        )
    raters = _raters(stated, table)
    if raters is None:
        without = [replace(row, opinion_sd=None) for row in rows]
        return without, "SDs of the mean left out: '# raters: N' would turn them into opinion SDs"
    factor = math.sqrt(raters)
    turned = [
        row if row.opinion_sd is None else replace(row, opinion_sd=row.opinion_sd * factor)
        for row in rows
    ]
    return turned, f"opinion SDs are those of the mean times the root of {raters:g} opinions"


def _raters(stated: Mapping[str, str], table: RatingTable) -> float | None:
    if "raters" not in stated:
        return None
    raters = _number(stated["raters"], "number of raters", str(table.path))
    if raters < 1:
        raise StimulusError(f"{table.path}: {raters:g} raters; expected the opinions per image")
    return raters


def load_ratings(table: RatingTable) -> StimulusSet:
    """The whole set of a table of one's own, every image verified."""
    rows, scale, polarity, note = read_ratings(table)
    stimuli = verify(rows, name=str(table.path))
    return StimulusSet(
        name=table.path.stem,
        stimuli=stimuli,
        scale=scale,
        polarity=polarity,
        opinion="MOS" if polarity == "higher_better" else "DMOS",
        sd_kind="per_opinion" if any(row.opinion_sd is not None for row in rows) else "none",
        notes=tuple(filter(None, (note, *check_presentation(stimuli)))),
    )


def _stated(lines: Sequence[str]) -> tuple[dict[str, str], int]:
    """What the comments at the top state ("# scale: 1:5"), and how many lines they are.

    Further down a line that begins with # is a row: of an image called "#1.png".
    """
    top = list(itertools.takewhile(lambda line: line.startswith("#") or line.isspace(), lines))
    parts = [line.lstrip("# ").partition(":") for line in top]
    return {name.strip().lower(): value.strip() for name, _, value in parts}, len(top)


def parse_scale(text: str, *, where: str = "") -> tuple[float, float]:
    """Read "1:5" or "1..5"."""
    parts = text.replace("..", ":").split(":")
    try:
        low, high = (float(part) for part in parts)
    except ValueError:
        raise StimulusError(
            f"{where}scale {text!r}: expected LOW:HIGH, as in 1:5 or 0:100"
        ) from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise StimulusError(
            f"{where}scale {text!r}: the low end must lie below the high end, as in 1:5"
        )
    return low, high


def read_text(path: Path) -> str:
    """A whole table as text: UTF-8, at most 256 MiB; `StimulusError` otherwise."""
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise StimulusError(
                f"{path} is over {MAX_TABLE_BYTES // 2**20} MiB: not a table of ratings; "
                "give one with a row per image"
            )
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise StimulusError(
            f"table of ratings {path} cannot be read ({error.strerror}); check the path"
        ) from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise StimulusError(
            f"{path}, row {line}: not UTF-8 text (byte {error.object[error.start]:#04x}); "
            "save the table as UTF-8"
        ) from None


def _polarity(stated: str | None, table: RatingTable) -> Polarity:
    if stated is None:
        if table.columns.get("mos", "mos").lower().startswith("dmos"):
            raise StimulusError(
                f"{table.path}: a column of DMOS does not say which end is good (KADID-10k's is "
                "higher = better, LIVE's lower): give --iqa-polarity higher_better or lower_better"
            )
        return "higher_better"
    if stated not in get_args(Polarity):
        raise StimulusError(
            f"{table.path}: polarity {stated!r}; expected higher_better or lower_better"
        )
    return cast(Polarity, stated)


def _rows(table: RatingTable, lines: Sequence[str], n_before: int) -> Iterator[Rated]:
    reader = csv.reader(lines, strict=True)
    number = n_before + 1
    try:
        names = [name.strip() for name in next(reader, [])]
        where = _columns(table, names)
        number = n_before + reader.line_num + 1  # of a row's first line: it may hold several
        for fields in reader:
            at = f"{table.path}, row {number}"
            if any(fields):
                if len(fields) != len(names):
                    raise StimulusError(
                        f"{at}: {len(fields)} fields, but the header has {len(names)}; quote "
                        "fields that hold commas and write decimals with a point"
                    )
                yield _row(table, {name: fields[k].strip() for name, k in where.items()}, at)
            number = n_before + reader.line_num + 1
    except csv.Error as error:
        raise StimulusError(
            f"{table.path}, row {number}: not a CSV table ({error}); check its quotes"
        ) from None


def _columns(table: RatingTable, names: list[str]) -> dict[str, int]:
    """Where each of our columns stands in the file."""
    where = {}
    for ours in COLUMNS:
        theirs = table.columns.get(ours, ours)
        if theirs in names:
            if names.count(theirs) > 1:
                raise StimulusError(f"{table.path}: two columns are called {theirs!r}; rename one")
            where[ours] = names.index(theirs)
        elif ours in REQUIRED or ours in table.columns:
            if len(names) == 1 and (mark := next((m for m in ";\t" if m in names[0]), "")):
                raise StimulusError(
                    f"{table.path}: its columns are separated by {mark!r}; save it with commas"
                )
            raise StimulusError(
                f"{table.path}: no column {theirs!r}; it has {', '.join(names) or 'none'}. "
                f"Rename it, or say which it is with --iqa-columns {ours}=NAME"
            )
    return where


def _row(table: RatingTable, fields: Mapping[str, str], at: str) -> Rated:
    if not fields["image"]:
        raise StimulusError(f"{at}: no image is named; fill the field or remove the row")
    folder = table.path.parent
    reference = fields.get("reference")
    sd = fields.get("opinion_sd")
    return Rated(
        path=folder / fields["image"],
        mos=_number(fields["mos"], "score", at),
        opinion_sd=_number(sd, "opinion SD", at) if sd else None,
        reference=folder / reference if reference else None,
        sha256=fields.get("sha256") or None,
        row=at,
    )


def _number(text: str, what: str, at: str) -> float:
    try:
        value = float(text.replace("_", "?"))  # Python reads 1_5 as 15
    except ValueError:
        hint = " (a decimal comma? write a point)" if "," in text else ""
        raise StimulusError(f"{at}: {what} {text!r} is not a number{hint}; correct it") from None
    if not math.isfinite(value):
        raise StimulusError(f"{at}: {what} is {text}; remove the row or give its score")
    return value
