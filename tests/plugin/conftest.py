"""A team's repository in a temporary folder: suites, rated images, and pytest run in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jinja2.sandbox
import numpy as np
import numpy.fft
import openai
import PIL.Image
import pytest
import rich.table
import scipy.linalg
import scipy.ndimage
import scipy.optimize
import scipy.sparse.linalg
import scipy.special
import scipy.stats
import skimage.color
import sqlalchemy.dialects.sqlite
import yaml

import iqa_checks.broker
import iqa_checks.cell
import iqa_checks.models.observer
import iqa_checks.report.summary

#: Loaded before any run in this process: pytester unloads what a run loads, and the compiled
#: modules among them cannot be loaded twice.
LOADED_ONCE = (
    jinja2.sandbox, numpy.fft, openai, rich.table, scipy.linalg, scipy.ndimage, scipy.optimize,
    scipy.sparse.linalg, scipy.special, scipy.stats, skimage.color, sqlalchemy.dialects.sqlite,
    yaml, iqa_checks.broker, iqa_checks.cell, iqa_checks.models.observer,
    iqa_checks.report.summary,
)  # fmt: skip

SUITES = {
    "test_fr.py": 'scenario="fr", protocols=("single", "double")',
    "test_nr.py": 'scenario="nr", protocols=("single", "double")',
    "test_difference.py": 'scenario="difference", protocols=("single", "double")',
}
LEVELS = 5


@pytest.fixture(autouse=True)
def _no_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs inside tests write nothing into the job that runs these tests."""
    for variable in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def repository(pytester: pytest.Pytester) -> pytest.Pytester:
    """Suites as a team would write them: standard prompts, two protocols."""
    for name, marker in SUITES.items():
        pytester.path.joinpath(name).write_text(
            "import pytest\n\n"
            f'@pytest.mark.iqa({marker}, strategies=("standard",))\n'
            "def test_cell(outcome):\n    outcome.check()\n"
        )
    return pytester


@pytest.fixture
def run(repository: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """pytest in this process, without workers unless they are asked for."""

    def once(*options: str) -> pytest.RunResult:
        return repository.runpytest_inprocess(
            "-p", "no:cacheprovider", "--iqa-model", "observer:noise=0,tie=0", *options
        )  # fmt: skip

    return once


@pytest.fixture(params=["-n0", "-n2"])
def run_anyhow(request: pytest.FixtureRequest, run) -> Callable[..., pytest.RunResult]:
    """The same case without xdist and with two workers."""
    return lambda *options: run(request.param, *options)


@pytest.fixture
def rated(repository: pytest.Pytester) -> Path:
    """Two scenes with five levels of noise each, and what people said: less noise is better."""
    lines = ["# scale: 1:5", "image,mos,reference"]
    for scene in range(2):
        draw = np.random.default_rng(scene)
        clean = PIL.Image.fromarray(draw.integers(60, 190, (5, 6, 3), np.uint8))
        pixels = np.asarray(clean.resize((96, 80), PIL.Image.Resampling.BICUBIC), float)
        save(repository.path / f"scene{scene}.png", pixels)
        for level in range(LEVELS):
            name = f"scene{scene}_{level}.png"
            noise = draw.normal(0, 2 + 7 * level, pixels.shape)
            save(repository.path / name, pixels + noise)
            lines.append(f"{name},{5 - 0.9 * level - 0.1 * scene:g},scene{scene}.png")
    path = repository.path / "ratings.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def rated_pairs(repository: pytest.Pytester) -> Path:
    """Six photographs beside copies of them, each redder than the last."""
    lines = ["image,mos,reference"]
    for k in range(6):
        pixels = np.random.default_rng(k).integers(90, 130, (40, 48, 3)).astype(float)
        save(repository.path / f"before{k}.png", pixels)
        save(repository.path / f"after{k}.png", pixels + np.array([12.0 * k, 0, 0]))
        lines.append(f"after{k}.png,{k},before{k}.png")  # higher = more different
    path = repository.path / "pairs.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def save(path: Path, pixels: np.ndarray) -> None:
    PIL.Image.fromarray(np.clip(pixels.round(), 0, 255).astype(np.uint8)).save(path)
