"""Tables of rows: every format holds the same figures, whatever the names contain."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import pytest

from iqa_checks.baseline import Run
from iqa_checks.report.row import Interval, Row
from iqa_checks.report.summary import in_order, summary_lines, write_results
from iqa_checks.report.tables import COLUMNS, TABLE_FORMATS, csv_table, interval, number, printable

UNDEFINED = Interval(None, None, None, "all scores are equal")
HOSTILE = 'a|b\x1b[31mred\x1b[0m\r\n=cmd()|"x",\x07 é'
INTERVALS = ("srcc", "srcc_pooled", "plcc", "plcc_raw", "krcc")


@pytest.fixture
def row() -> Row:
    """A row with a figure in every place."""
    figure = Interval(0.8125, 0.64, 0.905, None)
    return Row(
        cell="fr-double-standard-builtin", model="observer", stimuli="builtin", scenario="fr",
        protocol="double", strategy="standard", selection="uniform", preset="sound",
        opinion="MOS", attribute="structure", manifest="0" * 64, n=30, n_references=5, trials=75,
        srcc=figure, srcc_pooled=figure, plcc=figure, plcc_raw=figure, krcc=figure,
        chance_srcc=0.31, chance_plcc=0.42, chance_p=0.001, unparsed_rate=0.125,
        unparsed={"refusal": 3}, tie_rate=0.1, position_bias=0.2, consistency=0.9,
        replies={"new": 75, "resumed": 0, "reused": 0}, tokens={"prompt": 0, "completion": 0},
        verdict="PASS", passed=True, explanation="PASS: SRCC.", warnings=(), notes=("a note",),
        per_stimulus=(("a.png", "0" * 64, 3.5, None),),
    )  # fmt: skip


@pytest.fixture
def settings(tmp_path):
    from iqa_checks.datasets import StimulusSource
    from iqa_checks.settings import Settings

    return Settings("observer", StimulusSource(tmp_path))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.8125, ".812"), (-0.12, "-.120"), (1.0, "1.000"), (-1.0, "-1.000"), (0.0, ".000"),
     (0.9999, "1.000"), (-0.9999, "-1.000"), (10.05, "10.050"), (None, "-")],
)  # fmt: skip
def test_numbers(value, text):
    """Correlations without their zero, in three decimals."""
    assert number(value) == text


def test_intervals(row):
    """With ends, without, undefined; never a 0 for what is not known."""
    assert interval(row.srcc) == ".812 [.640, .905]"
    assert interval(Interval(0.5, None, None, "too few")) == ".500"
    assert interval(UNDEFINED) == "undefined"


@pytest.mark.parametrize("name", TABLE_FORMATS)
def test_every_format_shows_every_row(row, name):
    """Figures, an undefined value and the verdict stand in each."""
    rows = [row, replace(row, srcc=UNDEFINED, verdict="INCONCLUSIVE", strategy="in_context")]
    text = TABLE_FORMATS[name](rows)
    assert "INCONCLUSIVE" in text
    assert ("0.8125" if name == "csv" else ".812 [.640, .905]") in text
    assert TABLE_FORMATS[name]([])


def test_markdown_table_is_rectangular(row):
    """As many cells in each line as in the head; a bar in a name is escaped."""
    lines = TABLE_FORMATS["markdown"]([row, replace(row, stimuli="a|b")]).splitlines()
    assert len(lines) == 4
    counts = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert counts == {len(COLUMNS) + 1}
    assert r"a\|b FR" in lines[3]


@pytest.mark.parametrize("name", ["terminal", "markdown"])
def test_no_name_controls_the_terminal_or_breaks_a_line(row, name):
    """A set is named after a user's file: escapes and line ends are shown, not obeyed."""
    plain = TABLE_FORMATS[name]([row])
    text = TABLE_FORMATS[name]([replace(row, stimuli=HOSTILE, strategy=HOSTILE)])
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert len(text.splitlines()) == len(plain.splitlines())


def test_terminal_table_is_plain_unless_colored(row):
    """No escape without color; no line is cut."""
    text = TABLE_FORMATS["terminal"]([row])
    assert "\x1b" not in text
    long = TABLE_FORMATS["terminal"]([replace(row, stimuli="s" * 60)])
    assert "s" * 60 + " FR" in long
    assert "PASS" in long


def test_csv_is_read_back_by_the_csv_module(row):
    """One row a cell, full precision, nothing broken by commas, quotes or line ends."""
    third = Interval(1 / 3, None, None, None)
    rows = [replace(row, stimuli=HOSTILE, srcc=third), replace(row, srcc=UNDEFINED)]
    read = list(csv.DictReader(io.StringIO(csv_table(rows), newline="")))
    assert len(read) == 2
    assert all(None not in line and None not in line.values() for line in read)
    assert float(read[0]["srcc"]) == 1 / 3
    assert read[0]["srcc_low"] == read[1]["srcc"] == ""
    for name in INTERVALS[1:]:
        assert (float(read[0][name]), float(read[0][f"{name}_high"])) == (0.8125, 0.905)
    assert read[0]["stimuli"].removeprefix("'") == printable(HOSTILE)
    assert (read[0]["verdict"], read[0]["n"]) == ("PASS", "30")


def test_rows_are_ordered_by_cell_not_by_arrival(row):
    """Whatever order workers finish in; a strategy of one's own stands last."""
    places = [("single", "standard"), ("single", "in_context"), ("single", "chain_of_thought"),
              ("single", "a_mine"), ("double", "standard"), ("multiple", "standard")]  # fmt: skip
    rows = [
        replace(row, protocol=p, strategy=s, cell=f"fr-{p}-{s}-builtin").plain() for p, s in places
    ]
    for shuffled in (rows[::-1], rows[3:] + rows[:3]):
        assert [(r.protocol, r.strategy) for r in in_order(shuffled)] == places


def test_summary_tells_notes_once_warnings_per_cell_and_what_is_absent(row, settings):
    """What must be known to read the table."""
    rows = [row.plain(), replace(row, protocol="single", warnings=("graph in 2 parts",)).plain()]
    absent = {"SPAQ is not at hand: download it": "nodeid"}
    lines = summary_lines(rows, absent, settings, None, color=False)
    assert lines[0] == "model observer (simulated observer), preset sound, seed 0"
    assert lines.count("note: builtin: a note") == 1
    assert f"warning: {row.cell}: graph in 2 parts" in lines
    assert lines[-1] == "not measured: SPAQ is not at hand: download it"


def test_results_are_written_and_read_back(row, settings, tmp_path):
    """JSON holds the rows exactly; undefined is null; the folder is made."""
    rows = (row, replace(row, protocol="single", srcc=UNDEFINED))
    folder = tmp_path / "new" / "out"
    run = Run("observer", None, "sound", 0, rows, {}, started_at=0.0, saved_at=1.0)
    paths = write_results(folder, run, settings)
    assert {path.name for path in paths} >= {"results.json", "results.md", "results.csv"}
    document = json.loads((folder / "results.json").read_text())
    assert [Row.from_plain(plain) for plain in document["rows"]] == list(rows)
    assert document["rows"][1]["srcc"]["value"] is None
    assert (document["model"], document["schema"]) == ("observer", 1)
    text = (folder / "results.md").read_text()
    assert "- builtin: a note" in text
    assert len(list(csv.DictReader((folder / "results.csv").open(newline="")))) == 2


@pytest.mark.parametrize("name", ["terminal", "markdown"])
def test_reliability_is_shown_where_there_were_repeats(row, name):
    """One column, before the verdict; empty for the cells without."""
    show = TABLE_FORMATS[name]
    repeated, other = replace(row, retest=0.873), replace(row, cell="other")
    assert "retest" not in show([row])
    head = next(line for line in show([repeated, other]).splitlines() if "retest" in line)
    assert head.index("retest") < head.index("verdict")
    assert ".873" in show([other, repeated])
    assert "0.873" in TABLE_FORMATS["csv"]([repeated])
