"""How many prompts a second a tiny local model answers: in process, in batches, and served.

    python tests/benchmarks/bench_engines.py [FOLDER] [--prompts 60]

One run, one machine, the same prompts (512 x 384 PNG; one, two or five images): the broker with the
model in process one at a time and with 32 waiting, the broker with the model behind ``transformers
serve`` likewise, and a bare openai client of that same server. Loading and the first answer are
left out and stated. Replies go to a fresh store each time. Checks that all answers are equal.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openai
import PIL.Image

from iqa_checks.broker import open_asker
from iqa_checks.models import Access, Serving, find_model, folder_in_the_box
from iqa_checks.models.engines import ENGINES, LocalServer
from iqa_checks.prompts import Prompt
from iqa_checks.stimuli import Image

TEXT = (
    "You are an observer in an experiment on image quality. Rate the quality of the test image on "
    "a scale from 0 (bad) to 100 (excellent).\nReply with exactly one line:\nScore: <0 to 100>\n"
)
ANSWER_TOKENS = 16


def pictures(folder: Path, n: int = 30) -> list[Image]:
    """Blurred noise at the size of the built-in stimuli, about 0.4 MB each."""
    found = []
    for k in range(n):
        pixels = np.random.default_rng(k).integers(0, 256, (96, 128, 3), np.uint8)
        path = folder / f"{k}.png"
        PIL.Image.fromarray(pixels).resize((512, 384)).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found.append(Image(path, digest, "image/png", 512, 384))
    return found


def questions(images: Sequence[Image], n: int) -> list[Prompt]:
    """As in a run: long stretches of prompts that differ in their images only."""
    sizes = (1, 2, 5)
    return [
        Prompt(
            f"{TEXT}({k // len(images)})",
            tuple(images[(k + j) % len(images)] for j in range(sizes[k * len(sizes) // n])),
            "rating", 1, 0, "bench", ANSWER_TOKENS,
        )
        for k in range(n)
    ]  # fmt: skip


def through_broker(
    model: str, engine: str, prompts: Sequence[Prompt], at_once: int, folder: Path
) -> tuple[list[str], float]:
    """Texts, and prompts a second after the first answer."""
    serving = Serving(engine, logs=folder)
    asker = open_asker(
        model,
        store=str(folder / f"{engine}-{at_once}.sqlite"),
        access=Access(serving=serving),
        concurrency=at_once,
    )
    began = time.perf_counter()
    asker.ask([Prompt(TEXT, prompts[0].images, "rating", 1, 0, "warm", ANSWER_TOKENS)])
    ready = time.perf_counter()
    texts = [reply.text for reply in asker.ask(prompts)]
    took = time.perf_counter() - ready
    asker.close(finished=True)
    print(f"  {engine}, {at_once} at once: ready after {ready - began:.1f} s")
    return texts, len(prompts) / took


async def bare(url: str, model: str, prompts: Sequence[Prompt], at_once: int) -> list[str]:
    """The same questions by an openai client and nothing else."""
    gate = asyncio.Semaphore(at_once)
    async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0) as client:

        async def one(prompt: Prompt) -> str:
            urls = [base64.b64encode(image.path.read_bytes()).decode() for image in prompt.images]
            images = [
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{url}"}}
                for url in urls
            ]
            async with gate:
                answer = await client.chat.completions.create(
                    model=model, temperature=0, max_tokens=prompt.max_tokens,
                    messages=[{"role": "user",
                               "content": [{"type": "text", "text": prompt.text}, *images]}],
                )  # fmt: skip
            return answer.choices[0].message.content or ""

        return await asyncio.gather(*map(one, prompts))


def bare_client(
    model: str, prompts: Sequence[Prompt], at_once: int, folder: Path
) -> tuple[list[str], float]:
    spec = find_model(model)
    server = LocalServer(ENGINES["transformers"], spec, Path(spec.repository), Serving(logs=folder))
    server.start()
    try:
        asyncio.run(bare(server.url, server.model_id, prompts[:1], 1))
        began = time.perf_counter()
        texts = asyncio.run(bare(server.url, server.model_id, prompts, at_once))
        return texts, len(prompts) / (time.perf_counter() - began)
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="of a model; the one in the box by default")
    parser.add_argument("--prompts", type=int, default=60)
    given = parser.parse_args()
    model = str(Path(given.folder or folder_in_the_box()).resolve())
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        prompts = questions(pictures(folder), given.prompts)
        print(f"{given.prompts} prompts of 1, 2 and 5 images to {model}")
        results = {
            "in process, 1 at once": through_broker(model, "in_process", prompts, 1, folder),
            "in process, 32 waiting": through_broker(model, "in_process", prompts, 32, folder),
            "served, 1 at once": through_broker(model, "transformers", prompts, 1, folder),
            "served, 8 at once": through_broker(model, "transformers", prompts, 8, folder),
            "bare client, 8 at once": bare_client(model, prompts, 8, folder),
        }
    _, unit = results["bare client, 8 at once"]
    same = {tuple(texts) for texts, _ in results.values()}
    for name, (_, rate) in results.items():
        print(f"{name:24} {rate:7.1f} prompts/s  {rate / unit:5.2f} x bare client")
    print("answers are equal" if len(same) == 1 else f"ANSWERS DIFFER: {len(same)} variants")


if __name__ == "__main__":
    main()
