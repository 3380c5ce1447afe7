"""Tables of scores as data sets ship them: comma, tab or blank delimited text, and xlsx.

A table is read as text and nothing in it is executed: xlsx through openpyxl in read-only mode with
cached values (no formula is evaluated, no link followed). A table over 256 MiB, or a spreadsheet
that unpacks to more, is refused.
"""

from __future__ import annotations

import csv
import math
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from iqa_checks.errors import StimulusError
from iqa_checks.layouts.plain import MAX_TABLE_BYTES, read_text


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a header; ``header`` is () where the file has none.

    ``rows`` holds (row number as an editor shows it, fields).
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]


def read_table(path: Path, *, header: bool = True) -> Table:
    """Read a whole table; `StimulusError` naming file and row where it is damaged.

    The delimiter is the tab if the first line has one, else the comma, else any blanks: KADID and
    its kin are CSV, TQD is tab separated, the lists of Wu et al. and TID2013 use blanks.
    """
    try:
        about = path.stat()
    except OSError as error:
        raise StimulusError(f"{path} cannot be read ({error.strerror})") from None
    return _read_table(path, header, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=4)  # a set's table is looked at to recognise it, to find its images, to read it
def _read_table(path: Path, header: bool, mtime_ns: int, size: int) -> Table:
    """``mtime_ns`` and ``size`` make another table of a file that was written again."""
    numbered = list(_sheet(path) if path.suffix.lower() == ".xlsx" else _lines(path))
    names: tuple[str, ...] = ()
    if header and numbered:
        names = tuple(name.strip() for name in numbered.pop(0)[1])
    width = len(names) or (len(numbered[0][1]) if numbered else 0)
    for number, fields in numbered:
        if len(fields) != width:
            raise StimulusError(
                f"{path}, row {number}: {len(fields)} fields where {width} are expected; "
                "the table is damaged or cut off: get it again"
            )
    return Table(path, names, tuple(numbered))


def first_fields(path: Path) -> tuple[str, ...]:
    """The fields of a table's first row, () where it has none or is not a table."""
    try:
        rows = _sheet(path) if path.suffix.lower() == ".xlsx" else _lines(path, only_first=True)
        return next((fields for _, fields in rows), ())
    except StimulusError:
        return ()


def number(text: str, what: str, where: str) -> float:
    """A finite number; "0,061" is read with a decimal comma, as CSIQ's table has it.

    A comma beside a point ("1,234.5") is ambiguous and refused.
    """
    try:
        value = float(text.replace(",", ".") if text.count(",") == 1 else text)
    except ValueError:
        raise StimulusError(
            f"{where}: {what} {text!r} is not a number; restore the published table"
        ) from None
    if not math.isfinite(value):
        raise StimulusError(f"{where}: {what} is {text}; restore the published table")
    return value


def _lines(path: Path, *, only_first: bool = False) -> Iterator[tuple[int, tuple[str, ...]]]:
    text = _head(path) if only_first else read_text(path)
    lines = text.split("\n")
    first = next((line for line in lines if line.strip()), "")
    delimiter = "\t" if "\t" in first else "," if "," in first else ""
    if not delimiter:
        for k, line in enumerate(lines):
            if line.strip():
                yield k + 1, tuple(line.split())
        return
    reader = csv.reader((line + "\n" for line in lines), delimiter=delimiter, strict=True)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield reader.line_num, tuple(field.strip() for field in fields)
    except csv.Error as error:
        raise StimulusError(
            f"{path}, row {reader.line_num}: not a table ({error}); get it again"
        ) from None


def _head(path: Path) -> str:
    """The first line, of at most 64 KiB: enough to recognise a table."""
    try:
        with path.open("rb") as file:
            data = file.read(65536)
    except OSError as error:
        raise StimulusError(f"{path} cannot be read ({error.strerror})") from None
    return data.decode("utf-8-sig", errors="replace").lstrip().partition("\n")[0]


def _sheet(path: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Rows of the first sheet; trailing empty cells of a row are dropped up to its header."""
    openpyxl = _openpyxl()
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MAX_TABLE_BYTES:
            raise StimulusError(f"{path} unpacks to {unpacked / 2**20:.0f} MiB: not a score table")
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except StimulusError:
        raise
    except Exception as error:  # openpyxl raises whatever a damaged zip or XML makes it raise
        raise StimulusError(
            f"{path} is not a readable xlsx file ({error}); get it again, or export it as CSV"
        ) from None
    try:
        width = 0
        for k, cells in enumerate(book.worksheets[0].iter_rows(values_only=True)):
            fields = tuple(_cell(value) for value in cells)
            width = width or _used(fields)
            if any(fields):
                yield k + 1, (*fields[:width], *[""] * (width - len(fields)))
    finally:
        book.close()


def _used(fields: Sequence[str]) -> int:
    return max((k + 1 for k, field in enumerate(fields) if field), default=0)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value).strip()


def _openpyxl() -> Any:
    import openpyxl

    return openpyxl
