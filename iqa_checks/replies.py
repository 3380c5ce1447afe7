"""The reply store: every reply that was paid for, by run and request key.

SQLite by default, PostgreSQL by URL (SQLAlchemy). One process writes: the broker's. A reply is
committed before anybody sees it, so a killed run loses only what was still on the wire.

A run that did not finish (killed, interrupted, ended by its endpoint) leaves replies that the next
run with the same identity takes over, for a week. Replies of finished runs are used again only when
the user asks for it, since an alias may have been pointed at another model in between. A run that
is still going on keeps its replies to itself.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from iqa_checks.errors import MissingExtra, StoreError

Origin = Literal["new", "resumed", "reused"]
HEARTBEAT_S = 5.0
LOOKUP_CHUNK = 400  # SQLite allows 999 variables in a statement
RESUME_WITHIN_S = 7 * 86400.0  # after that an endpoint's model may well be another one
SUSPENDED_S = 600.0  # without a heartbeat its process id may be another process's by now
COMPARED = 2000  # stored requests that a replay's miss is compared with, newest first
_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_OPEN: set[str] = set()  # runs of this process

_METADATA = sa.MetaData()
_RUNS = sa.Table(
    "runs",
    _METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("identity", sa.String, nullable=False, index=True),
    sa.Column("model", sa.String, nullable=False),
    sa.Column("host", sa.String, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("heartbeat_at", sa.Float, nullable=False),
    sa.Column("finished_at", sa.Float),
)
_TEXTS = sa.Table(
    "prompt_texts",
    _METADATA,
    sa.Column("sha256", sa.String, primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
)
_REPLIES = sa.Table(
    "replies",
    _METADATA,
    sa.Column("run_id", sa.String, primary_key=True),
    sa.Column("key", sa.String, primary_key=True, index=True),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("finish_reason", sa.String, nullable=False),
    sa.Column("served_model", sa.String, nullable=False),
    sa.Column("prompt_tokens", sa.Integer),
    sa.Column("completion_tokens", sa.Integer),
    sa.Column("latency_s", sa.Float, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("settled_at", sa.Float),  # when a run that took this reply over has finished
)
_DETAILS = sa.Table(  # of the replies that have any: a table, so that older stores need no change
    "reply_details",
    _METADATA,
    sa.Column("run_id", sa.String, primary_key=True),
    sa.Column("key", sa.String, primary_key=True, index=True),
    sa.Column("changed", sa.Text, nullable=False),
    sa.Column("logprobs", sa.Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered. ``latency_s`` in seconds, ``created_at`` in seconds since the epoch.

    ``served_model`` is the identity that the endpoint states, ``''`` where it states none.
    ``changed`` says in sentences, joined by "; ", what of the asked parameters was not sent as
    asked. ``logprobs`` are those of the last tokens as `parsing.soft.pack` makes them, ``''``
    where none were asked for or none came.
    """

    text: str
    finish_reason: str = "stop"
    served_model: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    latency_s: float = 0.0
    created_at: float = 0.0
    origin: Origin = "new"
    changed: str = ""
    logprobs: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """A reply on its way into the store: ``request`` is the frozen request, images by hash."""

    key: str
    request: dict[str, Any]
    prompt_text: str
    reply: Reply


def storable(text: Any) -> str:
    """Text that any database takes: half surrogates and NUL are replaced."""
    if not isinstance(text, str):
        return ""
    return (
        text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}")
    )


class ReplyStore:
    """One run's view of the store. Not for use by several threads at once.

    Every method raises `StoreError` where the store cannot be read or written.

    Parameters
    ----------
    location
        A path (SQLite) or an SQLAlchemy URL of SQLite or PostgreSQL.
    identity
        What makes two runs the same run: model, seed, preset and so on, hashed by the caller.
    """

    def __init__(self, location: str, *, identity: str, model: str, fresh: bool = False) -> None:
        self._engine = _engine(location)
        self._insert = _INSERTS[self._engine.dialect.name]
        url = self._engine.url
        self.location = url.render_as_string(hide_password=True) if "://" in location else location
        self.run_id = uuid.uuid4().hex
        self._create_tables()
        unfinished = self._unfinished()
        self._alive = [run["id"] for run in unfinished if _alive(run)]
        self._resumed = [
            run["id"]
            for run in unfinished
            if run["identity"] == identity
            and run["id"] not in self._alive
            and time.time() - run["heartbeat_at"] < RESUME_WITHIN_S
            and not fresh
        ]
        now = time.time()
        with self._transaction() as connection:
            connection.execute(
                _RUNS.insert().values(
                    id=self.run_id, identity=identity, model=model, host=_host(),
                    pid=os.getpid(), started_at=now, heartbeat_at=now,
                )
            )  # fmt: skip
        _OPEN.add(self.run_id)

    def resumable(self) -> int:
        """How many replies of interrupted runs of the same identity there are."""
        if not self._resumed:
            return 0
        query = sa.select(sa.func.count(sa.distinct(_REPLIES.c.key))).where(self._taken_over())
        with self._transaction() as connection:
            return int(connection.execute(query).scalar_one())

    def lookup(self, keys: Sequence[str], *, finished_runs: bool) -> dict[str, Reply]:
        """The newest stored reply to each of ``keys`` that has one.

        Looks at the interrupted runs that this one continues and, if ``finished_runs``, at all
        others but those that are still going on.
        """
        if not keys or not (self._resumed or finished_runs):
            return {}
        which = _REPLIES.c.run_id.not_in(self._alive) if finished_runs else self._taken_over()
        found: dict[str, Reply] = {}
        same = sa.and_(_DETAILS.c.run_id == _REPLIES.c.run_id, _DETAILS.c.key == _REPLIES.c.key)
        every = sa.select(_REPLIES, _DETAILS.c.changed, _DETAILS.c.logprobs)
        every = every.select_from(_REPLIES.outerjoin(_DETAILS, same))
        with self._transaction() as connection:
            for start in range(0, len(keys), LOOKUP_CHUNK):
                chunk = _REPLIES.c.key.in_(keys[start : start + LOOKUP_CHUNK])
                query = every.where(chunk, which).order_by(_REPLIES.c.created_at)
                for row in connection.execute(query):
                    found[row.key] = self._reply(row)
        return found

    def nearest(self, request: dict[str, Any]) -> str:
        """One line on the stored request most like ``request``, for a replay that misses."""
        query = (
            sa.select(_REPLIES.c.request, _REPLIES.c.created_at)
            .where(_REPLIES.c.run_id.not_in(self._alive))
            .order_by(_REPLIES.c.created_at.desc())
            .limit(COMPARED)
        )
        with self._transaction() as connection:
            stored = [(json.loads(text), at) for text, at in connection.execute(query)]
        if not stored:
            return "the store is empty"
        best, at = max(stored, key=lambda other: _likeness(other[0], request))
        when = datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        differing = [name for name in request if best.get(name) != request[name]]
        said = "; ".join(_difference(name, best.get(name), request[name]) for name in differing)
        return f"the nearest stored request ({best['template']}, {when}) differs in {said}"

    def add(self, batch: Sequence[Stored]) -> None:
        """Commit replies; when this returns they survive a kill of the process."""
        rows, texts = [], {}
        for item in batch:
            texts[item.request["text_sha256"]] = item.prompt_text
            rows.append(
                {
                    "run_id": self.run_id,
                    "key": item.key,
                    "request": json.dumps(item.request, sort_keys=True),
                    "text": item.reply.text,
                    "finish_reason": item.reply.finish_reason,
                    "served_model": item.reply.served_model,
                    "prompt_tokens": item.reply.prompt_tokens,
                    "completion_tokens": item.reply.completion_tokens,
                    "latency_s": item.reply.latency_s,
                    "created_at": item.reply.created_at,
                }
            )
        said = [{"sha256": sha256, "text": text} for sha256, text in texts.items()]
        details = [
            {
                "run_id": self.run_id,
                "key": item.key,
                "changed": item.reply.changed,
                "logprobs": item.reply.logprobs,
            }
            for item in batch
            if item.reply.changed or item.reply.logprobs
        ]
        with self._transaction() as connection:
            # Another run may write the same text at this moment.
            connection.execute(self._insert(_TEXTS).on_conflict_do_nothing(), said)
            connection.execute(_REPLIES.insert(), rows)
            if details:
                connection.execute(_DETAILS.insert(), details)

    def heartbeat(self) -> None:
        """Tell other runs that this one is alive."""
        with self._transaction() as connection:
            connection.execute(self._this_run().values(heartbeat_at=time.time()))

    def finish(self, keys: Sequence[str]) -> None:
        """Mark the run as finished, and of what it took over the replies to ``keys``.

        Other replies of an interrupted run wait for the run that asks for them: one cell that is
        finished by itself does not make the rest of an interrupted run be paid for again.
        """
        now = time.time()
        with self._transaction() as connection:
            connection.execute(self._this_run().values(finished_at=now))
            for start in range(0, len(keys) if self._resumed else 0, LOOKUP_CHUNK):
                chunk = _REPLIES.c.key.in_(keys[start : start + LOOKUP_CHUNK])
                settled = _REPLIES.update().where(chunk, self._taken_over())
                connection.execute(settled.values(settled_at=now))

    def close(self) -> None:
        _OPEN.discard(self.run_id)
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise _store_error(self.location, error) from None

    def _create_tables(self) -> None:
        for last in (False, True):
            try:
                _METADATA.create_all(self._engine)
                return
            except sa.exc.SQLAlchemyError as error:
                if last:
                    raise _store_error(self.location, error) from None
                # Another run may have created them at this moment: look again.

    def _unfinished(self) -> list[Any]:
        with self._transaction() as connection:
            query = sa.select(_RUNS).where(_RUNS.c.finished_at.is_(None))
            return list(connection.execute(query).mappings())

    def _taken_over(self) -> sa.ColumnElement[bool]:
        return sa.and_(_REPLIES.c.run_id.in_(self._resumed), _REPLIES.c.settled_at.is_(None))

    def _this_run(self) -> sa.Update:
        return _RUNS.update().where(_RUNS.c.id == self.run_id)

    def _reply(self, row: Any) -> Reply:
        resumed = row.run_id in self._resumed and row.settled_at is None
        return Reply(
            row.text,
            row.finish_reason,
            row.served_model,
            row.prompt_tokens,
            row.completion_tokens,
            row.latency_s,
            row.created_at,
            "resumed" if resumed else "reused",
            row.changed or "",
            row.logprobs or "",
        )


def _likeness(stored: dict[str, Any], request: dict[str, Any]) -> tuple[int, int]:
    """How many fields two requests share, then how many images."""
    fields = sum(stored.get(name) == value for name, value in request.items())
    return fields, sum(image in stored["images"] for image in request["images"])


def _difference(name: str, stored: Any, asked: Any) -> str:
    """One field of two requests in words; hashes are cut to what tells them apart."""
    if name == "images":
        at = [k for k, (a, b) in enumerate(zip(stored, asked, strict=False), 1) if a != b]
        if len(stored) != len(asked):
            return f"images ({len(stored)} there, {len(asked)} here)"
        return f"images ({', '.join(map(str, at))} of {len(asked)})"
    if name == "text_sha256":
        return "the prompt's text"
    return f"{name} ({stored} there, {asked} here)"


def _host() -> str:
    """This machine since its last start: a process id means nothing anywhere else."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()}/{boot}"


def _alive(run: Any) -> bool:
    """Whether a run that has not finished is still going on, here or on another host."""
    silent_s = time.time() - run["heartbeat_at"]
    if run["host"] != _host():
        return bool(silent_s < 6 * HEARTBEAT_S)
    if run["pid"] == os.getpid():
        return run["id"] in _OPEN
    try:
        os.kill(run["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return bool(silent_s < SUSPENDED_S)


def _engine(location: str) -> sa.Engine:
    if "://" not in location:
        path = Path(location)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the folder of the reply store {path}: {error.strerror}") from None
        location = f"sqlite:///{path}"
    try:
        url = sa.make_url(location)
    except (sa.exc.ArgumentError, ValueError):  # never say what it was: it may hold a password
        raise StoreError(f"--iqa-store: cannot read this database URL; {_EXPECTED}") from None
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() not in _INSERTS:
        raise StoreError(f"--iqa-store {shown}: {_EXPECTED}")
    if url.drivername == "postgresql":  # SQLAlchemy would take psycopg2, our extra has psycopg
        url = url.set(drivername="postgresql+psycopg")
    try:
        engine = sa.create_engine(url)
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "psycopg", "postgres", f"the store {shown}") from None
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
        raise StoreError(f"--iqa-store {shown}: {error}; {_EXPECTED}") from None
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _durable)
    return engine


_EXPECTED = "give a path (SQLite) or postgresql://USER:PASSWORD@HOST/DATABASE"


def _durable(connection: Any, _record: object) -> None:
    """Write-ahead logging: a commit survives a killed process and readers never block it."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=30000")  # before the next line, which takes a lock
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _store_error(location: str, error: Exception) -> StoreError:
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    return StoreError(
        f"the reply store {location} cannot be used ({reason}); "
        "give another with --iqa-store, or move the damaged file away"
    )
