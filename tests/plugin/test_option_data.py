"""--iqa-data, --iqa-whole, --iqa-sets, --iqa-selection, --iqa-list: published sets in a run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import openpyxl  # loaded before any run in this process, see conftest.py
import PIL.Image
import pytest

OK, FAILED, USAGE = 0, 1, 4
assert openpyxl


@pytest.fixture
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with KADID-10k, of which three contents and four types (noise) are there."""
    root = tmp_path_factory.mktemp("data")
    images = root / "kadid10k" / "images"
    images.mkdir(parents=True)
    lines = ["dist_img,ref_img,dmos,var"]
    for content in (1, 2, 3):
        draw = np.random.default_rng(content)
        clean = PIL.Image.fromarray(draw.integers(60, 190, (5, 6, 3), np.uint8))
        pixels = np.asarray(clean.resize((96, 80), PIL.Image.Resampling.BICUBIC), float)
        save(images / f"I{content:02d}.png", pixels)
        for k in range(20):
            name = f"I{content:02d}_{k // 5 + 11:02d}_{k % 5 + 1:02d}.png"
            save(images / name, pixels + draw.normal(0, 1 + 2 * k, pixels.shape))
            lines.append(f"{name},I{content:02d}.png,{4.8 - 0.18 * k:.2f},0.5")
    (root / "kadid10k" / "dmos.csv").write_text("\n".join(lines) + "\n")
    return root


def save(path: Path, pixels: np.ndarray) -> None:
    PIL.Image.fromarray(np.clip(pixels.round(), 0, 255).astype(np.uint8)).save(path)


def measured(result: pytest.RunResult, folder: Path) -> dict[str, dict]:
    """Rows of the results by stimulus set; every cell must have been measured."""
    assert result.ret in (OK, FAILED), "\n".join(result.outlines + result.errlines)
    return {
        row["stimuli"]: row for row in json.loads((folder / "results.json").read_text())["rows"]
    }


def said(result: pytest.RunResult, pattern: str) -> str:
    text = "\n".join((*result.outlines, *result.errlines))
    assert "Traceback" not in text
    assert "INTERNALERROR" not in text
    found = re.search(pattern, text)
    assert found, text
    return found[0]


def test_set_that_is_found_is_judged(run_anyhow, data, tmp_path):
    result = run_anyhow(
        "-k", "single and KADID", "--iqa-data", str(data), "--iqa-out", str(tmp_path)
    )  # fmt: skip
    rows = measured(result, tmp_path)
    assert set(rows) == {"FR-KADID", "Aug-KADID", "NR-KADID"}
    assert rows["FR-KADID"]["srcc"]["value"] > 0.9


def test_sets_that_are_asked_for(run, data, tmp_path):
    result = run(
        "-k", "single", "--iqa-data", str(data), "--iqa-sets", "NR-KADID", "--iqa-out",
        str(tmp_path),
    )  # fmt: skip
    assert set(measured(result, tmp_path)) == {"NR-KADID"}
    outcomes = result.parseoutcomes()
    assert outcomes.get("passed", 0) + outcomes.get("failed", 0) == 1


def test_partial_set_is_refused_when_it_must_be_whole(run, data):
    result = run(
        "-k", "single", "--iqa-data", str(data), "--iqa-sets", "NR-KADID", "--iqa-whole"
    )  # fmt: skip
    assert result.ret == USAGE
    said(result, "NR-KADID in .* is not whole: the table holds 60 of 10,125 stimuli")


def test_list_of_stimuli(run, data, tmp_path):
    chosen = [f"I02_{kind}_{level:02d}.png" for kind in (11, 12, 13) for level in (1, 3, 5)]
    path = tmp_path / "FR_KADID_sampled_uniform.txt"
    path.write_text("".join(f"I02.png {name} 0.5\n" for name in chosen))
    result = run(
        "-k", "single", "--iqa-data", str(data), "--iqa-sets", "FR-KADID",
        "--iqa-selection", str(path), "--iqa-out", str(tmp_path),
    )  # fmt: skip
    assert measured(result, tmp_path)["FR-KADID"]["n"] == len(chosen)


def test_sets_are_listed_and_nothing_is_run(run, data):
    result = run("--iqa-list", "sets", "--iqa-data", str(data))
    assert result.ret == OK
    said(result, r"FR-KADID +fr +KADID-10k, with references: in ")
    said(result, r"SPAQ +nr +.*download SPAQ")
    assert not any("test session starts" in line for line in result.outlines)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--iqa-sets", "KADID-10k"], "unknown stimulus set 'KADID-10k'"),
        (["--iqa-sets", "SPAQ"], "SPAQ was not found under"),
        (["--iqa-selection", "gone.txt"], r"there is no gone\.txt"),
        (["--iqa-data", "gone"], "gone is not a folder"),
        (["--iqa-data", "."], "no published data set was found there"),
    ],
)
def test_mistakes_end_the_run_at_once(run, data, options, why):
    result = run("--iqa-data", str(data), *options)
    assert result.ret == USAGE
    said(result, why)


def test_damaged_table_ends_the_run_at_once(run, data):
    table = data / "kadid10k" / "dmos.csv"
    table.write_text(table.read_text().replace("dist_img", "distorted"))
    result = run("--iqa-data", str(data), "--iqa-sets", "FR-KADID")
    assert result.ret == USAGE
    said(result, r"dmos\.csv: no column 'dist_img'; it has distorted")
