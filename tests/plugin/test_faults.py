"""Whole runs of ``pytest suites`` as processes: killed, interrupted, refused, in parallel.

The endpoint is a thread of the test, so that it can be asked what it has seen.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from iqa_checks.models.loopback import Fault, LoopbackServer

ROOT = Path(__file__).parents[2]
LIMIT = 16
CELLS = "nr and standard and builtin and (single or double)"
EXIT_INFRASTRUCTURE = 10


class Runs:
    """Starts runs that share a store and a cache, away from the user's own."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.store = folder / "replies.sqlite"
        self.cache = cache

    def start(self, url: str, *options: str, cells: str = CELLS) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pytest", "suites", "-q", "-p", "no:cacheprovider"]
        command += ["-k", cells, "--model", "openai:observer", "--iqa-base-url", url]
        command += ["--iqa-store", str(self.store), "--iqa-cache", str(self.cache)]
        command += ["--iqa-limit", str(LIMIT), *options]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "PYTEST_"))}
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, url: str, *options: str, cells: str = CELLS) -> tuple[int, str]:
        """Exit status and output of a run that is left alone."""
        process = self.start(url, *options, cells=cells)
        output = process.communicate(timeout=90)[0]
        return process.returncode, output

    def n_stored(self) -> int:
        """Replies in the store; 0 while there is none."""
        if not self.store.exists():
            return 0
        with contextlib.closing(sqlite3.connect(self.store)) as store:
            try:
                return int(store.execute("SELECT count(*) FROM replies").fetchone()[0])
            except sqlite3.OperationalError:
                return 0


@pytest.fixture
def runs(tmp_path: Path, stimuli_cache: Path) -> Runs:
    return Runs(tmp_path, stimuli_cache)


@pytest.fixture(scope="module")
def stimuli_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stimuli")


def table(output: str) -> list[str]:
    """The lines of cells in a run's summary."""
    lines = [line.strip() for line in output.splitlines() if re.match(r"\s*builtin\b", line)]
    assert lines, output
    return sorted(lines)


def wait_until(
    done: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 60
) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the run did not get that far"
        time.sleep(0.005)


@dataclass(frozen=True)
class Whole:
    """A run that nothing disturbed, to compare with."""

    table: list[str]
    n_trials: int


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, stimuli_cache: Path) -> Whole:
    with LoopbackServer() as server:
        code, output = Runs(tmp_path_factory.mktemp("whole"), stimuli_cache).run(server.url)
        assert code == 0, output
        assert server.stats.requests == server.stats.distinct
        return Whole(table(output), server.stats.requests)


def test_killed_and_resumed_asks_only_what_is_not_stored(runs: Runs, whole: Whole) -> None:
    with LoopbackServer(latency_s=0.1) as server:
        process = runs.start(server.url, "--iqa-concurrency", "4")
        wait_until(lambda: runs.n_stored() >= whole.n_trials // 3, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        time.sleep(1.0)  # what had left the killed run is still being read by the server
        asked, stored = server.stats.requests, runs.n_stored()
        assert whole.n_trials > stored >= whole.n_trials // 3
        assert asked - stored <= 2 * 4  # on the wire, or answered at the very moment
        code, output = runs.run(server.url)
        assert code == 0, output
        assert server.stats.requests == asked + whole.n_trials - stored
        assert server.stats.distinct == whole.n_trials
    assert f"{whole.n_trials - stored} new, {stored} resumed" in output
    assert table(output) == whole.table


def test_interrupted_keeps_what_was_on_the_wire(runs: Runs) -> None:
    with LoopbackServer(latency_s=0.5) as server:
        process = runs.start(server.url, "--iqa-concurrency", "4")
        wait_until(lambda: server.stats.requests >= 6, process)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=60)[0]
        assert process.returncode == pytest.ExitCode.INTERRUPTED, output
        assert runs.n_stored() == server.stats.requests < LIMIT


def test_two_workers_ask_the_same_and_get_the_same(runs: Runs, whole: Whole) -> None:
    with LoopbackServer() as server:
        code, output = runs.run(server.url, "-n", "2")
        assert code == 0, output
        assert server.stats.requests == server.stats.distinct == runs.n_stored() == whole.n_trials
    assert table(output) == whole.table


def test_a_dead_endpoint_ends_a_parallel_run_once_and_not_green(runs: Runs) -> None:
    fault = Fault("status", status=401, message="no such key")
    with LoopbackServer(faults=lambda _: fault) as server:
        code, output = runs.run(server.url, "-n", "2", cells="nr and builtin")
        assert code == EXIT_INFRASTRUCTURE, output
        assert "refuses the key" in output
        assert "Traceback" not in output
        assert server.stats.requests == 1


def test_a_store_that_is_none_is_one_line(runs: Runs) -> None:
    runs.store.write_bytes(b"this is no database, whatever it is" * 100)
    with LoopbackServer() as server:
        code, output = runs.run(server.url)
        assert code not in (0, 5), output
        assert "file is not a database" in output
        assert "Traceback" not in output
        assert server.stats.requests == 0


def test_throttled_broken_and_cut_off_gives_the_same_table(runs: Runs, whole: Whole) -> None:
    script = {
        2: Fault("status", status=429, retry_after="1"),
        3: Fault("status", status=503),
        5: Fault("reset"),
        7: Fault("truncated"),
        9: Fault("malformed"),
        11: Fault("no_choices"),
    }
    with LoopbackServer(faults=script.get) as server:
        code, output = runs.run(server.url)
        assert code == 0, output
        assert server.stats.requests == whole.n_trials + len(script)
    assert table(output) == whole.table
    assert f"{whole.n_trials} new" in output
