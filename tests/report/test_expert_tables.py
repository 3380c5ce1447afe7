"""Tables 2 and 3: who stands where, what is bold and starred, and what each format holds."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from iqa_checks.agreement import cluster_mean, correlation
from iqa_checks.report.expert_tables import (
    ExpertRow,
    csv_long,
    expert_row,
    expert_table_files,
    latex,
    markdown,
    table2,
    table3,
    terminal,
)
from iqa_checks.report.row import Interval


def row(name, srcc, plcc=0.5, *, kind="expert", stimuli="SPAQ", scenario="nr", trained=False):
    return ExpertRow(
        name,
        kind,
        stimuli,
        scenario,
        Interval(srcc, None if srcc is None else srcc - 0.1, None if srcc is None else 0.99, None),
        Interval(plcc, None, None, None),
        150,
        trained,
    )


ROWS = [
    row("musiq", 0.7, 0.8),
    row("liqe_mix", 0.75, 0.7, trained=True),
    row("observer single-C", 0.6, kind="mllm"),
    row("gmsd", 0.5, stimuli="builtin", scenario="fr"),
]


def test_tables_divide_by_scenario():
    assert table3(ROWS).columns == (("SPAQ", "srcc"), ("SPAQ", "plcc"))
    assert table2(ROWS).columns == (("builtin FR", "srcc"), ("builtin FR", "plcc"))


def figures(table, name, source="this run"):
    lines = [line for _, lines in table.sections for line in lines]
    return next(line for line in lines if (line.name, line.source) == (name, source)).figures


def test_the_best_expert_and_the_best_mllm_are_bold_apart_from_the_papers():
    table = table3(ROWS)
    assert [f.best for f in figures(table, "musiq")] == [False, True]
    assert [f.best for f in figures(table, "liqe_mix")] == [True, False]
    assert [f.best for f in figures(table, "observer single-C")] == [True, True]
    assert [f.best for f in figures(table, "gpt4v", "paper")] == [True, True]
    assert [f.best for f in figures(table, "musiq", "paper")] == [False, True]


def test_the_papers_figures_stand_beside_ours_and_overlap_is_starred():
    table = table3(ROWS)
    assert figures(table, "liqe", "paper")[0].text == ".781*"
    assert figures(table, "liqe_mix")[0].text == ".750* [.650, .990]"
    assert all(line.source == "this run" for _, lines in table2(ROWS).sections for line in lines)


def test_undefined_is_said_and_never_best():
    table = table3([row("a", None), row("b", -0.2)])
    assert figures(table, "a")[0].text == "undefined"
    assert [f.best for f in figures(table, "b")] == [True, True]


def test_formats_hold_the_same_figures():
    table = table3(ROWS)
    assert r"**.750\* [.650, .990]**" in markdown(table)
    assert r"\textbf{.750* [.650, .990]}" in latex(table)
    assert ".750* [.650, .990]" in terminal(table)
    assert "\x1b[1m" in terminal(table, color=True)
    lines = list(csv.DictReader(io.StringIO(csv_long(table))))
    ours = [x for x in lines if x["source"] == "this run"]
    assert len(ours) == 6
    assert {x["model"] for x in lines if x["source"] == "paper"} >= {"niqe", "gpt4v", "q-instruct"}


def test_a_hostile_name_breaks_no_table():
    hostile = "a|b\x1b[31mred\r\nnext"
    table = table3([row(hostile, 0.5)])
    assert "\x1b[31m" not in terminal(table) + markdown(table) + latex(table)
    lines = markdown(table).splitlines()
    assert {line.replace("\\|", "").count("|") for line in lines} == {4}


def test_files_and_what_is_absent():
    assert sorted(expert_table_files(ROWS[:3])) == ["table3.csv", "table3.md", "table3.tex"]
    assert expert_table_files([]) == {}
    assert len(expert_table_files(ROWS)) == 6


def test_rows_cross_processes_as_json():
    for given in ROWS:
        assert ExpertRow.from_plain(json.loads(json.dumps(given.plain()))) == given


@pytest.mark.parametrize("preset", ["sound", "paper"])
def test_experts_are_measured_as_cells_are(rated_set, preset):
    rng = np.random.default_rng(0)
    mos = rng.uniform(0, 100, 40)
    scores = mos + rng.normal(0, 30, 40)
    references = [f"r{k // 10}" for k in range(40)]
    stimuli = rated_set(mos, references=references, name="x")
    measured = expert_row("e", stimuli, "fr", scores, preset=preset)
    rank = "srcc" if preset == "sound" else "srcc_after_logistic"
    expected = cluster_mean(scores, mos, references, statistic=rank)
    assert measured.srcc.value == pytest.approx(expected.value)
    pooled = expert_row("e", stimuli, "nr", scores, preset=preset)
    assert pooled.srcc.value == pytest.approx(correlation(scores, mos, statistic=rank).value)
    assert all(type(v) is float for v in (measured.srcc.low, measured.plcc.value))
