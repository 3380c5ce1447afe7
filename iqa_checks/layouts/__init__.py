"""Readers of rating tables: from files on disk to `Rated` rows.

`plain` reads a table of one's own, `published` the data sets described in ``data/sets/*.yaml``.
`tables` and `folders` are what they share: delimited text, spreadsheets, and names that may not
leave a folder. All of it is untrusted input.
"""

from iqa_checks.layouts.plain import (
    COLUMNS,
    RatingTable,
    load_ratings,
    parse_scale,
    read_ratings,
)

__all__ = ["COLUMNS", "RatingTable", "load_ratings", "parse_scale", "read_ratings"]
