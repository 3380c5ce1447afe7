"""A chat-completions endpoint on 127.0.0.1 that answers with a simulated observer.

For tests, demos and benchmarks: everything between `run_cell` and the wire runs as it does against
a real endpoint, and nothing is paid for.

    python -m iqa_checks.models.loopback observer:noise=5 --latency-ms 50

prints its base URL on the first line. It serves ``POST /v1/chat/completions`` (text, and images as
data URLs whose bytes must be what their MIME type says), ``GET /health`` and ``GET /stats``. The
request's ``seed`` draws the observer's noise anew, as ``repeat`` does in process: the same question
gets the same answer on both ways.

Tests start it in a thread (`LoopbackServer`) or as a process (`server_process`), and script what
goes wrong by request number, counted from 1:

    with LoopbackServer(faults={1: Fault("status", status=429, retry_after="2")}.get) as server:
        ...

It can be as choosy about parameters as real endpoints are (``refused``, ``most_logprobs``).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Literal, NamedTuple, cast

from iqa_checks.errors import IqaChecksError, UsageError
from iqa_checks.models import SIMULATED, find_model
from iqa_checks.models.observer import make_observer, token_logprobs

MAX_BODY = 256 * 2**20
READ_AHEAD = 4 * 2**20  # a request of several images in one read of the event loop
HUGE_REPLY_CHARS = 3_000_000
_MAGIC = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}

FaultKind = Literal[
    "status",  # answer with `status`, and Retry-After where `retry_after` is given
    "reset",  # reset the connection instead of an answer
    "stall",  # never answer
    "truncated",  # state a length and close half way
    "malformed",  # 200 and a body that is no JSON
    "not_utf8",  # 200 and a body that is no text
    "no_choices",  # 200 and a completion without choices
    "empty",  # 200 and an empty content
    "length",  # 200, cut off by max_tokens
    "content_filter",  # 200, cut off by a filter
    "huge",  # 200 and a content of three million characters
]


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request; ``retry_after`` is sent as it is (seconds or a date)."""

    kind: FaultKind
    status: int = 500
    retry_after: str = ""
    message: str = "injected fault"
    code: str | None = None


Form = Literal["openai", "fastapi", "google"]  # how endpoints put what they refuse

Faults = Callable[[int], Fault | None]


@dataclass(slots=True)
class Stats:
    """What the server has seen. ``distinct`` counts request bodies that differ.

    ``answered`` counts completions that were sent, faults left out; ``image_bytes`` is the
    sum over image parts, in bytes.
    """

    requests: int = 0
    distinct: int = 0
    answered: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0
    connections: int = 0
    image_parts: int = 0
    image_bytes: int = 0
    distinct_images: int = 0


class _Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class _Answer(NamedTuple):
    status: int
    body: bytes
    headers: tuple[str, ...] = ()


class _Rejected(Exception):
    """A request that gets an error in OpenAI's form, or with ``body`` as it is."""

    def __init__(
        self, status: int, message: str, code: str | None = None, *, param: str | None = None,
        body: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.body = body


class LoopbackServer:
    """The endpoint in a thread of this process; a context manager.

    Parameters
    ----------
    model
        A simulated model as ``--model`` takes it. Its name is the id that requests must state.
    port
        0 takes a free one.
    latency_s
        The least time from a request to its reply, in seconds.
    api_key
        Requests without it get HTTP 401; ``''`` asks for none.
    faults
        Request number (from 1) -> what goes wrong with it, or None.
    refused
        Parameters that it does not take; ``form`` is how it says so.
    most_logprobs
        The most alternatives a token that it gives; None ignores that they are asked for.
    digits
        Whether its tokens of a number are digits.

    Raises `UsageError` for a model that is not simulated and for a port that is taken.
    """

    def __init__(
        self,
        model: str = "observer",
        *,
        port: int = 0,
        latency_s: float = 0.0,
        api_key: str = "",
        faults: Faults = lambda _: None,
        refused: Sequence[str] = (),
        form: Form = "openai",
        most_logprobs: int | None = None,
        digits: bool = False,
    ) -> None:
        spec = find_model(model)
        if spec.provider not in SIMULATED:
            raise UsageError(f"{model} is no simulated model; known: {', '.join(SIMULATED)}")
        self.model = spec.model
        self.stats = Stats()
        self.images_seen: set[str] = set()  # SHA-256 of the bytes, in hexadecimal
        self._observer = make_observer(spec)
        self._port = port
        self._latency_s = latency_s
        self._api_key = api_key
        self._faults = faults
        self._refused = tuple(refused)
        self._form: Form = form
        self._most_logprobs = most_logprobs
        self._digits = digits
        self._bodies: set[bytes] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._started: threading.Event = threading.Event()
        self._failure: OSError | None = None

    @property
    def url(self) -> str:
        """The base URL, as ``--iqa-base-url`` takes it."""
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> LoopbackServer:
        self._thread = threading.Thread(target=lambda: asyncio.run(self.run()), daemon=True)
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise UsageError(f"port {self._port}: {self._failure.strerror}") from None
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(timeout=10)

    async def run(self) -> None:
        """Serve until the context ends."""
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        try:
            server = await asyncio.start_server(
                self._serve, "127.0.0.1", self._port, limit=READ_AHEAD, backlog=512
            )
        except OSError as error:
            self._failure = error
            self._started.set()
            return
        self._port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stopped.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        self.stats.connections += 1
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                while (request := await _read_request(reader, writer)) is not None:
                    if not await self._respond(request, reader, writer):
                        break
        except _Rejected as rejected:  # a request that cannot be read: nothing may follow it
            writer.write(_http(_error(rejected)))
        except asyncio.CancelledError:  # the server ends
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _respond(
        self, request: _Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; whether the connection may carry another."""
        if request.path != "/v1/chat/completions" or request.method != "POST":
            writer.write(_http(self._page(request)))
            await writer.drain()
            return True
        self._count(request.body)
        fault = self._faults(self.stats.requests)
        try:
            return await self._complete(request, fault, reader, writer)
        finally:
            self.stats.in_flight -= 1

    async def _complete(
        self,
        request: _Request,
        fault: Fault | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        if fault is not None and fault.kind == "stall":
            await reader.read()  # until the client gives up
            return False
        if fault is not None and fault.kind == "reset":
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        answer = await self._answer(request, fault)
        data = _http(answer)
        if fault is not None and fault.kind == "truncated":
            writer.write(data[: -len(answer.body) // 2])
            await writer.drain()
            return False
        self.stats.answered += answer.status == HTTPStatus.OK and fault is None
        writer.write(data)
        await writer.drain()
        return True

    def _count(self, body: bytes) -> None:
        self.stats.requests += 1
        self.stats.in_flight += 1
        self.stats.peak_in_flight = max(self.stats.peak_in_flight, self.stats.in_flight)
        self._bodies.add(hashlib.blake2b(body, digest_size=16).digest())
        self.stats.distinct = len(self._bodies)

    def _page(self, request: _Request) -> _Answer:
        pages: dict[str, Callable[[], dict[str, Any]]] = {
            "/health": lambda: {"status": "ok"},
            "/stats": lambda: asdict(self.stats),
        }
        page = pages.get(request.path)
        if page is None or request.method != "GET":
            return _error(_Rejected(404, f"no {request.method} {request.path} here"))
        return _Answer(200, json.dumps(page()).encode())

    async def _answer(self, request: _Request, fault: Fault | None) -> _Answer:
        try:
            if self._api_key and request.headers.get("authorization") != f"Bearer {self._api_key}":
                raise _Rejected(401, "Incorrect API key provided.", "invalid_api_key")
            if request.headers.get("content-type") != "application/json":
                raise _Rejected(415, "expected Content-Type: application/json")
            if fault is not None and fault.kind == "status":
                after = (f"Retry-After: {fault.retry_after}",) if fault.retry_after else ()
                rejected = _Rejected(fault.status, fault.message, fault.code)
                return _error(rejected)._replace(headers=after)
            pause = asyncio.create_task(asyncio.sleep(self._latency_s))
            completion = await asyncio.to_thread(self._completion, request.body)
            await pause
        except _Rejected as rejected:
            return _error(rejected)
        return _Answer(200, _spoilt(completion, fault))

    def _completion(self, body: bytes) -> dict[str, Any]:
        """Read the request, look at its images, reply; raises `_Rejected`."""
        try:
            asked = json.loads(body)
            model, messages = asked["model"], asked["messages"]
            parts = [part for message in messages for part in _parts(message["content"])]
            seed = int(asked.get("seed") or 0)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _Rejected(400, f"not a chat request: {error!r}") from None
        if model != self.model:
            raise _Rejected(404, f"The model '{model}' does not exist", "model_not_found")
        if asked.get("stream"):
            raise _Rejected(400, "this endpoint does not stream")
        self._check_parameters(asked, parts)
        text, images = _content(parts)
        self._saw(images)
        said = self._observer.say(text, images, repeat=seed)
        completion = _chat_completion(self.model, said.text, len(text) // 4 + 85 * len(images))
        if asked.get("logprobs") and self._most_logprobs is not None:
            content = token_logprobs(said, asked.get("top_logprobs") or 0, digits=self._digits)
            completion["choices"][0]["logprobs"] = {"content": content}
        return completion

    def _check_parameters(self, asked: dict[str, Any], parts: list[dict[str, Any]]) -> None:
        """Raise `_Rejected` for a parameter that this endpoint does not take."""
        detailed = any("detail" in (part.get("image_url") or ()) for part in parts)
        given = [*asked, *(["detail"] if detailed else [])]
        for name in self._refused:
            if name in given:
                raise _refusal_of(name, self._form)
        most, top = self._most_logprobs, asked.get("top_logprobs") or 0
        if most is not None and top > most:
            said = f"Invalid value for 'top_logprobs': must be less than or equal to {most}."
            raise _Rejected(400, said, param="top_logprobs")

    def _saw(self, images: list[bytes]) -> None:
        self.images_seen |= {hashlib.sha256(data).hexdigest() for data in images}
        self.stats.image_parts += len(images)
        self.stats.image_bytes += sum(map(len, images))
        self.stats.distinct_images = len(self.images_seen)


@contextmanager
def server_process(*arguments: str, env: dict[str, str] | None = None) -> Iterator[str]:
    """The endpoint as a process of its own, with the command line's arguments; yields its URL."""
    command = [sys.executable, "-m", "iqa_checks.models.loopback", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise UsageError(f"no server: {' '.join(command)} ended at once")
            yield url
        finally:
            process.kill()


def stats_at(url: str) -> Stats:
    """The counters of a server at base URL ``url``."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url.removesuffix("/v1") + "/stats", timeout=10) as response:
        return Stats(**json.load(response))


async def _read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> _Request | None:
    """The next request of a connection, None where the client has closed it."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    try:
        method, path, _ = first.split(" ")
        length = int(headers.get("content-length", "0"))
    except ValueError:
        raise _Rejected(400, f"cannot read the request line {first[:80]!r}") from None
    if "transfer-encoding" in headers or not 0 <= length <= MAX_BODY:
        raise _Rejected(413, f"expected Content-Length up to {MAX_BODY}")
    if headers.get("expect") == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return _Request(method, path.partition("?")[0], headers, await reader.readexactly(length))


def _parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _content(parts: list[dict[str, Any]]) -> tuple[str, list[bytes]]:
    """The text and the decoded images of a message's parts, in order."""
    texts, images = [], []
    for part in parts:
        try:
            if part["type"] == "text":
                texts.append(str(part["text"]))
            elif part["type"] == "image_url":
                images.append(_decoded(part["image_url"]["url"]))
            else:
                raise _Rejected(400, f"part of type {part['type']!r}: expected text or image_url")
        except (KeyError, TypeError) as error:
            raise _Rejected(400, f"cannot read a part of the message: {error!r}") from None
    return "\n".join(texts), images


def _decoded(url: str) -> bytes:
    """The bytes of a data URL, which must be an image of the MIME type it states."""
    head, comma, data = url.partition(",")
    mime = head.removeprefix("data:").removesuffix(";base64")
    if not comma or head != f"data:{mime};base64":
        raise _Rejected(400, f"image_url {head[:60]!r}: expected data:image/...;base64,...")
    if mime not in _MAGIC:
        raise _Rejected(400, f"{mime}: expected one of {', '.join(_MAGIC)}")
    try:
        image = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _Rejected(400, f"image_url: not base64 ({error})") from None
    webp = mime != "image/webp" or image[8:12] == b"WEBP"
    if not (image.startswith(_MAGIC[mime]) and webp):
        raise _Rejected(400, f"image_url: the bytes are no {mime}", "invalid_image_format")
    return image


def _chat_completion(model: str, reply: str, prompt_tokens: int) -> dict[str, Any]:
    """A completion in OpenAI's form; tokens are counted at four characters each."""
    completion_tokens = max(1, len(reply) // 4)
    return {
        "id": f"chatcmpl-{os.urandom(8).hex()}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": f"{model}-simulated",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": reply},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def _refusal_of(name: str, form: Form) -> _Rejected:
    """The refusal of a parameter as OpenAI, a FastAPI server or Google's endpoint words it."""
    if form == "fastapi":
        error: Any = {"type": "extra_forbidden", "loc": ["body", name],
                 "msg": "Extra inputs are not permitted"}  # fmt: skip
        return _Rejected(422, "Unprocessable Entity", body={"detail": [error]})
    if form == "google":
        message = f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
        error = {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}
        return _Rejected(400, message, body=[{"error": error}])
    if name == "temperature":
        message = (
            "Unsupported value: 'temperature' does not support 0 with this model. Only the "
            "default (1) value is supported."
        )
        return _Rejected(400, message, "unsupported_value", param=name)
    instead = " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
    message = f"Unsupported parameter: '{name}' is not supported with this model.{instead}"
    return _Rejected(400, message, "unsupported_parameter", param=name)


def _spoilt(completion: dict[str, Any], fault: Fault | None) -> bytes:
    """The body of a completion after ``fault``."""
    choice = completion["choices"][0]
    kind = fault.kind if fault is not None else None
    if kind == "no_choices":
        completion["choices"] = []
    elif kind == "empty":
        choice["message"]["content"] = ""
    elif kind == "huge":
        choice["message"]["content"] = "x" * HUGE_REPLY_CHARS
    elif kind in ("length", "content_filter"):
        choice["message"]["content"] = choice["message"]["content"][:3]
        choice["finish_reason"] = kind
    body = json.dumps(completion).encode()
    if kind == "malformed":
        return body[: len(body) // 2]
    if kind == "not_utf8":
        return b"\xff\xfe\x80" + body
    return body


def _error(rejected: _Rejected) -> _Answer:
    kind = "server_error" if rejected.status >= 500 else "invalid_request_error"
    said = {"message": str(rejected), "type": kind, "param": rejected.param, "code": rejected.code}
    body = {"error": said} if rejected.body is None else rejected.body
    return _Answer(rejected.status, json.dumps(body).encode())


def _http(answer: _Answer) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(answer.body)}",
        *answer.headers,
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + answer.body


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted; 2 for arguments that make no sense, as argparse has it."""
    parser = argparse.ArgumentParser(prog="python -m iqa_checks.models.loopback")
    parser.add_argument("model", nargs="?", default="observer", help="observer[:noise=5,...]")
    parser.add_argument("--port", type=int, default=0, help="0 (default) takes a free one")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="least time to a reply")
    parser.add_argument("--api-key-env", default="", help="variable with a key to ask for")
    parser.add_argument("--refuse", action="append", default=[], metavar="PARAMETER",
                        help="do not take this parameter, as some endpoints do not")  # fmt: skip
    parser.add_argument("--logprobs", type=int, metavar="N", help="give up to N alternatives")
    given = parser.parse_args(arguments)
    key = os.environ.get(given.api_key_env, "") if given.api_key_env else ""
    if given.api_key_env and not key:
        parser.error(f"--api-key-env {given.api_key_env}: not set")
    try:
        server = LoopbackServer(
            given.model,
            port=given.port,
            latency_s=given.latency_ms / 1000,
            api_key=key,
            refused=given.refuse,
            most_logprobs=given.logprobs,
        )
        with server:
            print(server.url, flush=True)
            threading.Event().wait()
    except IqaChecksError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
