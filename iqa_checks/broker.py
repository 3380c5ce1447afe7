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
import itertools
import json
import random
import socket
import struct
import threading
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from iqa_checks import errors
from iqa_checks.errors import (
    BudgetSpent,
    EndpointError,
    InfrastructureError,
    IqaChecksError,
    ReplyMissing,
    RequestFailed,
    StoreError,
    UsageError,
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
_T = TypeVar("_T")
DEFAULT_STORE = ".iqa/replies.sqlite"
ATTEMPTS = 6
THROTTLED_ATTEMPTS = 10  # about five minutes: quotas are per minute
PROBE_ATTEMPTS = 3  # nothing has answered yet: find out soon whether anything will
PROBE_PATIENCE_S = 60.0  # nor try again once the first request has hung that long
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
LONGEST_ASKED_WAIT_S = 300.0  # an endpoint that wants more has ended the run
GRACE_S = 15.0  # for requests on the wire when a run ends early: they are paid for
BACKLOG = 512  # eight workers that connect at once overflow the default of a small listener
GOODBYE = {"goodbye": True}
MAX_FRAME = 256 * 2**20  # ten thousand prompts with long templates


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
    """How many requests may be under way at once: halved when throttled, then grown again.

    First come, first served. Nobody is let in while the endpoint wants to be left alone.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.allowed = float(most)
        self._busy = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._lowered_at = self._closed_until = float("-inf")

    async def __aenter__(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def throttled(self, sent_at: float, after_s: float | None) -> None:
        """A request sent at ``sent_at`` (seconds, loop time) was turned away.

        Requests that were under way together count once. ``after_s`` holds everybody back.
        """
        loop = asyncio.get_running_loop()
        if sent_at > self._lowered_at:
            self._lowered_at = loop.time()
            self.allowed = max(1.0, self.allowed / 2)
        if after_s:
            self._closed_until = max(self._closed_until, loop.time() + after_s)
            loop.call_at(self._closed_until, self._admit)

    def succeeded(self) -> None:
        self.allowed = min(float(self.most), self.allowed + 1.0 / self.allowed)

    def _leave(self) -> None:
        self._busy -= 1
        self._admit()

    def _admit(self) -> None:
        if asyncio.get_running_loop().time() < self._closed_until:
            return
        while self._queue and self._busy < int(self.allowed):
            turn = self._queue.popleft()
            if not turn.done():
                self._busy += 1
                turn.set_result(None)


class Broker:
    """Answers prompts from the store or the model. All methods run in one event loop.

    ``fatal`` is the error that ended the run, None while it goes on.

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
        self._complete = True
        self._under_way: dict[str, asyncio.Task[Reply]] = {}
        self._paid: set[asyncio.Task[Any]] = set()  # on the wire, or answered and not yet stored
        self._replies: dict[str, Reply] = {}
        self._counted: set[str] = set()
        self._first = asyncio.Lock()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outbox: asyncio.Queue[tuple[Stored, asyncio.Future[None]]] = asyncio.Queue()
        # One thread owns the store: SQLite connections are not shared and commits are in order.
        self._store_thread = concurrent.futures.ThreadPoolExecutor(1, "iqa-store")
        self._chores = [
            asyncio.create_task(self._write()),
            asyncio.create_task(self._keep_alive()),
        ]

    async def ask(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Replies in the order of ``prompts``; the first error of any of them is raised.

        An error of one request is raised when the others have settled, the end of the run at
        once. Replies that arrive after it are stored all the same.
        """
        try:
            return await self._ask(prompts)
        except BaseException:
            self.lack()
            raise

    def lack(self) -> None:
        """Some cell did not get its replies: the next run shall take the others over."""
        self._complete = False

    async def close(self, *, finished: bool) -> None:
        """Store what is still on its way; ``finished`` closes the run's chapter in the store.

        A run in which a request failed is not finished: the next one takes its replies over.
        A store that fails now is told by ``fatal``.
        """
        finished = finished and self._complete and self.fatal is None
        self._stop()
        if self._paid:
            await asyncio.wait(self._paid, timeout=GRACE_S)
        for task in list(self._under_way.values()):
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        await self._outbox.join()
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        try:
            if finished:
                await self._in_store(self.store.finish, list(self._counted))
            await self._in_store(self.store.close)
        except StoreError as error:
            self.fatal = self.fatal or error
        self._store_thread.shutdown()
        await self.backend.close()

    async def _ask(self, prompts: Sequence[Prompt]) -> list[Reply]:
        requests = [request_of(prompt, self.backend.fingerprint) for prompt in prompts]
        keys = [key_of(request) for request in requests]
        await self._look_up([k for k in dict.fromkeys(keys) if k not in self._replies])
        asked = dict(zip(keys, zip(prompts, requests, strict=True), strict=True))
        missing = [k for k in asked if k not in self._replies]
        if missing and self._policy == "replay":
            raise await self._missed(len(missing), len(asked), *asked[missing[0]])
        if missing:
            self._check_open()
            await self._settled([self._task(key, *asked[key]) for key in missing])
        return [self._counted_once(key, self._replies[key]) for key in keys]

    async def _look_up(self, keys: list[str]) -> None:
        finished_runs = self._policy != "ask"
        try:
            found = await self._in_store(self.store.lookup, keys, finished_runs=finished_runs)
        except StoreError as error:
            raise self._end(error) from None
        for key, reply in found.items():
            self._replies.setdefault(key, reply)

    async def _missed(
        self, n_missing: int, n_asked: int, prompt: Prompt, request: dict[str, Any]
    ) -> ReplyMissing:
        near = await self._in_store(self.store.nearest, request)
        return ReplyMissing(
            f"{n_missing} of {n_asked} requests have no stored reply; "
            f"the first is of {_shown(prompt)}: {near}; "
            "ask the model (leave --iqa-replay out) or give the store of that run"
        )

    async def _settled(self, tasks: list[asyncio.Task[Reply]]) -> None:
        """Wait for all, or until the run ends; raise the first error in order."""
        everything = asyncio.gather(*tasks, return_exceptions=True)
        either: set[asyncio.Future[Any]] = {everything, self._ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not everything.done():
            self._check_open()
        for outcome in everything.result():
            if isinstance(outcome, BaseException):
                self._check_open()  # what ended the run says more than a cancelled request
                raise outcome

    def _task(self, key: str, prompt: Prompt, request: dict[str, Any]) -> asyncio.Task[Reply]:
        """One task per key: whoever asks the same while it is under way awaits the same task."""
        if key not in self._under_way:
            task = asyncio.ensure_future(self._answer(prompt, request, key))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._forget(key, task))
        return self._under_way[key]

    def _forget(self, key: str, task: asyncio.Task[Reply]) -> None:
        self._under_way.pop(key, None)
        self._paid.discard(task)

    async def _answer(self, prompt: Prompt, request: dict[str, Any], key: str) -> Reply:
        reply = await self._ask_model(prompt)
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outbox.put_nowait((Stored(key, request, prompt.text, reply), kept))
        await kept
        self._replies[key] = reply
        return reply

    def _counted_once(self, key: str, reply: Reply) -> Reply:
        if key not in self._counted:
            self._counted.add(key)
            self.totals.count(reply)
        return reply

    async def _ask_model(self, prompt: Prompt) -> Reply:
        """Ask within the limit. Until something was answered requests go alone: they probe."""
        if not self._answered:
            async with self._first:
                if not self._answered:
                    await self._start()
                    return await self._attempts(prompt)
        return await self._attempts(prompt)

    async def _start(self) -> None:
        """Get the model ready; what keeps it from that ends the run."""
        self._check_open()
        try:
            await self.backend.start()
        except IqaChecksError as error:
            raise self._end(error) from None

    async def _attempts(self, prompt: Prompt) -> Reply:
        self._check_open()
        self._spend()
        loop = asyncio.get_running_loop()
        answered_before, began = self._answered, loop.time()
        for attempt in itertools.count(1):
            try:
                return await self._attempt(prompt)
            except TryAgain as error:
                failure = error
            if attempt >= self._most_attempts(failure, loop.time() - began):
                break
            self.totals.retries += 1
            await self._pause(attempt, failure)
        times = "1 attempt" if attempt == 1 else f"{attempt} attempts"
        if self._answered == answered_before:  # nobody else got through in the meantime either
            raise self._end(EndpointError(f"gave up after {times}: {failure}"))
        raise RequestFailed(f"{_shown(prompt)}: gave up after {times}: {failure}")

    async def _attempt(self, prompt: Prompt) -> Reply:
        async with self._limit:
            self._check_open()
            task: Any = asyncio.current_task()
            self._paid.add(task)
            sent_at = asyncio.get_running_loop().time()
            try:
                reply = await self.backend.ask(prompt)
            except BaseException as error:
                self._paid.discard(task)
                raise self._understood(error, prompt, sent_at) from None
            self._limit.succeeded()
            self._answered += 1
            return reply

    def _understood(self, error: BaseException, prompt: Prompt, sent_at: float) -> BaseException:
        """What a failure of the backend means for the run."""
        if isinstance(error, TryAgain) and error.throttled:
            self._limit.throttled(sent_at, error.after_s)
        if isinstance(error, (EndpointError, UsageError)):
            return self._end(error)
        if isinstance(error, RequestFailed):
            if not self._answered:  # one that rejects the very first request rejects them all
                return self._end(EndpointError(f"{error} (the run's first request)"))
            return RequestFailed(f"{_shown(prompt)}: {error}")
        return error

    def _most_attempts(self, failure: TryAgain, passed_s: float) -> int:
        if failure.throttled:
            return THROTTLED_ATTEMPTS
        if self._answered:
            return ATTEMPTS
        return PROBE_ATTEMPTS if passed_s < PROBE_PATIENCE_S else 0

    async def _pause(self, attempt: int, failure: TryAgain) -> None:
        """Wait for the next attempt: as long as the endpoint asked for, at least doubling.

        Ends early, with its error, when the run ends.
        """
        wait_s = min(FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S) * random.uniform(0.5, 1.0)
        wait_s = max(wait_s, failure.after_s or 0.0)
        if wait_s > LONGEST_ASKED_WAIT_S:
            raise self._end(
                EndpointError(
                    f"the endpoint wants no request for {wait_s:.0f} s ({failure}); "
                    "run again after that: the replies so far are kept"
                )
            )
        await asyncio.wait({self._ended}, timeout=wait_s)
        self._check_open()

    def _spend(self) -> None:
        if self._budget is not None and self._asked >= self._budget:
            raise self._end(
                BudgetSpent(
                    f"the budget of {self._budget} new requests is spent (--iqa-budget); "
                    "run again with a larger one: the replies so far are kept"
                )
            )
        self._asked += 1

    def _end(self, error: IqaChecksError) -> IqaChecksError:
        """End the run with ``error``; of several the first stands."""
        if self.fatal is None:
            self.fatal = error
        self._stop()
        return self.fatal

    def _stop(self) -> None:
        """Send nothing more. What is on the wire or not yet stored goes on."""
        if not self._ended.done():
            self._ended.set_result(None)
        for task in self._under_way.values():
            if task not in self._paid and task is not asyncio.current_task():
                task.cancel()

    def _check_open(self) -> None:
        if self.fatal is not None:
            raise self.fatal
        if self._ended.done():
            raise InfrastructureError("the run was ended before this request was answered")

    async def _write(self) -> None:
        """Commit replies in batches: whatever has arrived while the last commit went on."""
        while True:
            batch = [await self._outbox.get()]
            while not self._outbox.empty():
                batch.append(self._outbox.get_nowait())
            failure: IqaChecksError | None = None
            try:
                await self._in_store(self.store.add, [stored for stored, _ in batch])
            except Exception as error:  # whatever it is: a dead writer would hang the run
                known = error if isinstance(error, StoreError) else None
                failure = self._end(known or StoreError(f"a reply could not be kept: {error!r}"))
            for _, kept in batch:
                if not kept.done():
                    kept.set_result(None) if failure is None else kept.set_exception(failure)
                self._outbox.task_done()

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            with suppress(StoreError):  # a broken store shows when a reply has to be kept
                await self._in_store(self.store.heartbeat)

    async def _in_store(self, call: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._store_thread, lambda: call(*args, **kwargs))


def _shown(prompt: Prompt) -> str:
    """A prompt in a message: its wording and its last images, which are those under test."""
    names = [image.path.name for image in prompt.images[-4:]]
    return f"{prompt.template} ({', '.join(names)})" if names else prompt.template


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
        """Store what is on its way and stop; see `Broker.close`. Interrupted, it stops at once."""
        if self._server is not None:
            self._loop.call_soon_threadsafe(self._server.close)
        try:
            self._run(self.broker.close(finished=finished))
            self._run(_cancel_the_rest())
        finally:
            self._stop_loop()

    def _run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        if not self._thread.is_alive():
            self._loop.close()


async def _cancel_the_rest() -> None:
    """Workers' connections: nobody answers them any more."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


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
        gone = (OSError, asyncio.IncompleteReadError, ValueError, RecursionError)
        welcome = False
        with suppress(*gone, asyncio.CancelledError):
            hello = await _read_frame(reader, limit=1024)
            welcome = hmac.compare_digest(str(hello.get("key", "")).encode(), key.encode())
            refusal = {"error": "UsageError", "message": "the run's broker refuses this key"}
            writer.write(_frame({} if welcome else refusal))
            while welcome:
                frame = await _read_frame(reader)
                if frame == GOODBYE:
                    welcome = False
                    break
                writer.write(await _answer_frame(broker, frame))
                await writer.drain()
        if welcome:  # it left without a word: it died, perhaps in the middle of a cell
            broker.lack()
        writer.close()

    return await asyncio.start_server(on_worker, "127.0.0.1", 0, backlog=BACKLOG)


class RemoteAsker:
    """A worker's connection to the broker in the controller.

    Raises `EndpointError` where nobody listens, `UsageError` where ``key`` is refused.
    """

    def __init__(self, port: int, key: str) -> None:
        self._lock = threading.Lock()
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        except OSError as error:
            raise _broker_gone(error) from None
        self._exchange({"key": key})
        self._socket.settimeout(None)

    def ask(self, prompts: Sequence[Prompt]) -> list[Reply]:
        answer = self._exchange({"prompts": [_packed(prompt) for prompt in prompts]})
        return [Reply(**reply) for reply in answer["replies"]]

    def close(self) -> None:
        with suppress(OSError):
            self._socket.sendall(_frame(GOODBYE))
        self._socket.close()

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            try:
                self._socket.sendall(_frame(message))
                answer = json.loads(self._receive(struct.unpack("!I", self._receive(4))[0]))
            except OSError as error:
                raise _broker_gone(error) from None
        if "error" in answer:
            raise error_named(answer["error"], answer["message"])
        return dict(answer)

    def _receive(self, size: int) -> bytes:
        chunks = bytearray()
        while len(chunks) < size:
            chunk = self._socket.recv(min(size - len(chunks), 2**20))
            if not chunk:
                raise ConnectionError("connection closed")
            chunks += chunk
        return bytes(chunks)


async def _answer_frame(broker: Broker, frame: dict[str, Any]) -> bytes:
    try:
        replies = await broker.ask([_unpacked(prompt) for prompt in frame["prompts"]])
        return _frame({"replies": [asdict(reply) for reply in replies]})
    except IqaChecksError as error:
        return _frame({"error": type(error).__name__, "message": str(error)})
    except Exception as error:
        traceback.print_exc()  # ours to mend; the worker gets one line, and the run an error
        return _frame({"error": "IqaChecksError", "message": f"broker failed: {error!r}"})


def _broker_gone(error: OSError) -> EndpointError:
    return EndpointError(f"the controller's broker is gone ({error}); see the controller's output")


def error_named(name: str, message: str) -> IqaChecksError:
    """An error that crossed a process boundary by the name of its class; unknown ones as base."""
    known: type[IqaChecksError] = getattr(errors, name, IqaChecksError)
    error = known.__new__(known)  # some build their message from other arguments
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
    if len(data) > MAX_FRAME:
        raise InfrastructureError(
            f"a cell asks or answers {len(data) / 2**20:.0f} MiB at once, more than "
            f"{MAX_FRAME / 2**20:.0f}: split its stimuli (--iqa-limit)"
        )
    return struct.pack("!I", len(data)) + data


def _packed(prompt: Prompt) -> dict[str, Any]:
    images = [{**asdict(image), "path": str(image.path)} for image in prompt.images]
    return {**asdict(prompt), "images": images}


def _unpacked(frame: dict[str, Any]) -> Prompt:
    images = tuple(Image(**{**image, "path": Path(image["path"])}) for image in frame["images"])
    return replace(Prompt(**{**frame, "images": ()}), images=images)
