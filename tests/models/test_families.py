"""Tiny models of the families that people run, in process and served, asked with several images.

Weights are random: what counts is that processor, chat template and server agree on where images
go, that every image is seen, and that its place matters. Two families always, the rest with
``pytest -m slow``.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from iqa_checks.broker import open_asker
from iqa_checks.models import Access, Serving, has_local_extra
from iqa_checks.prompts import Prompt
from iqa_checks.stimuli import Image

if not has_local_extra():
    pytest.skip("needs the extra local: torch, transformers, timm", allow_module_level=True)

from tests.models.tiny_models import FAMILIES

ALWAYS = ("llava_next", "idefics3")


def shown(folder: Path, seed: int) -> Image:
    path = folder / f"{seed}.png"
    pixels = np.random.default_rng(seed).integers(0, 256, (96, 128, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(path)
    return Image(path, hashlib.sha256(path.read_bytes()).hexdigest(), "image/png", 128, 96)


@pytest.mark.parametrize(
    "family",
    [f if f in ALWAYS else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES],
)
def test_every_image_counts_in_its_place(tmp_path, family):
    """Swapped, left out and repeated images change the answer; a server's are the same."""
    folder = FAMILIES[family](tmp_path / family)
    a, b, c = (shown(tmp_path, seed) for seed in range(3))
    lists = [(a, b, c), (c, b, a), (a, b), (a, b, a)]
    prompts = [Prompt("Rate the test image.", s, "rating", 1, 0, "x", 10) for s in lists]
    answers = []
    for engine in ("in_process", "transformers"):
        access = Access(serving=Serving(engine, logs=tmp_path / "logs"))
        asker = open_asker(str(folder), store=str(tmp_path / f"{engine}.sqlite"), access=access)
        # transformers serve keeps the special tokens that a Qwen's reply holds
        texts = [re.sub(r"<[^<>]*>", "", r.text) for r in asker.ask(prompts)]
        answers.append(texts)
        asker.close(finished=True)
    assert answers[0] == answers[1]
    assert len(set(answers[0])) == len(lists)
