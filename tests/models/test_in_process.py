"""A tiny model in process and behind ``transformers serve``: equal questions, equal answers."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from iqa_checks.broker import LocalAsker, open_asker
from iqa_checks.errors import EndpointError, UsageError
from iqa_checks.models import Access, Serving, find_model, has_local_extra, open_backend
from iqa_checks.prompts import Prompt
from iqa_checks.replies import Reply
from iqa_checks.stimuli import Image

if not has_local_extra():
    pytest.skip("needs the extra local: torch, transformers, timm", allow_module_level=True)

from tests.models import tiny_models

Open = Callable[..., LocalAsker]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build_llava(tmp_path_factory.mktemp("models") / "llava")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Image]:
    """Ten pictures of noise, PNG and JPEG."""
    folder = tmp_path_factory.mktemp("images")
    found = []
    for k in range(10):
        kind, mime = (("png", "image/png"), ("jpg", "image/jpeg"))[k % 2]
        path = folder / f"{k}.{kind}"
        pixels = np.random.default_rng(k).integers(0, 256, (48, 64, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found.append(Image(path, digest, mime, 64, 48))
    return found


@pytest.fixture
def open_run(tmp_path: Path, folder: Path) -> Iterator[Open]:
    opened: list[LocalAsker] = []

    def start(engine: str, model: Path = folder, **given: Any) -> LocalAsker:
        access = Access(serving=Serving(engine, logs=tmp_path / "logs"))
        store = str(tmp_path / f"{len(opened)}.sqlite")
        opened.append(open_asker(str(model), store=store, access=access, **given))
        return opened[-1]

    yield start
    for asker in opened:
        asker.close(finished=False)


def question(shown: Sequence[Image], text: str = "Rate the test image.", most: int = 12) -> Prompt:
    return Prompt(text, tuple(shown), "rating", 1, 0, "x", most)


def mixed(images: list[Image]) -> list[Prompt]:
    """One to three images, two texts, two limits: what waits together fits only in part."""
    return [
        question(
            [images[(k + j) % 10] for j in range(1 + k % 3)],
            "Rate the test image." * (1 + k // 15),
            12 + k % 2,
        )
        for k in range(30)
    ]


def essence(replies: Sequence[Reply]) -> list[tuple[Any, ...]]:
    return [(r.text, r.finish_reason, r.prompt_tokens, r.completion_tokens) for r in replies]


def test_batches_answer_as_single_prompts_do(open_run, images):
    prompts = mixed(images)
    together, alone = open_run("in_process"), open_run("in_process", concurrency=1)
    assert essence(together.ask(prompts)) == essence(alone.ask(prompts))
    assert together.broker.backend.n_batches < alone.broker.backend.n_batches == len(prompts)


def test_a_server_of_the_same_weights_answers_the_same(open_run, images):
    """Several images over the wire, from many askers at once; the keys are the same too."""
    prompts = mixed(images)
    here, served = open_run("in_process"), open_run("transformers")
    assert essence(here.ask(prompts)) == essence(served.ask(prompts))
    assert here.broker.backend.fingerprint == served.broker.backend.fingerprint


def test_every_image_and_its_place_count(open_run, images):
    """Swapped, left out or shown twice: another question, and mostly another answer."""
    asker = open_run("in_process")
    lists = [images[:4], images[3::-1], images[:3], [*images[:3], images[0]]]
    texts = [reply.text for reply in asker.ask([question(shown) for shown in lists])]
    assert len(set(texts)) == 4


def test_limits_are_kept_and_tokens_counted(open_run, images):
    short, long = open_run("in_process").ask(
        [question(images[:1], most=3), question(images[:1], most=9)]
    )
    assert (short.finish_reason, short.completion_tokens) == ("length", 3)
    assert long.text.startswith(short.text)
    assert short.prompt_tokens == long.prompt_tokens > 16  # the tokens of one image


def test_odds_of_every_token_for_soft_answers(open_run, images):
    """As chat endpoints tell them: what was written is the likeliest; shares sum to at most 1."""
    prompts = [replace(question(images[k : k + 2]), top_logprobs=5) for k in range(2)]
    for reply in open_run("in_process").ask(prompts):
        tokens = json.loads(reply.logprobs)
        assert len(tokens) == reply.completion_tokens
        for token, *likely in tokens:
            shares = [math.exp(p) for p in likely[1::2]]
            assert token == likely[0]
            assert shares == sorted(shares, reverse=True)
            assert sum(shares) <= 1.001


def test_more_than_the_context_holds(open_run, images):
    """Ten images and a long text: said in one line with both numbers, before anything is asked."""
    text = "Rate the quality of the test image. " * 600
    with pytest.raises(EndpointError, match=r"prompt has \d+ tokens, and .* a context of 2048"):
        open_run("in_process").ask([question(images, text)])


def test_a_request_that_fails_spoils_no_other(open_run, images):
    """Once something was answered, one prompt too long is one failed request."""
    asker = open_run("in_process")
    asker.ask([question(images[:1])])
    with pytest.raises(Exception, match="a context of 2048") as caught:
        asker.ask([question(images, "Rate the image. " * 900), question(images[:2])])
    assert type(caught.value).__name__ == "RequestFailed"
    assert asker.ask([question(images[:2])])[0].origin == "new"
    assert asker.broker.fatal is None


def test_what_cannot_be_loaded(open_run, folder, images, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(EndpointError, match=r"cannot be loaded \(.*no-such-model.*--iqa-engine"):
        open_run("in_process", broken).ask([question(images[:1])])


def test_code_that_comes_with_weights_is_not_run(open_run, folder, images, tmp_path):
    strange = tmp_path / "strange"
    shutil.copytree(folder, strange)
    (strange / "config.json").write_text(
        '{"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}'
    )
    (strange / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(EndpointError, match=r"read the \.py files in .*--iqa-trust-remote-code"):
        open_run("in_process", strange).ask([question(images[:1])])
    assert not (tmp_path / "ran").exists()


def test_only_greedy_answers(folder):
    spec = replace(find_model(str(folder)), parameters={"temperature": 0.7})
    with pytest.raises(UsageError, match=r"temperature 0 .* not temperature=0\.7"):
        open_backend(spec, Access(serving=Serving("in_process")))
    assert type(open_backend(spec, Access())).__name__ == "ServedModel"
