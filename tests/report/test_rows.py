"""Rows: plain Python, exact through JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqa_checks.cell import Cell, run_cell
from iqa_checks.gate import Gate, judge
from iqa_checks.report.row import Interval, Row, row_of


@pytest.fixture(scope="module")
def measured_row(rated_set, asker) -> Callable[..., Row]:
    """The row of a small cell, asked of an observer who errs a little."""
    numbers = np.random.default_rng(0)
    stimuli = rated_set(
        numbers.uniform(0, 100, 15), references=[f"r{k % 3}" for k in range(15)],
        notes=("a note",),
    )  # fmt: skip
    worth = {s.image.sha256: s.mos for s in stimuli.stimuli}

    def answer(worths, prompt):
        if prompt.answer == "rating":
            return f"Score: {worths[0] * 0.9:.1f}"
        if prompt.answer == "preference":
            return "Answer: first" if worths[0] > worths[1] else "Answer: second"
        return "Ranks: A=0, B=1, C=2, D=3"

    def make(scenario="fr", protocol="double", say=answer, **options) -> Row:
        cell = Cell(stimuli, scenario, protocol, **options)
        result = run_cell(cell, asker(worth.__getitem__, say))
        return row_of(result, judge(result, Gate()), "observer")

    return make


def leaves(value: object):
    """Every value inside nested lists, tuples and dicts, keys included."""
    if isinstance(value, dict):
        for key, inside in value.items():
            yield key
            yield from leaves(inside)
    elif isinstance(value, (list, tuple)):
        for inside in value:
            yield from leaves(inside)
    else:
        yield value


def constant(_worths, prompt):
    forms = {"rating": "Score: 50", "preference": "Answer: comparable"}
    return forms.get(prompt.answer, "Ranks: A=1, B=1, C=1, D=1")


CELLS = [("fr", "double"), ("nr", "single"), ("fr", "multiple")]


@pytest.mark.parametrize(("scenario", "protocol"), CELLS)
@pytest.mark.parametrize("answers", [None, constant])
def test_row_holds_plain_python_only(measured_row, scenario, protocol, answers):
    """Exactly str, int, float, bool and None: one numpy scalar aborts an xdist run."""
    row = measured_row(scenario, protocol, **({} if answers is None else {"say": answers}))
    check_plain(row)
    assert (row.srcc.value is None) == (answers is constant)


@pytest.mark.parametrize(("scenario", "protocol"), CELLS)
def test_row_of_refusals_holds_plain_python_only(measured_row, scenario, protocol):
    """The emptiest row there is."""
    row = measured_row(scenario, protocol, say=lambda *_: "Sorry, I cannot help.")
    check_plain(row)
    assert row.unparsed == {"refusal": row.trials}
    assert {score for *_, score in row.per_stimulus} == {None}


def check_plain(row: Row) -> None:
    kinds = {type(leaf) for leaf in leaves(row.plain())}
    assert kinds <= {str, int, float, bool, type(None)}
    json.dumps(row.plain(), allow_nan=False)


@pytest.mark.parametrize(("scenario", "protocol"), CELLS)
def test_row_survives_json_exactly(measured_row, scenario, protocol):
    """The row that comes out of JSON equals the one that went in, to the last bit."""
    row = measured_row(scenario, protocol)
    again = Row.from_plain(json.loads(json.dumps(row.plain(), allow_nan=False)))
    assert again == row
    assert again.plain() == row.plain()


def test_row_says_what_was_measured(measured_row):
    """Counts, scores and provenance, from the cell."""
    row = measured_row("fr", "single")
    assert (row.n, row.n_references, row.trials, row.model) == (15, 3, 15, "observer")
    assert (row.scenario, row.protocol, row.strategy) == ("fr", "single", "standard")
    assert row.replies == {"new": 15, "resumed": 0, "reused": 0}
    assert row.notes == ("a note",)
    assert row.explanation.startswith(f"{row.verdict}: ")
    assert row.passed
    name, _, mos, score = row.per_stimulus[0]
    assert name == "test-0.png"
    assert score == pytest.approx(0.9 * mos, abs=0.06)
    assert row.srcc.value == pytest.approx(1.0, abs=0.01)
    assert measured_row("nr", "single").n_references is None


def test_refused_stimulus_has_no_score(measured_row):
    """None, not nan: JSON has no nan."""
    turns = iter([False, True] * 20)
    row = measured_row("nr", "single", say=lambda w, _: "no" if next(turns) else f"Score: {w[0]}")
    scores = [score for *_, score in row.per_stimulus]
    assert scores.count(None) == 7
    assert sum(row.unparsed.values()) == 7


FLOATS = st.one_of(st.none(), st.floats(-1, 1))


@pytest.fixture(scope="module")
def row(measured_row) -> Row:
    return measured_row("nr", "single")


@given(FLOATS, FLOATS, FLOATS, st.one_of(st.none(), st.text()), st.text())
def test_any_interval_and_name_survive(row, value, low, high, reason, name):
    """Including -0.0, tiny numbers and any text."""
    interval = {"value": value, "low": low, "high": high, "reason": reason}
    changed = Row.from_plain({**row.plain(), "srcc": interval, "stimuli": name})
    assert changed.srcc == Interval(value, low, high, reason)
    assert Row.from_plain(json.loads(json.dumps(changed.plain()))) == changed
