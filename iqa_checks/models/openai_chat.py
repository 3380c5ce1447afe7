"""Any OpenAI-compatible chat endpoint, through the openai client.

The bytes sent are the file's bytes, as a data URL under their true MIME type. The client's own
retries are off: the broker retries, because it also has to lower its limit when it is throttled.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import os
import time
from typing import Any
from urllib.parse import urlsplit

import openai

from iqa_checks.errors import EndpointError, RequestFailed, StimulusError, UsageError
from iqa_checks.models import Access, ModelSpec, TryAgain
from iqa_checks.prompts import Prompt
from iqa_checks.replies import Reply
from iqa_checks.stimuli import Image

MAX_REPLY_CHARS = 200_000  # a reply is untrusted: more than this is not an answer


class OpenAIChat:
    """Backend for chat completions. Several base URLs share the load in turn."""

    paid = True

    def __init__(self, spec: ModelSpec, access: Access) -> None:
        self._spec = spec
        self.fingerprint = json.dumps([spec.model, spec.parameters], sort_keys=True)
        urls = access.base_urls or ((spec.base_url,) if spec.base_url else ("",))
        self._clients = [_client(spec, access, url) for url in urls]
        self._turn = itertools.cycle(range(len(urls)))
        self.urls = tuple(str(client.base_url) for client in self._clients)

    async def ask(self, prompt: Prompt) -> Reply:
        k = next(self._turn)
        arguments: dict[str, Any] = {
            "model": self._spec.model,
            "messages": [{"role": "user", "content": await asyncio.to_thread(content, prompt)}],
            "max_tokens": prompt.max_tokens,
            **self._spec.parameters,
        }
        if prompt.repeat:
            arguments["seed"] = prompt.repeat
        started = time.perf_counter()
        try:
            answer = await self._clients[k].chat.completions.create(**arguments)
        except (openai.OpenAIError, ValueError) as error:
            raise _translated(error, self._spec, self.urls[k]) from None
        return _reply(answer, time.perf_counter() - started)

    async def close(self) -> None:
        await asyncio.gather(*(client.close() for client in self._clients))


def content(prompt: Prompt) -> list[dict[str, Any]]:
    """The parts of the user message: the text, then the images in order."""
    images = [
        {"type": "image_url", "image_url": {"url": data_url(image)}} for image in prompt.images
    ]
    return [{"type": "text", "text": prompt.text}, *images]


def data_url(image: Image) -> str:
    """The file's own bytes; `StimulusError` if they changed since the set was loaded."""
    try:
        data = image.path.read_bytes()
    except OSError as error:
        raise StimulusError(f"{image.path}: {error.strerror} (it was there before)") from None
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise StimulusError(
            f"{image.path} changed while the run was going on; start again with the file at rest"
        )
    return f"data:{image.mime};base64,{base64.b64encode(data).decode('ascii')}"


def _client(spec: ModelSpec, access: Access, url: str) -> openai.AsyncOpenAI:
    """A client for one URL. A loopback endpoint needs no key; any other must have one."""
    env = spec.api_key_env or access.api_key_env
    key = os.environ.get(env, "")
    if not key and not url:
        raise UsageError(
            f"--model {spec.name} asks OpenAI's endpoint and needs a key: set {env}, "
            "or name another endpoint with --iqa-base-url URL"
        )
    if url and urlsplit(url).scheme not in ("http", "https"):
        raise UsageError(f"--iqa-base-url {url}: expected http://HOST:PORT/v1 or https://…")
    return openai.AsyncOpenAI(
        api_key=key or "none", base_url=url or None, max_retries=0, timeout=access.timeout_s
    )


def _reply(answer: Any, latency_s: float) -> Reply:
    """Read a completion; a body without one is a failure of the endpoint, not an empty reply."""
    try:
        choice = answer.choices[0]
        text = choice.message.content
        refusal = getattr(choice.message, "refusal", None)
        usage = answer.usage
    except (AttributeError, IndexError, TypeError):
        raise TryAgain("the body is not a chat completion") from None
    text = text if isinstance(text, str) else str(refusal or "")
    return Reply(
        text[:MAX_REPLY_CHARS],
        str(choice.finish_reason or "stop"),
        str(answer.model or ""),
        getattr(usage, "prompt_tokens", None),
        getattr(usage, "completion_tokens", None),
        latency_s,
        time.time(),
    )


def _translated(error: Exception, spec: ModelSpec, url: str) -> Exception:
    """What the broker should do about an error of the client."""
    if isinstance(error, openai.APIStatusError):
        return _status_error(error, spec, url)
    if isinstance(error, openai.APITimeoutError):
        return TryAgain(f"{url} did not answer in time")
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__ or error
        return TryAgain(f"{url} cannot be reached ({cause or type(cause).__name__})")
    return TryAgain(f"{url} sent a body that cannot be read ({type(error).__name__})")


def _status_error(error: openai.APIStatusError, spec: ModelSpec, url: str) -> Exception:
    status, said = error.status_code, _said(error)
    if status in (401, 403):
        return EndpointError(f"{url} refuses the key (HTTP {status}: {said}); set a valid one")
    if status == 404:
        return EndpointError(
            f"{url} does not know the model {spec.model!r} or the path (HTTP 404: {said}); "
            "check --model and --iqa-base-url"
        )
    if status == 429 and getattr(error, "code", None) == "insufficient_quota":
        return EndpointError(f"{url}: the account's quota is spent ({said})")
    if status in (408, 409, 429) or status >= 500:
        return TryAgain(
            f"HTTP {status}: {said}", after_s=_retry_after(error), throttled=status == 429
        )
    return RequestFailed(f"{url} rejects the request (HTTP {status}: {said})")


def _said(error: openai.APIStatusError) -> str:
    """What the endpoint said, shortened; never our own request, which might hold a key."""
    body = error.body
    text = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(text or error.response.reason_phrase).split())[:300]


def _retry_after(error: openai.APIStatusError) -> float | None:
    try:
        return max(0.0, float(error.response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None
