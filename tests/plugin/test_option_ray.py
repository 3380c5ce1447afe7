"""``--iqa-ray``: a Ray cluster computes, and the files are those of one machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fixtures.experts

OK, USAGE = 0, 4
SUITE = Path(fixtures.experts.__file__).parents[1] / "suites" / "test_difficult_samples.py"


@pytest.fixture
def experts(repository, rated, monkeypatch):
    """The expert rows of the rated scenes, in a process of their own: Ray is never unloaded."""
    monkeypatch.setenv("PYTHONPATH", str(SUITE.parents[1]))
    repository.makeconftest('pytest_plugins = ["fixtures.experts"]')
    (repository.path / SUITE.name).write_text(SUITE.read_text())

    def run(*options: str) -> pytest.RunResult:
        return repository.runpytest_subprocess(
            "-p", "no:cacheprovider", "-m", "experts", "-k", "fr", "--iqa-ratings", str(rated),
            "--iqa-experts", "gmsd", "--iqa-embedder", "offline", "--iqa-rivals", "psnr,gmsd",
            *options,
        )  # fmt: skip

    return run


def test_a_cluster_gives_the_same_files(experts, repository):
    """A local one, started for the run; each computes from an empty cache."""
    pytest.importorskip("ray")
    here = experts("--iqa-cache", "here", "--iqa-out", "out-here")
    assert here.ret == OK, here.stdout.str()
    there = experts("--iqa-ray", "local", "--iqa-cache", "there", "--iqa-out", "out-there")
    assert there.ret == OK, there.stdout.str()
    for name in ("table2.md", "table2.csv", "table2.tex", "results.md"):
        texts = [
            (repository.path / f"out-{where}" / name).read_text() for where in ("here", "there")
        ]
        assert texts[0] == texts[1], name
    documents = [
        json.loads((repository.path / f"out-{where}/results.json").read_text())
        for where in ("here", "there")
    ]
    assert documents[0]["experts"] == documents[1]["experts"] != []


def test_a_cluster_that_is_not_there_is_one_line(experts):
    """Named with its address; the run is not green."""
    pytest.importorskip("ray")
    result = experts("--iqa-ray", "127.0.0.1:1", "--iqa-cache", "cache")
    said = result.stdout.str() + result.stderr.str()
    assert result.ret == USAGE, said
    assert "--iqa-ray 127.0.0.1:1" in said
    assert "Traceback" not in said
