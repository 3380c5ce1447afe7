"""The client of chat endpoints, without one: what is sent, and what is made of what comes back."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from iqa_checks.errors import StimulusError
from iqa_checks.models import Access, TryAgain, find_model
from iqa_checks.models.openai_chat import (
    EncodedImages,
    OpenAIChat,
    parameters_of,
    read_completion,
    retry_after_s,
)
from iqa_checks.prompts import Prompt
from iqa_checks.stimuli import Image


def image(path: Path, data: bytes = b"\x89PNG bytes") -> Image:
    path.write_bytes(data)
    return Image(path, hashlib.sha256(data).hexdigest(), "image/png", 4, 3)


def body(content: Any = "Score: 5", **more: Any) -> bytes:
    choice = {"message": {"content": content}, "finish_reason": "stop"}
    return json.dumps({"model": "m-1", "choices": [choice], **more}).encode()


# --- what is sent -------------------------------------------------------------------------------


def test_the_request_is_text_first_then_the_files_own_bytes(tmp_path: Path) -> None:
    images = (image(tmp_path / "a.png", b"first"), image(tmp_path / "b.png", b"second"))
    text = 'Quote " and \\ and\nline, 品質'
    prompt = Prompt(text, images, "preference", 2, 0, "standard/double_nr", 64, repeat=3)
    backend = OpenAIChat(find_model("openai:some-model"), Access(("http://127.0.0.1:1/v1",)))
    asked = json.loads(backend._body(prompt, parameters_of(backend._spec, prompt)))
    urls = [
        f"data:image/png;base64,{base64.b64encode(data).decode()}" for data in (b"first", b"second")
    ]
    assert asked == {
        "model": "some-model",
        "max_tokens": 64,
        "temperature": 0,
        "seed": 3,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": text},
                    *({"type": "image_url", "image_url": {"url": url}} for url in urls),
                ],
            }
        ],
    }


def test_no_seed_without_repeats(tmp_path: Path) -> None:
    prompt = Prompt("?", (), "rating", 1, 0, "x", 64)
    backend = OpenAIChat(find_model("openai:m"), Access(("http://127.0.0.1:1/v1",)))
    assert "seed" not in parameters_of(backend._spec, prompt)


def test_the_model_is_the_same_at_any_url() -> None:
    spec = find_model("openai:m")
    here = OpenAIChat(spec, Access(("http://127.0.0.1:1/v1",)))
    there = OpenAIChat(spec, Access(("https://example.org/v1",)))
    assert here.fingerprint == there.fingerprint
    assert "example" not in there.fingerprint


def test_the_client_is_not_loaded_before_the_first_request() -> None:
    code = (
        "import sys; from iqa_checks.models import Access, find_model, open_backend;"
        "open_backend(find_model('openai:m'), Access());"
        "sys.exit('openai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_image_is_read_again_only_when_it_was_touched(tmp_path: Path) -> None:
    shown = image(tmp_path / "a.png")
    encoded = EncodedImages(1000)
    first = encoded.data_url(shown)
    assert encoded.data_url(shown) is first
    os.utime(shown.path, ns=(1, 1))
    assert encoded.data_url(shown) == first
    shown.path.write_bytes(b"something else")
    with pytest.raises(StimulusError, match="changed while the run was going on"):
        encoded.data_url(shown)
    shown.path.unlink()
    with pytest.raises(StimulusError, match="No such file"):
        encoded.data_url(shown)


def test_encoded_images_are_kept_up_to_a_bound(tmp_path: Path) -> None:
    images = [image(tmp_path / f"{k}.png", bytes([k]) * 300) for k in range(4)]
    encoded = EncodedImages(1000)  # two of 422 bytes
    kept = [encoded.data_url(shown) for shown in images]
    assert encoded.data_url(images[3]) is kept[3]
    assert encoded.data_url(images[2]) is kept[2]
    assert encoded.data_url(images[0]) == kept[0]
    assert encoded.data_url(images[0]) is not kept[0]
    assert encoded._size == sum(len(url) for _, url in encoded._kept.values()) <= 1000


# --- what comes back ----------------------------------------------------------------------------


def test_reads_a_completion() -> None:
    reply = read_completion(body(usage={"prompt_tokens": 90, "completion_tokens": 3}), 0.5)
    assert (reply.text, reply.finish_reason, reply.served_model) == ("Score: 5", "stop", "m-1")
    assert (reply.prompt_tokens, reply.completion_tokens, reply.latency_s) == (90, 3, 0.5)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"<html>gateway</html>",
        b'{"choices": []}',
        b'{"choices": {}}',
        b'{"choices": [null]}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": "text"}]}',
        b'{"choices": [{"message": {}}], "usage"',
        b"\xff\xfe\x80",
        b"[" * 100_000,
    ],
)
def test_a_body_that_is_no_completion_is_tried_again(nonsense: bytes) -> None:
    with pytest.raises(TryAgain, match="not a chat completion"):
        read_completion(nonsense, 0.1)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ("", ""),
        (7, ""),
        ([{"type": "text", "text": "Score: "}, {"type": "text", "text": "5"}, None], "Score: 5"),
        ("nul \0 and half \ud83d", "nul \N{REPLACEMENT CHARACTER} and half ?"),
    ],
)
def test_any_content_becomes_text_that_a_store_takes(content: Any, text: str) -> None:
    assert read_completion(body(content), 0.1).text == text


def test_a_refusal_is_the_reply() -> None:
    choice = {"message": {"content": None, "refusal": "I will not."}}
    assert read_completion(json.dumps({"choices": [choice]}).encode(), 0.1).text == "I will not."


@pytest.mark.parametrize("count", [-1, 2**70, "9", 1.5, True, None, [], {}])
def test_token_counts_that_are_none(count: Any) -> None:
    usage = {"prompt_tokens": count, "completion_tokens": 3}
    reply = read_completion(body(usage=usage), 0.1)
    assert (reply.prompt_tokens, reply.completion_tokens) == (None, 3)
    assert read_completion(body(usage=count), 0.1).completion_tokens is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


def test_retry_after_a_date() -> None:
    at = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=90), usegmt=True)
    assert retry_after_s({"retry-after": at}) == pytest.approx(90, abs=3)
