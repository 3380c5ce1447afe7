"""Saved runs: written, numbered, found, read back, and refused in one line when damaged."""

from __future__ import annotations

import importlib.resources
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqa_checks.baseline import (
    CellRecord,
    Run,
    SavedTrial,
    baselines,
    check_cell,
    checksum,
    current_commit,
    document_of,
    dumped,
    find,
    judged_of,
    partial_reasons,
    read,
    record_of,
    save,
    wording_hash,
)
from iqa_checks.cell import Cell, run_cell
from iqa_checks.errors import UsageError
from iqa_checks.gate import Gate, judge
from iqa_checks.report.row import row_of
from iqa_checks.scaling import Comparisons, thurstone_map
from tests.saved_runs import saved_cell, saved_run, simulated

SCHEMA = json.loads(
    importlib.resources.files("iqa_checks").joinpath("data/results.schema.json").read_text("utf-8")
)


@pytest.fixture
def run() -> Run:
    return saved_run(simulated(20, cell="nr-single-standard-a"), simulated(12))


@pytest.fixture
def saved(run, tmp_path) -> Path:
    return save(run, tmp_path, "nightly")


def rewritten(path: Path, change) -> Path:
    """The document changed, with a checksum that fits: somebody wrote it so."""
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    document["checksum"] = checksum(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


# --- There and back -------------------------------------------------------------------------------


def test_what_is_read_is_what_was_saved(run, saved):
    assert saved.name == "0001_nightly.json"
    assert read(saved) == replace(run, name="nightly", number=1)
    assert read(saved).title == "0001_nightly"


def test_a_run_without_a_name_is_read_too(run, tmp_path):
    """results.json of --iqa-out is the same document."""
    path = tmp_path / "results.json"
    path.write_text(dumped(run), encoding="utf-8")
    assert read(path) == run
    assert read(path).title == "fake"


@given(st.lists(st.floats(0, 100), min_size=4, max_size=12), st.floats(0, 2e9))
def test_every_float_survives(scores, saved_at):
    run = saved_run(saved_cell(scores, list(range(len(scores)))), saved_at=saved_at)
    document = json.loads(dumped(run))
    assert document["checksum"] == checksum(document)
    assert document["saved_at"] == saved_at
    assert [item[3] for item in document["rows"][0]["per_stimulus"]] == scores


def test_documents_follow_the_schema(run, saved):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(saved.read_text("utf-8")), SCHEMA)
    jsonschema.validate(document_of(saved_run(saved_cell([1, None, 3, 4], [1, 2, 3, 4]))), SCHEMA)
    broken = json.loads(saved.read_text("utf-8"))
    broken["records"]["nr-single-standard-a"]["trials"][0][2] = "third"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)


@pytest.mark.parametrize(
    ("protocol", "says"),
    [("single", lambda worths, _: f"Score: {round(worths[0])}"),
     ("double", lambda w, _: "Answer: " + ("first" if w[0] > w[1] else "second")),
     ("multiple", lambda w, _: "Ranks: " + ", ".join(
         f"{'ABCD'[k]}={sorted(w).index(x)}" for k, x in enumerate(w)))],
)  # fmt: skip
def test_record_of_a_measured_cell(protocol, says, rated_set, asker, tmp_path):
    stimuli = rated_set(np.linspace(5, 95, 12))
    worth = {s.sha256: s.mos for s in stimuli.stimuli}
    result = run_cell(Cell(stimuli, "nr", protocol), asker(worth.__getitem__, says))
    row = row_of(result, judge(result, Gate()), "fake")
    run = saved_run((row, record_of(result)))
    record = read(save(run, tmp_path, "r")).records[row.cell]
    assert record == record_of(result)
    assert record == CellRecord.from_plain(json.loads(json.dumps(record.plain())))
    assert len(record.trials) == row.trials
    assert all(trial.usable for trial in record.trials)
    jsonschema.validate(document_of(run), SCHEMA)
    judged = judged_of(record, protocol)
    if protocol == "single":
        assert judged is None
    else:
        assert judged.scores() == pytest.approx(result.scores, abs=1e-6)


def test_unusable_replies_are_kept_and_left_out(rated_set, asker):
    stimuli = rated_set(np.linspace(5, 95, 8))
    worth = {s.sha256: s.mos for s in stimuli.stimuli}

    def says(worths: list[float], _prompt: object) -> str:
        refuses = worths[0] < 30
        return "I'm sorry, but I can't help with that." if refuses else "Answer: first"

    result = run_cell(Cell(stimuli, "nr", "double"), asker(worth.__getitem__, says))
    record = record_of(result)
    refused = [trial for trial in record.trials if not trial.usable]
    assert 0 < len(refused) < len(record.trials)
    assert isinstance(refused[0].judgement["unparsed"], str)
    judged = judged_of(record, "double")
    assert judged.n_trials == len(record.trials) == len(judged.trial) + len(refused)


def test_ties_and_lists_become_the_same_comparisons():
    trials = (SavedTrial((2, 0), 0, "comparable"), SavedTrial((0, 1), 0, "second"))
    judged = judged_of(CellRecord({}, ("",) * 3, (1.0, 2.0, 3.0), trials), "double")
    direct = thurstone_map(
        Comparisons.from_judgements([(2, 0, 0.5), (0, 1, 0.0)], 3), position_bias=True
    )
    assert judged.scores() == pytest.approx(direct.scores)
    ranked = (SavedTrial((2, 0, 1), 0, (3, 1, 1)),)
    judged = judged_of(CellRecord({}, ("",) * 3, (1.0, 2.0, 3.0), ranked), "multiple")
    assert judged.outcome.tolist() == [1.0, 1.0, 0.5]
    assert not judged.ordered


# --- Numbers and names ----------------------------------------------------------------------------


def test_numbers_count_up_whatever_the_clock_says(run, tmp_path):
    for number, at in enumerate((500.0, 3.0, 0.0), start=1):
        path = save(replace(run, saved_at=at), tmp_path, f"v{number}.0")
        assert path.name == f"{number:04d}_v{number}.0.json"
    assert [path.name[:4] for path in baselines(tmp_path)] == ["0001", "0002", "0003"]
    (tmp_path / "0002_v2.0.json").unlink()
    assert save(run, tmp_path, "next").name == "0004_next.json"
    os.rename(tmp_path / "0004_next.json", tmp_path / "12345_next.json")
    assert save(run, tmp_path, "next").name == "12346_next.json"


def test_runs_that_save_at_once_get_numbers_of_their_own(run, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda k: save(run, tmp_path, f"w{k}"), range(16)))
    assert sorted(path.name[:4] for path in paths) == [f"{k:04d}" for k in range(1, 17)]
    assert all(read(path).rows == run.rows for path in paths)
    assert not list(tmp_path.glob(".*"))


def test_find(run, tmp_path):
    first, second = save(run, tmp_path, "a"), save(run, tmp_path, "b")
    third = save(run, tmp_path, "a")
    assert find("a", tmp_path) == third
    assert find("b", tmp_path) == second
    assert find("1", tmp_path) == find("0001", tmp_path) == find("0001_a", tmp_path) == first
    assert find(str(second), Path("elsewhere")) == second
    with pytest.raises(UsageError, match="there is: 0001_a, 0002_b, 0003_a"):
        find("c", tmp_path)
    with pytest.raises(UsageError, match="none yet"):
        find("c", tmp_path / "nowhere")
    with pytest.raises(UsageError, match="--iqa-save"):
        baselines(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["", "../x", "a b", "a/b", ".hidden", "ü"])
def test_names_that_are_none(run, tmp_path, name):
    with pytest.raises(UsageError, match="name"):
        save(run, tmp_path, name)


def test_partial_runs_need_permission(run, tmp_path):
    partial = replace(run, partial=("3 cells were deselected.",))
    with pytest.raises(UsageError, match=r"3 cells were deselected\. .*--iqa-save-partial"):
        save(partial, tmp_path, "x")
    assert not list(tmp_path.iterdir())
    assert read(save(partial, tmp_path, "x", allow_partial=True)).partial == partial.partial
    with pytest.raises(UsageError, match="no cell"):
        save(saved_run(), tmp_path, "x")


def test_a_folder_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        save(run, tmp_path / "file", "x")


def test_partial_reasons():
    assert partial_reasons(exit_status=0, expected=9, measured=9) == ()
    reasons = partial_reasons(
        exit_status=2, expected=9, measured=7, deselected=3, limit=10, failed=["a", "b"]
    )
    assert len(reasons) == 5
    assert all(reason.endswith(".") for reason in reasons)


# --- Bad input: one line each ---------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edited(path: Path) -> None:
    text = path.read_text("utf-8")
    path.write_text(text.replace('"seed": 0', '"seed": 1', 1), encoding="utf-8")


def with_nan(path: Path) -> None:
    path.write_text(path.read_text("utf-8").replace('"value": 0.', '"value": NaN, "x": 0.', 1))


def other_version(path: Path) -> None:
    rewritten(path, lambda d: d.update(schema=99))


def duplicate(path: Path) -> None:
    rewritten(path, lambda d: d["rows"].append(d["rows"][0]))


def without_record(path: Path) -> None:
    rewritten(path, lambda d: d["records"].popitem())


def without_field(path: Path) -> None:
    rewritten(path, lambda d: d["rows"][0].pop("srcc"))


def foreign_trial(path: Path) -> None:
    rewritten(
        path, lambda d: d["records"]["nr-single-standard-a"]["trials"][0].__setitem__(0, [99])
    )


def foreign_choice(path: Path) -> None:
    rewritten(path, lambda d: d["records"]["nr-single-standard-a"]["trials"][0].__setitem__(2, "x"))


def short(path: Path) -> None:
    rewritten(path, lambda d: d["records"]["nr-single-standard-a"]["quality"].pop())


def infinite(path: Path) -> None:
    path.write_text(path.read_text("utf-8").replace('"started_at": 1.0', '"started_at": 1e999'))


@pytest.mark.parametrize(
    ("damage", "told"),
    [(cut, "cut or damaged"), (edited, "changed after it was saved"), (with_nan, "NaN"),
     (infinite, "not finite"), (other_version, "schema version 99"),
     (duplicate, "the cell nr-single-standard-a twice"), (without_record, "no record"),
     (without_field, "field 'srcc'"), (foreign_trial, "not among the 20"),
     (foreign_choice, "none of first"), (short, "20 scores and 19 human"),
     (lambda p: p.write_text(""), "cut or damaged"), (lambda p: p.write_text("[1]"), "not a run"),
     (lambda p: p.write_text('{"kind": 3}'), "not a run"), (lambda p: p.unlink(), "No such file"),
     (lambda p: p.write_bytes(b"\xff\xfe\x00"), "not UTF-8"),
     (lambda p: p.write_text("[" * 100_000), r"nested|damaged")],
)  # fmt: skip
def test_damage_is_told_in_one_line(saved, damage, told):
    damage(saved)
    with pytest.raises(UsageError, match=told) as caught:
        read(saved)
    assert "\n" not in str(caught.value)
    assert saved.name in str(caught.value)


def test_reading_does_not_depend_on_the_locale(saved):
    """A C locale and another language read the same bytes."""
    code = "import sys; from pathlib import Path; from iqa_checks.baseline import read;" \
           "print(len(read(Path(sys.argv[1])).rows))"  # fmt: skip
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "TZ": "Pacific/Kiritimati"}
    said = subprocess.run(
        [sys.executable, "-c", code, str(saved)], env=environment, capture_output=True, text=True
    )
    assert said.stdout.strip() == "2"


# --- What makes cells incomparable ----------------------------------------------------------------


def test_check_before_anything_is_asked(rated_set, asker):
    stimuli = rated_set(np.linspace(5, 95, 8))
    cell = Cell(stimuli, "nr", "single")
    result = run_cell(cell, asker(lambda _: 1.0, lambda *_: "Score: 5"))
    row = row_of(result, judge(result, Gate()), "fake")
    baseline = saved_run((row, record_of(result)))
    check_cell(cell, baseline)
    check_cell(replace(cell, strategy="in_context"), baseline)  # a new cell
    with pytest.raises(UsageError, match="seed differs"):
        check_cell(replace(cell, seed=1), baseline)
    with pytest.raises(UsageError, match="repeats differs"):
        check_cell(replace(cell, repeats=3), baseline)
    with pytest.raises(UsageError, match="stimuli differ"):
        check_cell(replace(cell, stimuli=rated_set(np.linspace(5, 90, 8))), baseline)
    shuffled = replace(stimuli, stimuli=stimuli.stimuli[::-1])
    check_cell(replace(cell, stimuli=shuffled), baseline)


def test_wording_hash():
    assert wording_hash("standard") == wording_hash("standard")
    assert wording_hash("standard") != wording_hash("in_context")


def test_commit(tmp_path, monkeypatch):
    for variable in ("GITHUB_SHA", "CI_COMMIT_SHA", "GIT_COMMIT"):
        monkeypatch.delenv(variable, raising=False)
    assert current_commit(tmp_path) is None
    assert len(current_commit(Path(__file__).parent).removesuffix("-dirty")) == 40
    monkeypatch.setenv("GITHUB_SHA", "abc")
    assert current_commit(tmp_path) == "abc"
