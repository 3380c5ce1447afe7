"""Any OpenAI-compatible chat endpoint, through the openai client.

The bytes sent are the file's bytes, as a data URL under their true MIME type. The client's own
retries are off: the broker retries, because it also has to lower its limit when it is throttled.
The client is handed the request as JSON bytes and hands back the body as bytes: its own walk
through messages of megabytes takes longer than all the rest, and what comes back is checked here
whatever it is.

The client is imported when the first request is sent, so that a replay needs neither it nor a key.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import threading
import time
from collections import OrderedDict
from dataclasses import replace
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from iqa_checks.errors import (
    EndpointError,
    IqaChecksError,
    RequestFailed,
    StimulusError,
    UsageError,
)
from iqa_checks.models import Access, ModelSpec, TryAgain
from iqa_checks.models.negotiation import Parameters, Terms
from iqa_checks.parsing.soft import pack
from iqa_checks.prompts import Prompt
from iqa_checks.replies import Reply, storable
from iqa_checks.stimuli import Image

if TYPE_CHECKING:
    import openai

MAX_REPLY_CHARS = 200_000  # a reply is untrusted: more than this is not an answer
MAX_BODY = 16 * 2**20  # bytes of a response, whatever it holds
MAX_TOKENS_COUNTED = 2**31 - 1  # what a database's integer holds
CACHED_IMAGES = 64 * 2**20  # bytes of encoded images kept for the prompts that show them again
CONNECT_S = 10.0
NO_KEY = "none"  # the client insists on one


class OpenAIChat:
    """Backend for chat completions. Several base URLs share the load in turn.

    Raises `UsageError` for a base URL that is none and, with the first request, for a key that is
    missing.
    """

    paid = True

    def __init__(self, spec: ModelSpec, access: Access) -> None:
        self._spec = spec
        self._access = access
        self.fingerprint = json.dumps([spec.model, spec.parameters], sort_keys=True)
        self._urls = access.base_urls or (spec.base_url,)
        for url in filter(None, self._urls):
            _check_url(url)
        self._terms = Terms()
        self._images = EncodedImages(CACHED_IMAGES)
        self._clients: list[openai.AsyncOpenAI] = []
        self._turn = itertools.count()

    async def start(self) -> None:
        if not self._clients:
            await asyncio.to_thread(self._connect)

    async def ask(self, prompt: Prompt) -> Reply:
        await self.start()
        client = self._clients[next(self._turn) % len(self._clients)]
        asked = parameters_of(self._spec, prompt)
        while True:
            sent = self._terms.sent(asked)
            body = await asyncio.to_thread(self._body, prompt, sent)
            started = time.perf_counter()
            try:
                # The client bounds the time between two bytes, which a slow drip never exceeds.
                answer = await asyncio.wait_for(
                    client.post("/chat/completions", content=body, cast_to=bytes),
                    self._access.timeout_s,
                )
            except Exception as error:
                if self._terms.refused(asked, sent, _refusal(error)):
                    continue
                raise _translated(error, self._spec, client, self._access.timeout_s) from None
            reply = read_completion(answer, time.perf_counter() - started)
            self._terms.accepted(sent)
            return replace(reply, changed=self._terms.changed(asked))

    async def close(self) -> None:
        await asyncio.gather(*(client.close() for client in self._clients))

    def _connect(self) -> None:
        if not self._clients:
            self._clients = [_client(self._spec, self._access, url) for url in self._urls]

    def _body(self, prompt: Prompt, sent: Parameters) -> bytes:
        """The request as JSON: the text, then the images in order; ``detail`` is each image's."""
        arguments = {"model": self._spec.model, **sent}
        detail = b""
        if "detail" in arguments:
            detail = b',"detail":%b' % json.dumps(arguments.pop("detail")).encode()
        text = json.dumps({"type": "text", "text": prompt.text}).encode()
        # A data URL holds nothing that JSON escapes: megabytes need no second look.
        images = (
            b',{"type":"image_url","image_url":{"url":"%b"%b}}'
            % (self._images.data_url(image), detail)
            for image in prompt.images
        )
        start = json.dumps(arguments).encode()[:-1]
        message = b',"messages":[{"role":"user","content":['
        return b"".join([start, message, text, *images, b"]}]}"])


def parameters_of(spec: ModelSpec, prompt: Prompt) -> Parameters:
    """What a request asks for beside the model and the messages.

    ``max_tokens`` of a model is the least that it gets: one that thinks before it answers needs
    more than the answer's strategy allows.
    """
    asked = dict(spec.parameters)
    asked["max_tokens"] = max(prompt.max_tokens, asked.get("max_tokens", 0))
    if prompt.repeat:
        asked["seed"] = prompt.repeat
    if prompt.top_logprobs:
        asked |= {"logprobs": True, "top_logprobs": prompt.top_logprobs}
    return asked


class EncodedImages:
    """Data URLs of image files; the latest used are kept, up to ``most`` bytes. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._kept: OrderedDict[Image, tuple[tuple[int, int], bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def data_url(self, image: Image) -> bytes:
        """The file's own bytes; `StimulusError` if they changed since the set was loaded."""
        try:
            state = os.stat(image.path)
        except OSError as error:
            raise StimulusError(f"{image.path}: {error.strerror} (it was there before)") from None
        stamp = (state.st_mtime_ns, state.st_size)
        with self._lock:
            if image in self._kept and self._kept[image][0] == stamp:
                self._kept.move_to_end(image)
                return self._kept[image][1]
        data = image.read()
        url = b"data:%b;base64,%b" % (image.mime.encode(), base64.b64encode(data))
        with self._lock:
            self._keep(image, stamp, url)
        return url

    def _keep(self, image: Image, stamp: tuple[int, int], url: bytes) -> None:
        if image in self._kept:
            self._size -= len(self._kept.pop(image)[1])
        self._kept[image] = (stamp, url)
        self._size += len(url)
        while self._size > self._most:
            self._size -= len(self._kept.popitem(last=False)[1][1])


def read_completion(body: bytes, latency_s: float) -> Reply:
    """Read the body of a completion, whatever it is; `TryAgain` for one that is none."""
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
        usage = answer.get("usage") or {}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise TryAgain("the body is not a chat completion") from None
    if isinstance(content, list):  # some endpoints answer in parts
        parts = (part.get("text") for part in content if isinstance(part, dict))
        content = "".join(text for text in parts if isinstance(text, str))
    text = storable(content or refusal or "")
    reason = storable(choice.get("finish_reason") or "stop")[:40]
    counted = usage if isinstance(usage, dict) else {}
    given = choice.get("logprobs")
    return Reply(
        text[:MAX_REPLY_CHARS],
        reason if len(text) <= MAX_REPLY_CHARS else "length",
        storable(answer.get("model") or "")[:200],
        _token_count(counted.get("prompt_tokens")),
        _token_count(counted.get("completion_tokens")),
        latency_s,
        time.time(),
        logprobs=pack(given.get("content") if isinstance(given, dict) else None),
    )


def _token_count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_TOKENS_COUNTED else None


def _check_url(url: str) -> None:
    """Raise `UsageError` unless ``url`` could be one of an endpoint."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in url or "?" in url:  # what stands there would show up in messages
        raise UsageError(
            f"--iqa-base-url {url.rpartition('@')[2].partition('?')[0]}: expected "
            "http://HOST:PORT/v1 or https://..., and a key in the environment"
        )


def check_key(spec: ModelSpec, access: Access) -> None:
    """`UsageError` where a URL of the model needs a key that the environment lacks."""
    for url in access.base_urls or (spec.base_url,):
        _api_key(spec, access, url)


def _api_key(spec: ModelSpec, access: Access, url: str) -> str:
    """The key for one URL. An endpoint of one's own may need none; a provider's does."""
    env = spec.api_key_env or access.api_key_env
    key = os.environ.get(env, "").strip()
    remote = bool(url) and url == spec.base_url and not _on_this_machine(url)
    if not key and (not url or remote):
        whose = f"the endpoint {url}" if url else "OpenAI's endpoint"
        raise UsageError(
            f"--model {spec.name} asks {whose} and needs a key: set {env}, "
            "or name another endpoint with --iqa-base-url URL"
        )
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"{env} holds characters that no key has: set it again")
    return key


def _client(spec: ModelSpec, access: Access, url: str) -> openai.AsyncOpenAI:
    import openai

    key = _api_key(spec, access, url)

    class Client(openai.DefaultAsyncHttpxClient):
        """Reads at most `MAX_BODY` of a response."""

        async def send(self, request: Any, *, stream: bool = False, **more: Any) -> Any:
            response = await super().send(request, stream=True, **more)
            return response if stream else await _bounded(response)

    timeout = openai.Timeout(access.timeout_s, connect=min(CONNECT_S, access.timeout_s), pool=None)
    return openai.AsyncOpenAI(
        api_key=key or NO_KEY,
        base_url=url or None,
        max_retries=0,
        timeout=timeout,
        # A proxy of the environment is for the world outside, and would answer for this machine.
        http_client=Client(timeout=timeout, trust_env=not _on_this_machine(url)),
    )


async def _bounded(response: Any) -> Any:
    """A response that has been read, as decoded; `RequestFailed` where it has no end."""
    body = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_BODY:
                raise RequestFailed(f"the response is longer than {MAX_BODY // 2**20} MiB")
    finally:
        await response.aclose()
    coded = ("content-encoding", "content-length", "transfer-encoding")
    headers = [(k, v) for k, v in response.headers.multi_items() if k.lower() not in coded]
    return type(response)(
        response.status_code,
        headers=headers,
        content=bytes(body),
        request=response.request,
        extensions=response.extensions,
    )


def _on_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _refusal(error: Exception) -> Any:
    """The body of an answer that may refuse a parameter, None of any other error."""
    import openai

    if isinstance(error, openai.APIStatusError) and error.status_code in (400, 422):
        return error.body
    return None


def _translated(
    error: Exception, spec: ModelSpec, client: openai.AsyncOpenAI, timeout_s: float
) -> Exception:
    """What the broker should do about an error of the client."""
    import openai

    url = str(client.base_url).rstrip("/")
    cause = error.__cause__ or error
    if isinstance(cause, IqaChecksError):
        return cause
    if isinstance(error, openai.APIStatusError):
        return _status_error(error, spec, url, client.api_key)
    if isinstance(error, (openai.APITimeoutError, asyncio.TimeoutError)):
        return TryAgain(f"{url} did not answer within {timeout_s:g} s (--iqa-timeout)")
    if isinstance(error, openai.APIConnectionError):
        return TryAgain(f"{url} cannot be reached ({str(cause) or type(cause).__name__})")
    if isinstance(error, (openai.OpenAIError, ValueError)):
        return TryAgain(f"{url} sent what cannot be read ({type(cause).__name__})")
    return error


def _status_error(error: openai.APIStatusError, spec: ModelSpec, url: str, key: str) -> Exception:
    status, said = error.status_code, _said(error, key)
    if status in (401, 402):  # 403 may be about this one image: some filters answer so
        return EndpointError(
            f"{url} refuses the key or the account (HTTP {status}: {said}); set a valid one"
        )
    if status == 404:
        return EndpointError(
            f"{url} does not know the model {spec.model!r} or the path (HTTP 404: {said}); "
            "check --model and --iqa-base-url, which mostly ends in /v1"
        )
    if status == 429 and getattr(error, "code", None) == "insufficient_quota":
        return EndpointError(f"{url}: the account's quota is spent ({said})")
    if status in (408, 409, 429) or status >= 500:
        return TryAgain(
            f"{url}: HTTP {status}: {said}",
            after_s=retry_after_s(error.response.headers),
            throttled=status in (429, 503),
        )
    return RequestFailed(f"{url} rejects the request (HTTP {status}: {said})")


def _said(error: openai.APIStatusError, key: str) -> str:
    """What the endpoint said, shortened; some repeat the key, which must not reach a log."""
    body = error.body
    text = str((isinstance(body, dict) and body.get("message")) or error.response.reason_phrase)
    return " ".join((text if key == NO_KEY else text.replace(key, "***")).split())[:300]


def retry_after_s(headers: Any) -> float | None:
    """Seconds that a response asks to wait: ``Retry-After`` as a number or an HTTP date."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit_s
        except ValueError:
            continue
        return seconds if 0 <= seconds < float("inf") else None
    try:
        at = parsedate_to_datetime(headers.get("retry-after", ""))
    except (ValueError, TypeError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=timezone.utc)
    return max(0.0, (at - datetime.now(timezone.utc)).total_seconds())
