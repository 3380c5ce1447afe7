"""What the plugin costs a test session that has no cells.

    python tests/benchmarks/bench_start.py

Runs an empty test file with and without the plugin, in turn, and prints medians, their difference,
and what of the heavy packages was loaded. The design asks for less than 30 ms.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 15
HEAVY = ("numpy", "scipy", "torch", "openai", "sqlalchemy", "yaml", "PIL")
PROBE = f"""
import sys

def test_nothing():
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    print("loaded:", ", ".join(loaded) or "none")
"""


def seconds(folder: Path, *options: str) -> tuple[float, str]:
    """Wall seconds of one pytest run, and what it printed."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *options, "."],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return time.perf_counter() - started, done.stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_empty.py").write_text(PROBE)
        without, with_plugin = [], []
        printed = ""
        for _ in range(ROUNDS):
            without.append(seconds(folder, "-p", "no:iqa_checks.plugin")[0])
            elapsed, printed = seconds(folder)
            with_plugin.append(elapsed)
    bare, ours = statistics.median(without), statistics.median(with_plugin)
    print(f"without the plugin {bare * 1e3:.0f} ms, with it {ours * 1e3:.0f} ms")
    print(f"difference {(ours - bare) * 1e3:+.0f} ms, ratio {ours / bare:.3f}")
    print(next(line for line in printed.splitlines() if "loaded:" in line))


if __name__ == "__main__":
    main()
