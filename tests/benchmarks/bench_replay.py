"""What a replay of 10,000 stored replies costs above an empty pytest run.

Run ``python tests/benchmarks/bench_replay.py [--replies 10000] [--rounds 5]``. Both sides are
``pytest`` on a file with one test, in a fresh process, in turn; one of them asks the broker for
all the replies with ``--iqa-replay``'s policy. Target: less than 2 s between the medians. The time
of the processor stands beside it: on a busy machine the clock says more about the neighbours.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from iqa_checks.broker import open_asker
from iqa_checks.models import Access, find_model, key_of, open_backend, request_of
from iqa_checks.prompts import Prompt
from iqa_checks.replies import Reply, ReplyStore, Stored
from iqa_checks.stimuli import Image

MODEL = "openai:observer"
TEXT = "Images, in order: image 1 is the test image. Reply with one line:\nScore: N\n" * 10
TESTS = {
    "empty": "def test_nothing():\n    pass\n",
    "replay": (
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "def test_replay():\n"
        "    import bench_replay\n"
        "    bench_replay.replay({store!r}, {n})\n"
    ),
}


def prompts(n: int) -> list[Prompt]:
    images = [Image(Path(f"{k}.png"), f"{k:064x}", "image/png", 512, 384) for k in range(500)]
    return [
        Prompt(TEXT, (images[k % 500],), "rating", 1, 0, "standard/single_nr", 64, repeat=k // 500)
        for k in range(n)
    ]


def fill(store: str, n: int) -> None:
    """A finished run with a reply to each prompt."""
    backend = open_backend(find_model(MODEL), Access())
    run = ReplyStore(store, identity="benchmark", model=MODEL)
    requests = [request_of(prompt, backend.fingerprint) for prompt in prompts(n)]
    keys = [key_of(request) for request in requests]
    reply = Reply(
        "The quality is fair.\nScore: 50", "stop", "observer-1", 900, 12, 0.5, time.time()
    )
    run.add(
        [Stored(key, request, TEXT, reply) for key, request in zip(keys, requests, strict=True)]
    )
    run.finish(keys)
    run.close()


def replay(store: str, n: int) -> None:
    """Every stored reply through a broker that may ask nothing."""
    asker = open_asker(MODEL, store=store, policy="replay")
    assert len(asker.ask(prompts(n))) == n
    assert asker.broker.totals.reused == n
    asker.close(finished=True)


def seconds(folder: Path) -> tuple[float, float]:
    """Wall clock and processor time of a pytest run."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    began, used = time.perf_counter(), processor_s()
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return time.perf_counter() - began, processor_s() - used


def processor_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--replies", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        store = str(root / "replies.sqlite")
        fill(store, given.replies)
        for side, text in TESTS.items():
            (root / side).mkdir()
            test = text.replace("{store!r}", repr(store)).replace("{n}", str(given.replies))
            (root / side / f"test_{side}.py").write_text(test)
        taken: dict[str, list[tuple[float, float]]] = {side: [] for side in TESTS}
        for _ in range(given.rounds):
            for side in TESTS:
                taken[side].append(seconds(root / side))
    medians = {
        side: [statistics.median(v) for v in zip(*values, strict=True)]
        for side, values in taken.items()
    }
    for side, (wall, processor) in medians.items():
        print(f"  {side:<7} {wall:6.3f} s   processor {processor:6.3f} s")
    wall, processor = (b - a for a, b in zip(medians["empty"], medians["replay"], strict=True))
    print(f"  {given.replies} replies cost {wall:.3f} s above that, processor {processor:.3f} s")


if __name__ == "__main__":
    main()
