"""Whole runs that serve their model themselves: one server for all workers, and none left over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAKE = ROOT / "tests/models/fake_engine.py"
EXIT_INFRASTRUCTURE = 10


class Runs:
    """Runs of ``pytest suites`` with the fake engine, away from the user's own store and cache."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.cache = cache
        self.model = folder / "tiny"
        self.model.mkdir()
        (self.model / "config.json").write_text("{}")
        (self.model / "model.safetensors").write_bytes(b"weights")

    def start(self, behaviour: str, *options: str) -> subprocess.Popen[str]:
        engine = (
            f"{sys.executable} {FAKE} --model {{model}} --port {{port}} --behaviour {behaviour} "
            f"--pids {self.folder / 'pids'}"
        )
        command = [sys.executable, "-m", "pytest", "suites", "-q", "-p", "no:cacheprovider"]
        command += ["-k", "nr and standard and builtin and (single or double)", "--iqa-limit", "8"]
        command += ["--model", str(self.model), "--iqa-engine", engine]
        command += ["--iqa-store", str(self.folder / "replies.sqlite")]
        command += ["--iqa-cache", str(self.cache), "--iqa-out", str(self.folder / "out")]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "PYTEST_"))}
        return subprocess.Popen(
            [*command, *options],
            cwd=ROOT,
            env=env | {"XDG_CACHE_HOME": str(self.folder)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, behaviour: str, *options: str) -> tuple[int, str]:
        process = self.start(behaviour, *options)
        output = process.communicate(timeout=120)[0]
        return process.returncode, output

    def pids(self) -> list[int]:
        """Of every engine that was started, and of its child."""
        file = self.folder / "pids"
        return [int(pid) for pid in file.read_text().split()] if file.exists() else []


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stimuli")


@pytest.fixture
def runs(tmp_path: Path, cache: Path) -> Runs:
    return Runs(tmp_path, cache)


def all_gone(pids: list[int], within_s: float = 15.0) -> bool:
    def alive(pid: int) -> bool:
        try:
            return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return False

    deadline = time.monotonic() + within_s
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(pids) and not any(map(alive, pids))


def test_workers_share_one_server(runs):
    """Three workers, one start; the header says who served and where the log is."""
    code, output = runs.run("ok", "-n", "3")
    assert code == 0, output
    assert len(runs.pids()) == 2
    assert all_gone(runs.pids(), 1)
    log = runs.folder / "out/engines/tiny.log"
    assert f"(engine {Path(sys.executable).name}, log {log})" in output
    assert "ready" in log.read_text()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("behaviour", ["ok", "hangs"])
def test_no_server_outlives_its_run(runs, how, behaviour):
    """Ctrl-C, a job that is cancelled, and kill -9, while it answers and while it loads."""
    process = runs.start(behaviour)
    deadline = time.monotonic() + 60
    while not runs.pids():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(how)
    assert all_gone(runs.pids())
    assert process.wait(30) != 0
    process.communicate()


def test_an_engine_that_dies_ends_the_run_and_says_why(runs):
    """Exit code 10, the end of the log, its path: once in the summary."""
    code, output = runs.run("dies", "-n", "2")
    assert code == EXIT_INFRASTRUCTURE, output
    assert "no CUDA device is available" in output
    assert str(runs.folder / "out/engines/tiny.log") in output
    assert all_gone(runs.pids(), 1)


@pytest.mark.parametrize("behaviour", ["chinese", "empty"])
def test_replies_that_hold_no_answer_are_counted_and_never_guessed(runs, behaviour):
    """Another language, and nothing at all."""
    code, output = runs.run(behaviour)
    assert code == 1, output
    rows = json.loads((runs.folder / "out/results.json").read_text())["rows"]
    for row in rows:
        assert row["unparsed_rate"] == 1.0
        assert row["srcc"]["value"] is None
    assert "100% of 8 replies hold no usable answer" in output


def test_a_plan_needs_neither_weights_nor_engine(runs):
    (runs.model / "model.safetensors").unlink()
    code, output = runs.run("dies", "--iqa-plan")
    assert code == 0, output
    assert not runs.pids()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["suites"], 4), (["tests", "--iqa-limit", "8"], 4), (["tests"], 32), (["suites", "-n8"], 8)],
)
def test_auto_takes_few_workers_for_runs_that_wait_for_a_model(
    pytester, monkeypatch, arguments, expected
):
    """``-n auto`` of a run without cells, and any number that is given, are the user's."""
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "32")
    for folder in ("suites", "tests"):
        pytester.mkdir(folder)
    pytester.makeconftest(
        """
        import pytest

        @pytest.hookimpl(trylast=True)
        def pytest_configure(config):
            raise pytest.UsageError(f"workers: {config.option.numprocesses}")
        """
    )
    result = pytester.runpytest_subprocess("-nauto", *arguments)
    result.stderr.fnmatch_lines([f"*workers: {expected}"])
