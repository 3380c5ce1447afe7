"""The one way to a model in a run: it dedupes, limits, retries, stores, and stops on a dead end.

    run_cell ── Asker.ask(prompts) ──> Broker ──> ReplyStore
                                          └─────> Backend

A broker lives in one thread with an event loop. In the process of a plain pytest run `LocalAsker`
hands it prompts directly; under xdist it lives in the controller and the workers reach it as
`RemoteAsker` over loopback (`serve`, `connect`). Whatever the number of workers there is one
connection pool, one limit, one budget and one writer to the store.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import hmac
import json
import random
import socket
import struct
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from iqa_checks import errors
from iqa_checks.errors import (
    BudgetSpent,
    EndpointError,
    InfrastructureError,
    IqaChecksError,
    ReplyMissing,
    RequestFailed,
)
from iqa_checks.models import (
    Access,
    Backend,
    TryAgain,
    find_model,
    key_of,
    open_backend,
    request_of,
)
from iqa_checks.prompts import Prompt
from iqa_checks.replies import HEARTBEAT_S, Reply, ReplyStore, Stored
from iqa_checks.stimuli import Image

Policy = Literal["ask", "reuse", "replay"]
DEFAULT_STORE = ".iqa/replies.sqlite"
ATTEMPTS = 6
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
BACKLOG = 512  # eight workers that connect at once overflow the default of a small listener
MAX_FRAME = 256 * 2**20  # ten thousand prompts with long templates
PROBE_ATTEMPTS = 3  # nothing has answered yet: find out soon whether anything will


class Asker(Protocol):
    """What `run_cell` needs: replies to prompts, in their order."""

    def ask(self, prompts: Sequence[Prompt]) -> list[Reply]: ...


@dataclass(slots=True)
class Totals:
    """What a run has asked so far: replies by origin, tokens, retries."""

    new: int = 0
    resumed: int = 0
    reused: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    oldest_reused_at: float = 0.0

    def count(self, reply: Reply) -> None:
        setattr(self, reply.origin, getattr(self, reply.origin) + 1)
        if reply.origin == "new":
            self.prompt_tokens += reply.prompt_tokens or 0
            self.completion_tokens += reply.completion_tokens or 0
        else:
            known = self.oldest_reused_at or reply.created_at
            self.oldest_reused_at = min(known, reply.created_at)


class AdaptiveLimit:
    """How many requests may be under way at once: halved when throttled, then grown again."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.allowed = float(most)
        self._busy = 0
        self._free = asyncio.Condition()

    async def __aenter__(self) -> None:
        async with self._free:
            await self._free.wait_for(lambda: self._busy < int(self.allowed))
            self._busy += 1

    async def __aexit__(self, *_: object) -> None:
        async with self._free:
            self._busy -= 1
            self._free.notify_all()

    def throttled(self) -> None:
        self.allowed = max(1.0, self.allowed / 2)

    def succeeded(self) -> None:
        self.allowed = min(float(self.most), self.allowed + 1.0 / self.allowed)


class Broker:
    """Answers prompts from the store or the model. All methods run in one event loop.

    Parameters
    ----------
    policy
        'ask': only an interrupted run's own replies are used again; 'reuse': those of finished
        runs too; 'replay': nothing is asked, a missing reply is a `ReplyMissing`.
    concurrency
        The most requests under way at once.
    budget
        The most new requests, None for no bound.
    """

    def __init__(
        self,
        backend: Backend,
        store: ReplyStore,
        *,
        policy: Policy = "ask",
        concurrency: int = 32,
        budget: int | None = None,
    ) -> None:
        self.backend = backend
        self.store = store
        self.totals = Totals()
        self.fatal: IqaChecksError | None = None
        self._policy = policy
        self._limit = AdaptiveLimit(concurrency)
        self._budget = budget
        self._asked = 0
        self._answered = 0
        self._under_way: dict[str, asyncio.Future[Reply]] = {}
        self._replies: dict[str, Reply] = {}
        self._counted: set[str] = set()
        self._proven = asyncio.Event()
        self._probing = False
        self._outbox: asyncio.Queue[tuple[Stored, asyncio.Future[None]]] = asyncio.Queue()
        # One thread owns the store: SQLite connections are not shared and commits are in order.
        self._store_thread = concurrent.futures.ThreadPoolExecutor(1, "iqa-store")
        self._chores = [
            asyncio.create_task(self._write()),
            asyncio.create_task(self._keep_alive()),
        ]

    async def ask(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Replies in the order of ``prompts``; the first error of any of them is raised.

        Replies that arrive after that error are stored all the same.
        """
        requests = [request_of(prompt, self.backend.fingerprint) for prompt in prompts]
        keys = [key_of(request) for request in requests]
        unknown = [k for k in dict.fromkeys(keys) if k not in self._replies]
        stored = await self._in_store(
            self.store.lookup, unknown, finished_runs=self._policy != "ask"
        )
        self._replies |= stored
        futures = [
            self._future(prompt, request, key)
            for prompt, request, key in zip(prompts, requests, keys, strict=True)
        ]
        replies = await asyncio.gather(*futures, return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        return [reply for reply in replies if isinstance(reply, Reply)]

    async def close(self, *, finished: bool) -> None:
        """Store what is still on its way; ``finished`` closes the run's chapter in the store."""
        for future in list(self._under_way.values()):
            if not finished:
                future.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        await self._outbox.join()
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        if finished and self.fatal is None:
            await self._in_store(self.store.finish)
        await self._in_store(self.store.close)
        self._store_thread.shutdown()
        await self.backend.close()

    def _future(self, prompt: Prompt, request: dict[str, Any], key: str) -> asyncio.Future[Reply]:
        """One task per key: whoever asks the same while it is under way awaits the same task."""
        if key not in self._under_way:
            task = asyncio.ensure_future(self._answer(prompt, request, key))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return self._under_way[key]

    async def _answer(self, prompt: Prompt, request: dict[str, Any], key: str) -> Reply:
        if self.fatal is not None:
            raise self.fatal
        if key in self._replies:
            return self._counted_once(key, self._replies[key])
        if self._policy == "replay":
            near = await self._in_store(self.store.nearest, request)
            raise ReplyMissing(
                f"no stored reply to a request of {prompt.template}: {near}; "
                "ask the model (leave --iqa-replay out) or give the store of that run"
            )
        reply = await self._ask_model(prompt)
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outbox.put_nowait((Stored(key, request, prompt.text, reply), kept))
        await kept
        self._replies[key] = reply
        return self._counted_once(key, reply)

    def _counted_once(self, key: str, reply: Reply) -> Reply:
        if key not in self._counted:
            self._counted.add(key)
            self.totals.count(reply)
        return reply

    async def _ask_model(self, prompt: Prompt) -> Reply:
        """Ask within the limit. The first request goes alone: it tries the endpoint."""
        if not self._probing:
            self._probing = True
            try:
                return await self._attempts(prompt, probe=True)
            finally:
                self._proven.set()
        await self._proven.wait()
        return await self._attempts(prompt, probe=False)

    async def _attempts(self, prompt: Prompt, *, probe: bool) -> Reply:
        answered_before = self._answered
        self._spend()
        attempts = PROBE_ATTEMPTS if probe else ATTEMPTS
        for attempt in range(1, attempts + 1):
            if self.fatal is not None:
                raise self.fatal
            try:
                async with self._limit:
                    reply = await self.backend.ask(prompt)
            except TryAgain as error:
                failure = error
                if error.throttled:
                    self._limit.throttled()
            except EndpointError as error:
                raise self._end(error) from None
            except RequestFailed as error:
                if probe:  # an endpoint that rejects the very first request rejects them all
                    raise self._end(EndpointError(str(error))) from None
                raise
            else:
                self._limit.succeeded()
                self._answered += 1
                return reply
            if attempt < attempts:
                self.totals.retries += 1
                await asyncio.sleep(_wait_s(attempt, failure))
        message = f"gave up after {attempts} attempts: {failure}"
        if self._answered == answered_before:  # nobody else got through in the meantime either
            raise self._end(EndpointError(message))
        raise RequestFailed(f"{prompt.template}: {message}")

    def _spend(self) -> None:
        if self._budget is not None and self._asked >= self._budget:
            raise self._end(
                BudgetSpent(
                    f"the budget of {self._budget} new requests is spent (--iqa-budget); "
                    "run again with a larger one: the replies so far are kept"
                )
            )
        self._asked += 1

    def _end(self, error: InfrastructureError) -> InfrastructureError:
        if self.fatal is None:
            self.fatal = error
        return error

    async def _write(self) -> None:
        """Commit replies in batches: whatever has arrived while the last commit went on."""
        while True:
            batch = [await self._outbox.get()]
            while not self._outbox.empty():
                batch.append(self._outbox.get_nowait())
            try:
                await self._in_store(self.store.add, [stored for stored, _ in batch])
                failure = None
            except IqaChecksError as error:
                failure = self.fatal = error
            for _, kept in batch:
                if not kept.done():
                    kept.set_result(None) if failure is None else kept.set_exception(failure)
                self._outbox.task_done()

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            await self._in_store(self.store.heartbeat)

    async def _in_store(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._store_thread, lambda: call(*args, **kwargs))


def _wait_s(attempt: int, failure: TryAgain) -> float:
    """Seconds until the next attempt: what the endpoint asked for, or doubling with jitter."""
    if failure.after_s is not None:
        return min(failure.after_s, LONGEST_WAIT_S)
    return min(FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S) * random.uniform(0.5, 1.0)


class LocalAsker:
    """A broker in a thread of this process, asked from any other thread."""

    def __init__(self, make: Callable[[], Broker]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="iqa-broker")
        self._thread.daemon = True
        self._thread.start()
        self._server: asyncio.Server | None = None

        async def build() -> Broker:
            return make()

        try:
            self.broker = self._run(build())
        except BaseException:
            self._stop_loop()
            raise

    def ask(self, prompts: Sequence[Prompt]) -> list[Reply]:
        return self._run(self.broker.ask(prompts))

    def listen(self, key: str) -> int:
        """Accept workers on a loopback port, which is returned; they must know ``key``."""
        self._server = self._run(serve(self.broker, key))
        return int(self._server.sockets[0].getsockname()[1])

    def close(self, *, finished: bool) -> None:
        if self._server is not None:
            self._loop.call_soon_threadsafe(self._server.close)
        try:
            self._run(self.broker.close(finished=finished))
        finally:
            self._stop_loop()

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)


def open_asker(
    model: str,
    *,
    store: str = DEFAULT_STORE,
    access: Access | None = None,
    identity: str = "",
    fresh: bool = False,
    policy: Policy = "ask",
    concurrency: int = 32,
    budget: int | None = None,
) -> LocalAsker:
    """A broker for ``model`` (as ``--model`` takes it) in this process.

    ``identity`` and the model's fingerprint decide which interrupted run this one continues;
    ``fresh`` continues none.
    """
    backend = open_backend(find_model(model), access or Access())
    same_run = hashlib.sha256(f"{backend.fingerprint}\n{identity}".encode()).hexdigest()
    replies = ReplyStore(store, identity=same_run, model=model, fresh=fresh)
    return LocalAsker(
        lambda: Broker(backend, replies, policy=policy, concurrency=concurrency, budget=budget)
    )


# The wire between workers and the broker: a 4-byte length, then JSON. Images travel as path and
# hash, since all workers are on this machine.


async def serve(broker: Broker, key: str) -> asyncio.Server:
    """Answer workers on 127.0.0.1; a connection that does not open with ``key`` is closed."""

    async def on_worker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, ValueError):
            hello = await _read_frame(reader, limit=1024)
            if not hmac.compare_digest(str(hello.get("key", "")).encode(), key.encode()):
                writer.close()
                return
            while True:
                frame = await _read_frame(reader)
                writer.write(_frame(await _answer_frame(broker, frame)))
                await writer.drain()
        writer.close()

    return await asyncio.start_server(on_worker, "127.0.0.1", 0, backlog=BACKLOG)


class RemoteAsker:
    """A worker's connection to the broker in the controller."""

    def __init__(self, port: int, key: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.settimeout(None)
        self._socket.sendall(_frame({"key": key}))
        self._lock = threading.Lock()

    def ask(self, prompts: Sequence[Prompt]) -> list[Reply]:
        with self._lock:
            try:
                self._socket.sendall(_frame({"prompts": [_packed(p) for p in prompts]}))
                answer = json.loads(self._receive(struct.unpack("!I", self._receive(4))[0]))
            except OSError as error:
                raise EndpointError(
                    f"the controller's broker is gone ({error}); see the controller's output"
                ) from None
        if "error" in answer:
            raise _error_named(answer["error"], answer["message"])
        return [Reply(**reply) for reply in answer["replies"]]

    def close(self) -> None:
        self._socket.close()

    def _receive(self, size: int) -> bytes:
        chunks = bytearray()
        while len(chunks) < size:
            chunk = self._socket.recv(min(size - len(chunks), 2**20))
            if not chunk:
                raise ConnectionError("connection closed")
            chunks += chunk
        return bytes(chunks)


async def _answer_frame(broker: Broker, frame: dict[str, Any]) -> dict[str, Any]:
    try:
        replies = await broker.ask([_unpacked(prompt) for prompt in frame["prompts"]])
    except IqaChecksError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except Exception as error:
        traceback.print_exc()  # ours to mend; the worker gets one line, and the run an error
        return {"error": "IqaChecksError", "message": f"broker failed: {error!r}"}
    return {"replies": [asdict(reply) for reply in replies]}


def _error_named(name: str, message: str) -> IqaChecksError:
    known = getattr(errors, name, IqaChecksError)
    error = IqaChecksError.__new__(known)
    Exception.__init__(error, message)
    return error


async def _read_frame(reader: asyncio.StreamReader, limit: int = MAX_FRAME) -> dict[str, Any]:
    (size,) = struct.unpack("!I", await reader.readexactly(4))
    if size > limit:
        raise ValueError(f"frame of {size} bytes")
    frame = json.loads(await reader.readexactly(size))
    if not isinstance(frame, dict):
        raise ValueError("frame is not an object")
    return frame


def _frame(message: dict[str, Any]) -> bytes:
    data = json.dumps(message, separators=(",", ":")).encode()
    return struct.pack("!I", len(data)) + data


def _packed(prompt: Prompt) -> dict[str, Any]:
    images = [{**asdict(image), "path": str(image.path)} for image in prompt.images]
    return {**asdict(prompt), "images": images}


def _unpacked(frame: dict[str, Any]) -> Prompt:
    images = tuple(Image(**{**image, "path": Path(image["path"])}) for image in frame["images"])
    return replace(Prompt(**{**frame, "images": ()}), images=images)
