"""The broker against a real endpoint on loopback: every way to fail, and what is asked again."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from iqa_checks import broker as broker_module
from iqa_checks.broker import AdaptiveLimit, LocalAsker, RemoteAsker, open_asker
from iqa_checks.errors import (
    BudgetSpent,
    EndpointError,
    InfrastructureError,
    IqaChecksError,
    ReplyMissing,
    RequestFailed,
    StimulusError,
    StoreError,
    UsageError,
)
from iqa_checks.models import Access
from iqa_checks.models.loopback import Fault, LoopbackServer
from iqa_checks.prompts import Prompt
from iqa_checks.stimuli import Image

TEXT = "Images, in order: image 1 is the test image. Reply with one line:\nScore: N"
KEY_ENV = "IQA_CHECKS_TEST_KEY"
Open = Callable[..., LocalAsker]


def image_at(path: Path, shade: int = 90) -> Image:
    PIL.Image.new("RGB", (16, 12), (shade % 256, shade // 256, 70)).save(path)
    return Image(path, hashlib.sha256(path.read_bytes()).hexdigest(), "image/png", 16, 12)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return image_at(tmp_path / "stimulus.png")


def prompts(image: Image, n: int, start: int = 0) -> list[Prompt]:
    return [
        Prompt(TEXT, (image,), "rating", 1, 0, "standard/single_nr", 64, repeat=start + k + 1)
        for k in range(n)
    ]


@pytest.fixture
def open_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens askers on one store; those that a test leaves open end as if interrupted."""
    monkeypatch.setattr(broker_module, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(broker_module, "GRACE_S", 1.0)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    opened: list[LocalAsker] = []

    def start(url: str, *, timeout_s: float = 5.0, **more: Any) -> LocalAsker:
        access = Access((url,), timeout_s=timeout_s)
        more = {"store": str(tmp_path / "replies.sqlite"), "access": access, **more}
        opened.append(open_asker("openai:observer", **more))
        return opened[-1]

    yield start
    for asker in opened:
        if asker._thread.is_alive():
            asker.close(finished=False)


def refused_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


# --- what is asked, and how often ---------------------------------------------------------------


def test_one_question_is_asked_once_by_many_askers(open_run: Open, image: Image) -> None:
    with LoopbackServer("observer", latency_s=0.1) as server:
        asker = open_run(server.url)
        port = asker.listen("key")
        same = prompts(image, 5)

        def ask(_: int) -> list[str]:
            return [reply.text for reply in RemoteAsker(port, "key").ask(same)]

        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(ask, range(6)))
        assert all(answer == answers[0] for answer in answers)
        assert server.stats.requests == 5
        assert asker.broker.totals.new == 5


def test_sends_the_files_own_bytes(open_run: Open, image: Image) -> None:
    with LoopbackServer() as server:
        open_run(server.url).ask(prompts(image, 2))
        assert server.images_seen == {image.sha256}


def test_an_interrupted_run_is_continued_and_a_finished_one_is_not(
    open_run: Open, image: Image
) -> None:
    with LoopbackServer() as server:
        first = open_run(server.url)
        before = [reply.text for reply in first.ask(prompts(image, 4))]
        first.close(finished=False)
        second = open_run(server.url)
        after = second.ask(prompts(image, 6))
        assert [reply.origin for reply in after] == ["resumed"] * 4 + ["new"] * 2
        assert [reply.text for reply in after[:4]] == before
        assert server.stats.requests == 6
        second.close(finished=True)
        third = open_run(server.url)
        assert {reply.origin for reply in third.ask(prompts(image, 6))} == {"new"}
        assert server.stats.requests == 12


def test_one_cell_finished_by_itself_leaves_the_rest_of_an_interrupted_run(
    open_run: Open, image: Image
) -> None:
    with LoopbackServer() as server:
        for n, finished in ((6, False), (2, True), (6, False)):
            asker = open_run(server.url)
            replies = asker.ask(prompts(image, n))
            asker.close(finished=finished)
        assert [reply.origin for reply in replies] == ["new"] * 2 + ["resumed"] * 4
        assert server.stats.requests == 8


def test_a_run_that_goes_on_keeps_its_replies_to_itself(open_run: Open, image: Image) -> None:
    with LoopbackServer() as server:
        first, second = open_run(server.url), open_run(server.url, policy="ask")
        first.ask(prompts(image, 3))
        assert {reply.origin for reply in second.ask(prompts(image, 3))} == {"new"}
        third = open_run(server.url, policy="reuse")
        assert {reply.origin for reply in third.ask(prompts(image, 3))} == {"new"}
        assert server.stats.requests == 9


def test_another_seed_is_another_run(open_run: Open, image: Image) -> None:
    with LoopbackServer() as server:
        open_run(server.url, identity="seed 0").ask(prompts(image, 1))
        other = open_run(server.url, identity="seed 1")
        assert other.ask(prompts(image, 1))[0].origin == "new"


def test_two_runs_on_one_store_at_once(open_run: Open, image: Image) -> None:
    with LoopbackServer(latency_s=0.01) as server:
        runs = [open_run(server.url, identity=str(k)) for k in range(3)]
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda run: run.ask(prompts(image, 40)), runs))
        assert [len(answer) for answer in answers] == [40] * 3
        for run in runs:
            run.close(finished=True)
        assert server.stats.requests == 120


def test_a_reply_is_in_the_store_before_anybody_sees_it(
    open_run: Open, image: Image, tmp_path: Path
) -> None:
    with LoopbackServer() as server:
        asker = open_run(server.url)
        asker.ask(prompts(image, 3))
        with sqlite3.connect(tmp_path / "replies.sqlite") as other:
            assert other.execute("SELECT count(*) FROM replies").fetchone() == (3,)


# --- replay -------------------------------------------------------------------------------------


def test_replay_asks_nothing_and_needs_neither_endpoint_nor_key(
    open_run: Open, image: Image
) -> None:
    with LoopbackServer() as server:
        first = open_run(server.url)
        texts = [reply.text for reply in first.ask(prompts(image, 4))]
        first.close(finished=True)
    replay = open_run("", policy="replay", access=Access())
    replies = replay.ask(prompts(image, 4))
    assert [reply.text for reply in replies] == texts
    assert {reply.origin for reply in replies} == {"reused"}
    assert replay.broker.totals.new == 0


def test_a_miss_in_a_replay_names_the_nearest_request(
    open_run: Open, image: Image, tmp_path: Path
) -> None:
    with LoopbackServer() as server:
        first = open_run(server.url)
        first.ask(prompts(image, 2))
        first.close(finished=True)
    replay = open_run("", policy="replay", access=Access())
    with pytest.raises(ReplyMissing, match=r"1 of 3 .*differs in repeat \(\d there, 3 here\)"):
        replay.ask(prompts(image, 3))
    other = image_at(tmp_path / "other.png", 20)
    with pytest.raises(ReplyMissing, match=r"other\.png.*differs in images \(1 of 1\)"):
        replay.ask(prompts(other, 1))


# --- failures that pass -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=429),
        Fault("status", status=500),
        Fault("status", status=503),
        Fault("reset"),
        Fault("truncated"),
        Fault("malformed"),
        Fault("not_utf8"),
        Fault("no_choices"),
        Fault("stall"),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
@pytest.mark.parametrize("number", [1, 4])
def test_what_may_pass_is_tried_again(
    open_run: Open, image: Image, fault: Fault, number: int
) -> None:
    with LoopbackServer(faults={number: fault}.get) as server:
        asker = open_run(server.url, timeout_s=0.5)
        assert len(asker.ask(prompts(image, 6))) == 6
        assert server.stats.requests == 7
        assert (asker.broker.totals.retries, asker.broker.totals.new) == (1, 6)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("empty", "stop"), ("length", "length"), ("content_filter", "content_filter")],
)
def test_what_is_an_answer_is_kept_as_it_is(
    open_run: Open, image: Image, kind: Any, reason: str
) -> None:
    with LoopbackServer(faults={1: Fault(kind)}.get) as server:
        reply = open_run(server.url).ask(prompts(image, 1))[0]
        assert (reply.finish_reason, len(reply.text)) == (reason, 0 if kind == "empty" else 3)
        assert server.stats.requests == 1


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_holds_everybody_back(open_run: Open, image: Image, as_date: bool) -> None:
    wait_s = 2 if as_date else 1  # dates have no fractions: at least one second is left
    at = datetime.now(timezone.utc) + timedelta(seconds=wait_s + 0.5)
    after = format_datetime(at, usegmt=True) if as_date else str(wait_s)
    seen: list[float] = []

    def faults(n: int) -> Fault | None:
        seen.append(time.monotonic())
        return Fault("status", status=429, retry_after=after) if n == 3 else None

    with LoopbackServer(faults=faults) as server:
        asker = open_run(server.url, concurrency=1)
        assert len(asker.ask(prompts(image, 8))) == 8
    gaps = [b - a for a, b in itertools.pairwise(seen)]
    assert max(gaps) == gaps[2] > 0.7
    assert sum(gap > 0.7 for gap in gaps) == 1


def test_a_throttled_endpoint_is_asked_less(open_run: Open, image: Image) -> None:
    def faults(n: int) -> Fault | None:
        return Fault("status", status=429) if 20 < n <= 30 else None

    with LoopbackServer(latency_s=0.02, faults=faults) as server:
        asker = open_run(server.url, concurrency=16)
        assert len(asker.ask(prompts(image, 80))) == 80
        assert server.stats.peak_in_flight <= 16
        assert asker.broker._limit.allowed < 16


def test_the_limit_is_halved_once_for_requests_under_way_together() -> None:
    async def run() -> list[float]:
        limit = AdaptiveLimit(16)
        loop = asyncio.get_running_loop()
        sent = loop.time()
        allowed = []
        for _ in range(3):
            limit.throttled(sent, None)
            allowed.append(limit.allowed)
        await asyncio.sleep(0.001)
        limit.throttled(loop.time(), None)
        return [*allowed, limit.allowed]

    assert asyncio.run(run()) == [8, 8, 8, 4]


def test_the_limit_survives_those_who_stop_waiting() -> None:
    async def run() -> None:
        limit = AdaptiveLimit(1)

        async def hold(seconds: float) -> None:
            async with limit:
                await asyncio.sleep(seconds)

        tasks = [asyncio.create_task(hold(0.01)) for _ in range(6)]
        await asyncio.sleep(0.005)
        for task in tasks[1:4]:
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks[4:]), 2)
        await asyncio.wait_for(hold(0), 2)

    asyncio.run(run())


# --- failures that end the run ------------------------------------------------------------------


def end_of(asker: LocalAsker, asked: list[Prompt]) -> str:
    """The one error that a run ends with; a second cell meets the same one."""
    with pytest.raises(IqaChecksError) as first:
        asker.ask(asked)
    assert asker.broker.fatal is not None
    assert str(first.value) == str(asker.broker.fatal)
    with pytest.raises(type(first.value)):
        asker.ask(prompts(asked[0].images[0], 2, start=1000))
    assert "\n" not in str(first.value)
    return str(first.value)


def test_unknown_model(open_run: Open, image: Image) -> None:
    with LoopbackServer("random") as server:
        said = end_of(open_run(server.url), prompts(image, 20))
        assert "does not know the model 'observer'" in said
        assert server.stats.requests == 1


def test_wrong_path(open_run: Open, image: Image) -> None:
    with LoopbackServer() as server:
        url = server.url.removesuffix("/v1") + "/v2"
        assert "mostly ends in /v1" in end_of(open_run(url), prompts(image, 3))


def test_bad_key_which_no_message_repeats(
    open_run: Open, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-mine")
    fault = Fault("status", status=401, message="Incorrect key sk-secret-of-mine")
    with LoopbackServer(faults=lambda _: fault) as server:
        said = end_of(open_run(server.url), prompts(image, 20))
        assert "refuses the key" in said
        assert "***" in said
        assert "secret" not in said
        assert server.stats.requests == 1


def test_the_key_is_sent_and_never_stored(
    open_run: Open, image: Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-mine\n")
    with LoopbackServer(api_key="sk-secret-of-mine") as server:
        asker = open_run(server.url)
        asker.ask(prompts(image, 3))
        asker.close(finished=True)
    stored = b"".join(p.read_bytes() for p in tmp_path.glob("replies.sqlite*"))
    assert b"secret" not in stored


def test_no_key_for_openai(open_run: Open, image: Image) -> None:
    said = end_of(open_run("", access=Access()), prompts(image, 3))
    assert "needs a key: set OPENAI_API_KEY" in said


def test_connection_refused(open_run: Open, image: Image) -> None:
    began = time.monotonic()
    said = end_of(open_run(f"http://127.0.0.1:{refused_port()}/v1"), prompts(image, 50))
    assert "gave up after 3 attempts" in said
    assert "cannot be reached" in said
    assert time.monotonic() - began < 5


def test_an_endpoint_that_hangs(
    open_run: Open, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "PROBE_PATIENCE_S", 0.2)
    with LoopbackServer(faults=lambda _: Fault("stall")) as server:
        said = end_of(open_run(server.url, timeout_s=0.3), prompts(image, 20))
        assert "gave up after 1 attempt: " in said
        assert "did not answer within 0.3 s (--iqa-timeout)" in said
        assert server.stats.requests == 1


def test_the_first_request_rejected(open_run: Open, image: Image) -> None:
    with LoopbackServer(faults=lambda _: Fault("status", status=400)) as server:
        assert "the run's first request" in end_of(open_run(server.url), prompts(image, 20))
        assert server.stats.requests == 1


def test_an_endpoint_that_dies_in_the_middle(open_run: Open, image: Image) -> None:
    with LoopbackServer() as server:
        asker = open_run(server.url)
        asker.ask(prompts(image, 5))
    assert "gave up after 6 attempts" in end_of(asker, prompts(image, 40, start=5))
    asker.close(finished=True)
    with LoopbackServer() as again:
        replies = open_run(again.url).ask(prompts(image, 8))
        assert [reply.origin for reply in replies] == ["resumed"] * 5 + ["new"] * 3


def test_an_endpoint_that_wants_to_be_left_alone_for_long(open_run: Open, image: Image) -> None:
    fault = Fault("status", status=429, retry_after="7200")
    with LoopbackServer(faults=lambda _: fault) as server:
        assert "no request for 7200 s" in end_of(open_run(server.url), prompts(image, 3))


def test_the_end_wakes_those_who_wait_to_try_again(
    open_run: Open, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faults(n: int) -> Fault | None:
        if n == 2:
            return Fault("status", status=500, retry_after="200")
        return Fault("status", status=401) if n > 5 else None

    with LoopbackServer(latency_s=0.05, faults=faults) as server:
        began = time.monotonic()
        asker = open_run(server.url, concurrency=2)
        assert "refuses the key" in end_of(asker, prompts(image, 20))
        asker.close(finished=False)
        assert time.monotonic() - began < 4


def test_the_budget(open_run: Open, image: Image) -> None:
    with LoopbackServer(latency_s=0.05) as server:
        asker = open_run(server.url, budget=7)
        with pytest.raises(BudgetSpent, match="budget of 7 new requests"):
            asker.ask(prompts(image, 30))
        asker.close(finished=False)
        assert server.stats.requests == 7
        again = open_run(server.url).ask(prompts(image, 30))
        assert sum(reply.origin == "resumed" for reply in again) == 7


@pytest.mark.parametrize("url", ["localhost:8000/v1", "http://", "ftp://x/v1", "http://h:x/v1"])
def test_a_url_that_is_none(open_run: Open, url: str) -> None:
    with pytest.raises(UsageError, match="expected http://HOST:PORT/v1"):
        open_run(url)


def test_a_url_with_a_password_is_refused_without_repeating_it(open_run: Open) -> None:
    with pytest.raises(UsageError) as error:
        open_run("https://me:hunter2@example.org/v1?key=s3cret")
    assert "hunter2" not in str(error.value)
    assert "s3cret" not in str(error.value)


# --- failures of one cell -----------------------------------------------------------------------


def test_one_rejected_request_is_its_cells_error_alone(open_run: Open, image: Image) -> None:
    with LoopbackServer(faults={5: Fault("status", status=400)}.get) as server:
        asker = open_run(server.url, concurrency=1)
        with pytest.raises(RequestFailed, match=r"standard/single_nr \(stimulus\.png\).*HTTP 400"):
            asker.ask(prompts(image, 8))
        assert asker.broker.fatal is None
        assert len(asker.ask(prompts(image, 4, start=100))) == 4
        asker.close(finished=True)  # it lacks a reply, so the next run takes the others over
        replies = open_run(server.url).ask(prompts(image, 8))
        assert [reply.origin for reply in replies].count("resumed") == 7


def test_a_response_without_end(open_run: Open, image: Image, monkeypatch: Any) -> None:
    monkeypatch.setattr("iqa_checks.models.openai_chat.MAX_BODY", 100_000)
    with LoopbackServer(faults={3: Fault("huge")}.get) as server:
        asker = open_run(server.url, concurrency=1)
        with pytest.raises(RequestFailed, match="longer than"):
            asker.ask(prompts(image, 4))
        assert asker.broker.totals.retries == 0


def test_an_absurdly_long_reply_is_cut(open_run: Open, image: Image) -> None:
    with LoopbackServer(faults={1: Fault("huge")}.get) as server:
        reply = open_run(server.url).ask(prompts(image, 1))[0]
        assert (len(reply.text), reply.finish_reason) == (200_000, "length")


@pytest.mark.parametrize("change", ["rewritten", "removed"])
def test_a_stimulus_that_changes(open_run: Open, image: Image, tmp_path: Path, change: str) -> None:
    other = image_at(tmp_path / "steady.png", 200)
    with LoopbackServer() as server:
        asker = open_run(server.url)
        asker.ask(prompts(image, 2))
        if change == "rewritten":
            image_at(image.path, 91)
        else:
            image.path.unlink()
        with pytest.raises(StimulusError, match=r"stimulus\.png"):
            asker.ask(prompts(image, 2, start=2))
        assert len(asker.ask(prompts(other, 2))) == 2
        assert server.images_seen == {image.sha256, other.sha256}


def test_a_bad_first_stimulus_does_not_count_as_the_endpoints_answer(
    open_run: Open, image: Image, tmp_path: Path
) -> None:
    other = image_at(tmp_path / "steady.png", 200)
    image_at(image.path, 91)
    with LoopbackServer("random") as server:  # which does not know the model
        asker = open_run(server.url)
        with pytest.raises(EndpointError):
            asker.ask([*prompts(image, 2), *prompts(other, 5)])
        assert server.stats.requests == 1


# --- the store ----------------------------------------------------------------------------------


def test_a_store_that_cannot_be_written_ends_the_run(
    open_run: Open, image: Image, tmp_path: Path
) -> None:
    with LoopbackServer() as server:
        asker = open_run(server.url)
        asker.ask(prompts(image, 2))
        with sqlite3.connect(tmp_path / "replies.sqlite") as other:
            other.execute("DROP TABLE replies")
        said = end_of(asker, prompts(image, 20, start=2))
        assert "the reply store" in said
        asker.close(finished=True)
        assert isinstance(asker.broker.fatal, StoreError)


def test_a_full_disk_is_one_line(open_run: Open, image: Image) -> None:
    """SQLite's own limit on pages stands for the disk's: the error is the same."""
    with LoopbackServer() as server:
        asker = open_run(server.url)
        asker.ask(prompts(image, 1))

        def fill() -> None:
            import sqlalchemy as sa

            @sa.event.listens_for(asker.broker.store._engine, "begin")
            def limit(connection: Any) -> None:
                connection.exec_driver_sql("PRAGMA max_page_count=1")

        fill()
        long = [
            Prompt(TEXT + "x" * 20_000 + str(k), (image,), "rating", 1, 0, "long", 64)
            for k in range(5)
        ]
        assert "database or disk is full" in end_of(asker, long)


# --- interruption -------------------------------------------------------------------------------


def test_what_is_on_the_wire_at_the_end_is_waited_for_and_kept(
    open_run: Open, image: Image
) -> None:
    with LoopbackServer(latency_s=0.3) as server:
        asker = open_run(server.url, concurrency=4)
        asker.ask(prompts(image, 1))
        said: list[Exception] = []

        def ask() -> None:
            try:
                asker.ask(prompts(image, 40, start=1))
            except InfrastructureError as error:
                said.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        while server.stats.in_flight < 4:
            time.sleep(0.01)
        asker.close(finished=False)
        thread.join(timeout=5)
        assert "the run was ended" in str(said[0])
        asked_before = server.stats.requests
        assert asked_before <= 9
        replies = open_run(server.url).ask(prompts(image, 41))
        assert sum(reply.origin == "resumed" for reply in replies) == asked_before
        assert server.stats.requests == 41


def test_a_worker_that_dies_loses_no_reply(open_run: Open, image: Image) -> None:
    with LoopbackServer(latency_s=0.2) as server:
        asker = open_run(server.url)
        port = asker.listen("key")
        worker = RemoteAsker(port, "key")
        thread = threading.Thread(target=lambda: _ignoring(worker, prompts(image, 3)), daemon=True)
        thread.start()
        while not server.stats.requests:
            time.sleep(0.01)
        worker._socket.shutdown(socket.SHUT_RDWR)
        assert len(asker.ask(prompts(image, 3))) == 3
        assert server.stats.requests == 3
        thread.join(timeout=5)
        asker.close(finished=True)  # its cell was not measured, so the next run takes all over
        assert {reply.origin for reply in open_run(server.url).ask(prompts(image, 3))} == {
            "resumed"
        }


def test_a_worker_that_says_goodbye_leaves_a_run_that_can_finish(
    open_run: Open, image: Image
) -> None:
    with LoopbackServer() as server:
        asker = open_run(server.url)
        worker = RemoteAsker(asker.listen("key"), "key")
        worker.ask(prompts(image, 3))
        worker.close()
        time.sleep(0.05)
        asker.close(finished=True)
        assert {reply.origin for reply in open_run(server.url).ask(prompts(image, 3))} == {"new"}


def test_a_forbidden_image_is_its_cells_alone(open_run: Open, image: Image) -> None:
    with LoopbackServer(faults={2: Fault("status", status=403)}.get) as server:
        asker = open_run(server.url)
        with pytest.raises(RequestFailed, match="HTTP 403"):
            asker.ask(prompts(image, 4))
        assert asker.broker.fatal is None


def _ignoring(worker: RemoteAsker, asked: list[Prompt]) -> None:
    with pytest.raises(EndpointError):
        worker.ask(asked)


# --- workers ------------------------------------------------------------------------------------


def test_workers_get_replies_and_errors_like_the_controller(
    open_run: Open, image: Image, tmp_path: Path
) -> None:
    with LoopbackServer(faults={4: Fault("status", status=400)}.get) as server:
        asker = open_run(server.url, concurrency=1)
        worker = RemoteAsker(asker.listen("key"), "key")
        assert worker.ask(prompts(image, 3)) == asker.ask(prompts(image, 3))
        with pytest.raises(RequestFailed, match="HTTP 400"):
            worker.ask(prompts(image, 1, start=3))
        worker.close()


def test_a_wrong_key_is_refused_and_the_broker_goes_on(open_run: Open, image: Image) -> None:
    with LoopbackServer() as server:
        asker = open_run(server.url)
        port = asker.listen("key")
        with pytest.raises(UsageError, match="refuses this key"):
            RemoteAsker(port, "guess")
        for nonsense in (
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0\0\0\4[[[[",
            b"\0\0\0\2[]",
            b"\xff" * 9,
        ):
            with socket.create_connection(("127.0.0.1", port)) as other:
                other.sendall(nonsense)
        assert len(RemoteAsker(port, "key").ask(prompts(image, 2))) == 2


def test_a_broker_that_is_gone(open_run: Open, image: Image) -> None:
    with LoopbackServer() as server:
        asker = open_run(server.url)
        port = asker.listen("key")
        worker = RemoteAsker(port, "key")
        worker.ask(prompts(image, 1))
        asker.close(finished=False)
        with pytest.raises(EndpointError, match="broker is gone"):
            worker.ask(prompts(image, 1))
        with pytest.raises(EndpointError, match="broker is gone"):
            RemoteAsker(port, "key")


# --- the environment ----------------------------------------------------------------------------


def test_a_proxy_of_the_environment_does_not_capture_loopback(
    open_run: Open, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{refused_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with LoopbackServer() as server:
        assert len(open_run(server.url).ask(prompts(image, 1))) == 1


def test_ten_thousand_requests_queue_without_slowing_each_other(
    open_run: Open, image: Image
) -> None:
    """Waking every waiter for every reply would take minutes here."""

    async def run() -> None:
        limit = AdaptiveLimit(8)

        async def pass_through() -> None:
            async with limit:
                await asyncio.sleep(0)

        await asyncio.gather(*(pass_through() for _ in range(10_000)))

    began = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - began < 10
