"""The query engine beside a bare AsyncOpenAI loop that sends the same bytes.

Run ``python tests/benchmarks/bench_queries.py [--rounds 7]``. A loopback endpoint in a process of
its own answers after 50 ms. Each round takes a fresh Python process per side, in turn, since
neither may profit from what the other warmed; ratios come from the same run and do not depend on
the machine. The bare loop encodes its image once, before the clock starts, and stores nothing; the
broker hashes and encodes every image it sends and commits every reply.

Printed: medians of first request to last reply, their ratio (target <= 1.2), start-up (from the
start of the process to the first request), and the processor time between first request and last
reply: on a busy machine the clock says more about the neighbours.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

REQUESTS, CONCURRENCY, LATENCY_MS = 200, 32, 50
WIDTH, HEIGHT = 512, 384
TEXT = "Images, in order: image 1 is the test image. Reply with one line:\nScore: N"


class Taken(NamedTuple):
    """Clock at the first request and at the last reply, processor seconds between them."""

    started: float
    ended: float
    processor_s: float


def write_images(folder: Path, n: int) -> None:
    """``n`` different images of noise, about 0.4 MB each as PNG."""
    import numpy as np
    import PIL.Image

    rng = np.random.default_rng(0)
    smooth = np.linspace(0, 255, WIDTH)[None, :, None] * np.ones((HEIGHT, 1, 3))
    for k in range(n):
        noisy = np.clip(smooth + rng.normal(0, 10, smooth.shape), 0, 255).astype(np.uint8)
        PIL.Image.fromarray(noisy).save(folder / f"{k}.png")


def bare(url: str, paths: list[Path], store: str) -> Taken:
    """The loop that anyone would write."""
    import openai

    urls = {p: "data:image/png;base64," + base64.b64encode(p.read_bytes()).decode() for p in paths}

    async def run() -> Taken:
        free = asyncio.Semaphore(CONCURRENCY)
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

            async def ask(k: int) -> str | None:
                image = {"type": "image_url", "image_url": {"url": urls[paths[k % len(paths)]]}}
                content: Any = [{"type": "text", "text": TEXT}, image]
                async with free:
                    answer = await client.chat.completions.create(
                        model="observer",
                        messages=[{"role": "user", "content": content}],
                        max_tokens=64,
                        temperature=0,
                        seed=k + 1,
                    )
                return answer.choices[0].message.content

            started, used = time.time(), time.process_time()
            await asyncio.gather(*map(ask, range(REQUESTS)))
            return Taken(started, time.time(), time.process_time() - used)

    return asyncio.run(run())


def broker(url: str, paths: list[Path], store: str) -> Taken:
    """The same requests the way a cell asks them."""
    from iqa_checks.broker import open_asker
    from iqa_checks.models import Access
    from iqa_checks.prompts import Prompt
    from iqa_checks.stimuli import Image

    images = [
        Image(p, hashlib.sha256(p.read_bytes()).hexdigest(), "image/png", WIDTH, HEIGHT)
        for p in paths
    ]
    prompts = [
        Prompt(TEXT, (images[k % len(images)],), "rating", 1, 0, "bench", 64, repeat=k + 1)
        for k in range(REQUESTS)
    ]
    asker: Any = open_asker(
        "openai:observer", store=store, access=Access((url,)), concurrency=CONCURRENCY
    )
    asker.broker.backend._connect()  # loads the client, which is start-up on both sides
    started, used = time.time(), time.process_time()
    assert len(asker.ask(prompts)) == REQUESTS
    taken = Taken(started, time.time(), time.process_time() - used)
    asker.close(finished=True)
    return taken


SIDES = {"bare": bare, "broker": broker}


def measure(side: str, url: str, folder: Path, store: Path) -> tuple[float, float, float]:
    """Seconds of one side in a fresh process: asking, start-up, processor while asking."""
    command = [sys.executable, __file__, "--side", side, "--url", url]
    command += ["--folder", str(folder), "--store", str(store)]
    before = time.time()
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    taken = Taken(*json.loads(run.stdout))
    return taken.ended - taken.started, taken.started - before, taken.processor_s


def compare(n_images: int, rounds: int) -> None:
    from iqa_checks.models.loopback import server_process

    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        write_images(folder, n_images)
        size = statistics.mean(p.stat().st_size for p in folder.glob("*.png"))
        url = stack.enter_context(server_process("observer", "--latency-ms", str(LATENCY_MS)))
        measure("bare", url, folder, folder / "warm.sqlite")  # the endpoint looks at each image
        taken: dict[str, list[tuple[float, float, float]]] = {side: [] for side in SIDES}
        for k in range(rounds):
            for side in SIDES if k % 2 else reversed(SIDES):
                taken[side].append(measure(side, url, folder, folder / f"{k}.sqlite"))
    print(
        f"{REQUESTS} requests, {n_images} image(s) of {size / 1e6:.2f} MB, {LATENCY_MS} ms, "
        f"concurrency {CONCURRENCY}, median of {rounds}:"
    )
    for side, values in taken.items():
        seconds, startup, processor = (statistics.median(v) for v in zip(*values, strict=True))
        print(f"  {side:<7} {seconds:6.3f} s   start-up {startup:6.3f} s   cpu {processor:6.3f} s")
    for what, column in (("clock", 0), ("cpu", 2)):
        pairs = zip(taken["bare"], taken["broker"], strict=True)
        print(f"  ratio by {what} {statistics.median(b[column] / a[column] for a, b in pairs):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        paths = sorted(given.folder.glob("*.png"))
        print(json.dumps(SIDES[given.side](given.url, paths, given.store)))
        return
    for n_images in (1, REQUESTS):
        compare(n_images, given.rounds)


if __name__ == "__main__":
    main()
