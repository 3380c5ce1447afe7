"""Tables 2 and 3 of a run: which rows stand in them, and what is said below."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from iqa_checks.datasets import StimulusSource
from iqa_checks.report.difficult import (
    LEGEND,
    Measured,
    compare_with_experts,
    in_order,
)
from iqa_checks.report.expert_tables import ExpertRow
from iqa_checks.report.row import Interval
from iqa_checks.report.table1 import table1
from iqa_checks.settings import Settings
from tests.saved_runs import simulated


@pytest.fixture
def settings(tmp_path):
    return Settings("q-instruct", StimulusSource(tmp_path))


def expert(name: str, stimuli: str = "SPAQ", value: float | None = 0.5) -> ExpertRow:
    figure = Interval(value, None, None, "all 30 scores are equal" if value is None else None)
    return ExpertRow(name, "expert", stimuli, "nr", figure, figure, 30)


def asked(protocol: str, strategy: str, **changes: object):
    row, _ = simulated(12)
    system = {"protocol": protocol, "strategy": strategy, "selection": "difficult"}
    return replace(row, **{**system, "model": "q-instruct", "stimuli": "SPAQ", **changes})


MEASURED = Measured("nr", "SPAQ", (expert("musiq"), expert("niqe")), notes=("30 of 90 stimuli",))


@pytest.fixture(autouse=True)
def known_model(monkeypatch):
    """A model of the paper that models.yaml need not hold."""
    from iqa_checks import models

    spec = models.ModelSpec("q-instruct", "openai", "q", best=("single", "standard"))
    monkeypatch.setattr(models, "find_model", lambda _name: spec)


def test_the_model_stands_there_with_its_best_system_only(settings):
    """Uniform samples and other systems belong to Table 1; the paper's star goes with the name."""
    rows = [
        asked("single", "standard"),
        asked("double", "standard"),
        asked("single", "standard", selection="uniform"),
    ]
    compared = compare_with_experts(rows, [MEASURED], settings)
    assert [(row.kind, row.name) for row in compared.rows] == [
        ("expert", "musiq"), ("expert", "niqe"), ("mllm", "q-instruct single-S"),
    ]  # fmt: skip
    assert compared.rows[-1].trained
    text = "\n".join(compared.lines())
    assert "Table 3: " in text
    assert "Table 2: " not in text
    assert "MLLM rows: single-stimulus, standard (the paper's best for q-instruct)" in text
    assert LEGEND in text
    assert "## Table 3: " in compared.markdown()
    assert set(compared.files()) == {"table3.md", "table3.csv", "table3.tex"}


def test_experts_alone_need_no_model(settings):
    """Nothing is said of a system that nobody was asked by."""
    compared = compare_with_experts([], [MEASURED], settings)
    assert compared.asked == ""
    assert compared.notes == ("SPAQ: 30 of 90 stimuli",)
    assert "MLLM rows" not in compared.markdown()


def test_nothing_measured_shows_nothing(settings):
    compared = compare_with_experts([], [], settings)
    assert (compared.lines(), compared.markdown(), compared.files()) == ([], "", {})


def test_order_does_not_depend_on_who_finished_first():
    """Sets by name; experts as they were listed."""
    later = Measured("fr", "TQD", (expert("psnr", "TQD"),)).plain()
    plain = [later, MEASURED.plain()]
    assert in_order(plain) == in_order(plain[::-1])
    assert [row.name for one in in_order(plain) for row in one.rows] == ["musiq", "niqe", "psnr"]


def test_what_was_measured_crosses_processes_as_json():
    given = replace(MEASURED, absent=("a",), failures=("b",))
    assert Measured.from_plain(json.loads(json.dumps(given.plain()))) == given


def test_an_expert_that_gives_one_score_to_all_is_a_fault():
    """So is one that failed; an absent one is not."""
    measured = Measured("nr", "SPAQ", (expert("niqe", value=None),), ("absent",), ("it broke",))
    assert measured.faults == (
        "it broke",
        "expert niqe on SPAQ: SRCC undefined (all 30 scores are equal)",
    )


def test_difficult_cells_are_not_held_against_the_papers_table_1():
    """Its figures are on uniform samples."""
    arranged = table1([asked("single", "standard")])
    assert arranged.columns == ("SPAQ NR difficult",)
    assert not any(line.source == "paper" for _, lines in arranged.sections for line in lines)
