"""pytest runs of a team's own repository, from options to exit status, tables and files."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

OK, FAILED, USAGE = 0, 1, 4
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def rows(folder: Path) -> dict[str, dict]:
    """Rows of ``--iqa-out`` by cell."""
    document = json.loads((folder / "results.json").read_text())
    return {row["cell"]: row for row in document["rows"]}


def lines(result: pytest.RunResult) -> list[str]:
    return [ANSI.sub("", line) for line in (*result.outlines, *result.errlines)]


def one_line(result: pytest.RunResult, said: str) -> str:
    """The line with ``said``, and nothing that looks like a traceback beside it."""
    found = [line for line in lines(result) if re.search(said, line)]
    assert found, "\n".join(lines(result))
    text = "\n".join(lines(result))
    assert "Traceback" not in text
    assert "INTERNALERROR" not in text
    return found[0]


# --- No cells: nothing to notice -----------------------------------------------------------------


@pytest.mark.parametrize("option", [[], ["-n1"]])
def test_plugin_costs_nothing_without_cells(pytester, option):
    """No heavy import, no folder, no line of output."""
    pytester.makepyfile(
        """
        import sys

        HEAVY = ("numpy", "yaml", "sqlalchemy", "openai", "scipy", "PIL", "jinja2", "rich")

        def test_nothing_heavy():
            assert "iqa_checks.plugin" in sys.modules
            assert not [name for name in HEAVY if name in sys.modules]
        """
    )
    before = set(pytester.path.iterdir())
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *option)
    result.assert_outcomes(passed=1)
    new = {path.name for path in set(pytester.path.iterdir()) - before}
    assert not {name for name in new if "iqa" in name}
    assert not [line for line in lines(result) if "image quality" in line or "observer" in line]


def test_plugin_module_imports_pytest_and_the_standard_library_only(pytester):
    """Loading it in a bare interpreter loads no other module of the package."""
    code = (
        "import sys, iqa_checks.plugin\n"
        "print(sorted(m for m in sys.modules if m.startswith('iqa_checks.')))"
    )
    result = pytester.run(sys.executable, "-c", code)
    assert result.outlines == ["['iqa_checks.plugin']"]


# --- Collection ----------------------------------------------------------------------------------


def test_ids_are_stable_and_select(run):
    """Scenario, protocol, strategy, set: -k goes by any of them."""
    result = run("--collect-only", "-q", "-k", "double and standard and builtin")
    ids = [line for line in lines(result) if "::" in line]
    assert "test_fr.py::test_cell[fr-double-standard-builtin]" in ids
    assert "test_nr.py::test_cell[nr-double-standard-builtin]" in ids
    assert all("-double-standard-builtin" in name for name in ids)


def test_marker_decides_protocols_and_strategies(run, repository):
    """All nine systems unless it says otherwise."""
    repository.makepyfile(
        test_all="""
        import pytest

        @pytest.mark.iqa(scenario="nr")
        def test_cell(outcome):
            outcome.check()
        """
    )
    result = run("--collect-only", "-q", "-k", "builtin", "test_all.py")
    ids = [line for line in lines(result) if "::" in line]
    assert len(ids) == 9
    result = run("--collect-only", "-q", "-k", "builtin", "test_nr.py")
    assert len([line for line in lines(result) if "::" in line]) == 2


def test_own_strategies_get_cells_of_their_own(run, repository, rated):
    """Their name is in the ids and in the rows."""
    repository.makepyfile(
        test_all="""
        import pytest

        @pytest.mark.iqa(scenario="nr", protocols=("single",))
        def test_cell(outcome):
            outcome.check()
        """
    )
    (repository.path / "mine.yaml").write_text("terse: {templates: .}")
    (repository.path / "single_nr.txt").write_text("Score: <0 to 100>\n{{ image_key }}")
    result = run(
        "--iqa-ratings", str(rated), "--iqa-strategies", "mine.yaml", "--iqa-out", "out",
        "-k", "terse", "test_all.py",
    )  # fmt: skip
    assert result.ret == OK
    assert list(rows(repository.path / "out")) == ["nr-single-terse-ratings"]


# --- One's own ratings ---------------------------------------------------------------------------


def test_own_ratings_end_to_end(run_anyhow, repository, rated):
    """FR and NR, single and double: an observer without noise orders levels of noise rightly."""
    result = run_anyhow("--iqa-ratings", str(rated), "--iqa-out", "out", "--junit-xml", "j.xml")
    assert result.ret == OK
    result.assert_outcomes(passed=4, skipped=1)  # no cell of the colour suite fits the table
    found = rows(repository.path / "out")
    assert list(found) == [
        "fr-single-standard-ratings", "fr-double-standard-ratings",
        "nr-single-standard-ratings", "nr-double-standard-ratings",
    ]  # fmt: skip
    assert found["fr-double-standard-ratings"]["srcc"]["value"] == pytest.approx(1.0)
    assert [row["n"] for row in found.values()] == [10, 10, 6, 6]  # NR: four are exemplars
    assert all(row["unparsed_rate"] == 0 for row in found.values())
    assert found["fr-double-standard-ratings"]["n_references"] == 2
    one_line(result, r"ratings FR +double +standard +10 ")
    one_line(result, r"note: ratings: ratings\.csv: scale 1\.\.5")
    assert "builtin" not in result.stdout.str()
    cases = ET.parse(repository.path / "j.xml").getroot().iter("testcase")
    properties = {
        case.get("name"): {p.get("name"): p.get("value") for p in case.iter("property")}
        for case in cases
    }
    said = properties["test_cell[fr-double-standard-ratings]"]
    assert float(said["iqa_srcc"]) == pytest.approx(1.0)
    assert said["iqa_unparsed_rate"] == "0.0"
    assert said["iqa_verdict"] in ("ABOVE CHANCE", "INCONCLUSIVE")
    assert "iqa_plcc" in said


def test_files_are_equal_with_and_without_workers(run, repository, rated):
    """Every figure, every table; only times differ."""
    for option in ("-n0", "-n2"):
        run(option, "--iqa-ratings", str(rated), "--iqa-out", f"out{option}",
            "--iqa-store", f"store{option}.sqlite", "--model", "observer:noise=8,lapse=0.1",
            "--iqa-max-unparsed", "0.5")  # fmt: skip
    first, second = repository.path / "out-n0", repository.path / "out-n2"
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    assert len(names) >= 3
    for name in names:
        texts = [(folder / name).read_text() for folder in (first, second)]
        if name == "results.json":
            documents = [json.loads(text) for text in texts]
            for document in documents:
                for name in ("started_at", "saved_at", "checksum"):
                    del document[name]
                for record in document["records"].values():
                    record["trials"] = [trial[:3] for trial in record["trials"]]  # no reply times
            assert documents[0] == documents[1]
            assert documents[0]["replies"]["new"] > 0
        else:
            assert texts[0] == texts[1], name


def test_color_difference(run, repository, rated_pairs):
    """Pairs of photographs; higher scores mean more different, so low is good."""
    options = ("--iqa-ratings", str(rated_pairs), "--iqa-attribute", "color_difference")
    result = run(*options, "--iqa-polarity", "lower_better", "--iqa-out", "out")
    assert result.ret == OK
    result.assert_outcomes(passed=2, skipped=2)  # the suites that the table is not for
    found = rows(repository.path / "out")
    for cell in ("difference-single-standard-ratings", "difference-double-standard-ratings"):
        assert found[cell]["srcc"]["value"] > 0.9
        assert found[cell]["opinion"] == "DMOS"


def test_wrong_polarity_is_seen(run, rated_pairs):
    """A good observer is significantly negative on turned scores: the run fails and says so."""
    options = ("--iqa-ratings", str(rated_pairs), "--iqa-attribute", "color_difference")
    result = run(*options, "--iqa-polarity", "higher_better", "--iqa-alpha", "0.2")
    assert result.ret == FAILED
    one_line(result, r"SRCC -[01]\.\d+ .*significantly below zero")


def test_columns_scale_limit(run, repository, rated):
    """Other names for columns, a scale by option, fewer stimuli."""
    text = rated.read_text().replace("# scale: 1:5\n", "").replace("image,mos", "file,score")
    (repository.path / "other.csv").write_text(text)
    result = run(
        "--iqa-ratings", "other.csv", "--iqa-columns", "image=file,mos=score", "--iqa-scale",
        "0:10", "--iqa-limit", "5", "--iqa-out", "out", "-k", "nr-single",
    )  # fmt: skip
    assert result.ret == OK
    row = rows(repository.path / "out")["nr-single-standard-ratings"]
    assert row["n"] == row["trials"] == 5
    assert "5 of 10 stimuli, 4 more held out as exemplars" in row["notes"]
    assert "other.csv: scale 0..10" in row["notes"]


def test_resize_is_recorded(run, repository, rated):
    """Distorted images of another size are scaled to their reference, and the notes say so."""
    for path in repository.path.glob("scene0_?.png"):
        PIL.Image.open(path).resize((48, 40)).save(path)
    options = ("--iqa-ratings", str(rated), "-k", "fr-single", "--iqa-cache", "cache")
    result = run(*options, "--iqa-resize", "reference", "--iqa-out", "out")
    assert result.ret == OK
    (row,) = rows(repository.path / "out").values()
    assert "distorted images were resized to their reference (Lanczos)" in row["notes"]
    resized = list((repository.path / "cache" / "resized").glob("*.png"))
    assert len(resized) == 5
    assert {PIL.Image.open(path).size for path in resized} == {(96, 80)}


def test_set_without_references_skips_fr(run, repository, rated):
    """One line that says what the cells need; the others run."""
    text = re.sub(r",(reference|scene\d\.png)$", "", rated.read_text(), flags=re.MULTILINE)
    rated.write_text(text)
    result = run("--iqa-ratings", str(rated))
    result.assert_outcomes(passed=2, skipped=3)
    one_line(result, "^not measured: .*names no references: fr cells need a column 'reference'")


# --- Verdicts ------------------------------------------------------------------------------------


def test_failed_gate_is_one_readable_line(run_anyhow, rated):
    """Exit status 1; the cell, the figure, the gate and its significance."""
    result = run_anyhow(
        "--iqa-ratings", str(rated), "--model", "random", "--iqa-min-srcc", "0.9",
        "-k", "nr-single",
    )  # fmt: skip
    assert result.ret == FAILED
    result.assert_outcomes(failed=1)
    line = one_line(result, r"^nr-single-standard-ratings: FAIL: SRCC -?\d\.\d+ \[")
    assert "gate 0.9: significantly below (one-sided p = " in line
    one_line(result, "^FAILED .*nr-single-standard-ratings")


def test_strict_fails_what_is_inconclusive(run, rated):
    """The same run passes without it."""
    options = ("--iqa-ratings", str(rated), "--model", "random", "-k", "nr-single")
    options = (*options, "--iqa-limit", "4")
    assert run(*options).ret == OK
    strict = run(*options, "--iqa-strict")
    assert strict.ret == FAILED
    one_line(strict, "^nr-single-standard-ratings: INCONCLUSIVE: SRCC .*not above the chance")


def test_unusable_replies_fail(run, rated):
    """More refusals than are allowed; --iqa-max-unparsed allows them."""
    options = ("--iqa-ratings", str(rated), "--model", "observer:noise=0,lapse=0.5")
    options = (*options, "-k", "nr-double")
    result = run(*options)
    assert result.ret == FAILED
    one_line(result, r"FAIL: \d+% of \d+ replies hold no usable answer \(\d+ refusal\); at most 10")
    assert run(*options, "--iqa-max-unparsed", "0.9").ret == OK


def test_model_that_refuses_everything_fails_readably(run, rated):
    """Not one usable reply: a failed gate, no traceback."""
    options = ("--iqa-ratings", str(rated), "--model", "observer:lapse=1")
    result = run(*options, "-k", "single")
    assert result.ret == FAILED
    one_line(result, r"FAIL: 100% of 10 replies hold no usable answer \(10 refusal\)")


# --- Mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "gpt-99"], "unknown model 'gpt-99'"),
        (["--iqa-strategies", "absent.yaml"], r"absent\.yaml cannot be read"),
        (["--iqa-scale", "5"], "scale '5': expected LOW:HIGH"),
        (["--iqa-columns", "score=mos"], "must read OURS=THEIRS"),
        (["--iqa-ratings", "absent.csv"], r"absent\.csv cannot be read \(No such file"),
        (["--iqa-polarity", "up"], "invalid choice: 'up'"),
        (["--iqa-resize", "both"], "invalid choice: 'both'"),
        (["--iqa-preset", "quick"], "invalid choice: 'quick'"),
        (["--iqa-limit", "few"], "invalid int value: 'few'"),
        (["--iqa-min-srcc", "2"], "--iqa-min-srcc 2: expected a correlation"),
        (["--iqa-attribute", "beauty"], "unknown attribute 'beauty'"),
        (["--iqa-sets", "builtn"], "unknown stimulus set 'builtn'.*Did you mean"),
    ],
)
def test_faulty_option_ends_the_run_at_once(run, options, said):
    """Exit status 4, one line, nothing collected."""
    result = run(*options)
    assert result.ret == USAGE
    one_line(result, said)
    assert "collected" not in result.stdout.str()


def test_faulty_option_with_workers(run, rated):
    """The controller finds it before any worker starts."""
    result = run("-n2", "--model", "gpt-99")
    assert result.ret == USAGE
    one_line(result, "unknown model 'gpt-99'")


def test_unknown_strategy_in_a_marker(run, repository, rated):
    """A suite that asks for a strategy nobody has ends in one line, not in a traceback."""
    repository.makepyfile(
        test_typo="""
        import pytest

        @pytest.mark.iqa(scenario="nr", protocols=("single",), strategies=("standart",))
        def test_cell(outcome):
            outcome.check()
        """
    )
    result = run("--iqa-ratings", str(rated), "test_typo.py")
    assert result.ret != OK
    one_line(result, "unknown strategy in the iqa marker of .*standart.*Did you mean 'standard'")


@pytest.mark.parametrize("marker", ['scenario="nf"', "", 'scenario="nr", protocols=("triple",)'])
def test_faulty_marker_is_one_line(run, repository, rated, marker):
    """A typo in a suite names the marker and what it may be; exit status 4."""
    (repository.path / "test_typo.py").write_text(
        f"import pytest\n\n@pytest.mark.iqa({marker})\ndef test_cell(outcome):\n    pass\n"
    )
    result = run("--iqa-ratings", str(rated), "test_typo.py")
    assert result.ret == USAGE
    one_line(result, "nf|scenario|triple")


def test_damaged_image_ends_the_run_before_anything_is_asked(run, repository, rated):
    """One line with the table's row, and the status of a user's mistake."""
    path = repository.path / "scene1_2.png"
    path.write_bytes(path.read_bytes()[:300])
    result = run("--iqa-ratings", str(rated), "-k", "nr-single")
    assert result.ret == USAGE
    one_line(result, r".*ratings\.csv, row 10: .*scene1_2\.png is not a whole image")
    assert "collected" not in result.stdout.str()


def test_absent_sets_are_skipped_with_what_to_get(run):
    """Each named once at the end."""
    result = run("-k", "SPAQ or SPCD", "-rs")
    assert result.ret == OK
    result.assert_outcomes(skipped=4)
    text = [line for line in lines(result) if line.startswith("not measured: ")]
    assert len(text) == 2
    assert all("is not at hand: download" in line for line in text)


# --- A team's own fixtures -----------------------------------------------------------------------


def test_fixtures_can_be_overridden(run_anyhow, repository):
    """Stimuli of one's own, a model that is no endpoint, cells with another seed."""
    draw = np.random.default_rng(0)
    for k in range(6):
        pixels = draw.integers(0, 256, (16, 16, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(repository.path / f"{k}.png")
    (repository.path / "own.csv").write_text(
        "image,mos\n" + "".join(f"{k}.png,{k}\n" for k in range(6))
    )
    repository.makeconftest(
        """
        import dataclasses
        from pathlib import Path
        import pytest

        @pytest.fixture(scope="session")
        def stimuli():
            from iqa_checks.layouts import RatingTable, load_ratings
            return load_ratings(RatingTable(Path(__file__).parent / "own.csv", {}))

        @pytest.fixture
        def cell(cell):
            return dataclasses.replace(cell, repeats=2, seed=5)

        @pytest.fixture(scope="session")
        def observer_model():
            from iqa_checks.replies import Reply

            class Mine:
                def ask(self, prompts):
                    return [Reply(f"Score: {p.images[0].path.stem}0") for p in prompts]

            return Mine()
        """
    )
    result = run_anyhow("-k", "nr-single-standard-builtin", "--iqa-out", "out")
    assert result.ret == OK
    (row,) = rows(repository.path / "out").values()
    assert row["cell"] == "nr-single-standard-own"
    assert (row["n"], row["trials"], row["srcc"]["value"]) == (6, 12, 1.0)


def test_outcome_serves_assertions_of_ones_own(run, repository, rated):
    """The result and the verdict are there to be asserted on."""
    repository.makepyfile(
        test_own="""
        import pytest

        @pytest.mark.iqa(scenario="fr", protocols=("double",), strategies=("standard",))
        def test_cell(outcome):
            assert outcome.result.srcc.value > 0.9
            assert outcome.verdict.status in ("ABOVE CHANCE", "INCONCLUSIVE")
            assert outcome.result.cell.protocol == "double"
        """
    )
    run("--iqa-ratings", str(rated), "test_own.py").assert_outcomes(passed=1)


def test_cells_stand_beside_ordinary_tests(run, repository, rated):
    """Other tests run as ever and leave no row."""
    repository.makepyfile(test_plain="def test_plain(): pass\ndef test_wrong(): assert 1 == 2")
    result = run("--iqa-ratings", str(rated), "-k", "nr-single or plain or wrong",
                        "--iqa-out", "out")  # fmt: skip
    assert result.ret == FAILED
    result.assert_outcomes(passed=2, failed=1)
    assert len(rows(repository.path / "out")) == 1
