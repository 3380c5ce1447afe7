"""The reply store: every reply that was paid for, by run and request key.

SQLite by default, PostgreSQL by URL (SQLAlchemy). One process writes: the broker's. A reply is
committed before anybody sees it, so a killed run loses only what was still on the wire.

A run that did not finish (killed, interrupted, ended by its endpoint) leaves replies that the next
run with the same identity takes over. Replies of finished runs are used again only when the user
asks for it, since an alias may have been pointed at another model in between.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from iqa_checks.errors import MissingExtra, StoreError

Origin = Literal["new", "resumed", "reused"]
HEARTBEAT_S = 5.0
LOOKUP_CHUNK = 400  # SQLite allows 999 variables in a statement

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
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered. ``latency_s`` in seconds, ``created_at`` in seconds since the epoch.

    ``served_model`` is the identity that the endpoint states, ``''`` where it states none.
    """

    text: str
    finish_reason: str = "stop"
    served_model: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    latency_s: float = 0.0
    created_at: float = 0.0
    origin: Origin = "new"


@dataclass(frozen=True, slots=True)
class Stored:
    """A reply on its way into the store: ``request`` is the frozen request, images by hash."""

    key: str
    request: dict[str, Any]
    prompt_text: str
    reply: Reply


class ReplyStore:
    """One run's view of the store. Not for use by several threads at once.

    Parameters
    ----------
    location
        A path (SQLite) or an SQLAlchemy URL.
    identity
        What makes two runs the same run: model, seed, preset and so on, hashed by the caller.
    """

    def __init__(self, location: str, *, identity: str, model: str, fresh: bool = False) -> None:
        self.location = location
        self._engine = _engine(location)
        self.run_id = uuid.uuid4().hex
        try:
            _METADATA.create_all(self._engine)
            self._resumed = [] if fresh else self._interrupted(identity)
            now = time.time()
            with self._engine.begin() as connection:
                connection.execute(
                    _RUNS.insert().values(
                        id=self.run_id, identity=identity, model=model, host=socket.gethostname(),
                        pid=os.getpid(), started_at=now, heartbeat_at=now,
                    )
                )  # fmt: skip
        except sa.exc.SQLAlchemyError as error:
            raise _store_error(location, error) from None

    def resumable(self) -> int:
        """How many replies of an interrupted run of the same identity there are."""
        if not self._resumed:
            return 0
        query = sa.select(sa.func.count(sa.distinct(_REPLIES.c.key))).where(
            _REPLIES.c.run_id.in_(self._resumed)
        )
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def lookup(self, keys: Sequence[str], *, finished_runs: bool) -> dict[str, Reply]:
        """The newest stored reply to each of ``keys`` that has one.

        Looks at the interrupted runs that this one continues and, if ``finished_runs``, at all.
        """
        if not (self._resumed or finished_runs):
            return {}
        found: dict[str, Reply] = {}
        with self._engine.connect() as connection:
            for start in range(0, len(keys), LOOKUP_CHUNK):
                query = sa.select(_REPLIES).where(
                    _REPLIES.c.key.in_(keys[start : start + LOOKUP_CHUNK])
                )
                if not finished_runs:
                    query = query.where(_REPLIES.c.run_id.in_(self._resumed))
                for row in connection.execute(query.order_by(_REPLIES.c.created_at)).mappings():
                    found[row["key"]] = self._reply(row)
        return found

    def nearest(self, request: dict[str, Any]) -> str:
        """One line on the stored request most like ``request``, for a replay that misses."""
        query = sa.select(_REPLIES.c.request).order_by(_REPLIES.c.created_at.desc()).limit(2000)
        with self._engine.connect() as connection:
            stored = [json.loads(text) for (text,) in connection.execute(query)]
        if not stored:
            return "the store is empty"

        def shared(other: dict[str, Any]) -> int:
            return sum(other.get(name) == value for name, value in request.items())

        best = max(stored, key=shared)
        differing = sorted(k for k in {*request, *best} if best.get(k) != request.get(k))
        return f"the nearest stored request differs in {', '.join(differing)}"

    def add(self, batch: Iterable[Stored]) -> None:
        """Commit replies; when this returns they survive a kill of the process."""
        rows, texts = [], {}
        for item in batch:
            request = dict(item.request)
            texts[request["text_sha256"]] = item.prompt_text
            rows.append(
                {
                    "run_id": self.run_id,
                    "key": item.key,
                    "request": json.dumps(request, sort_keys=True),
                    "text": item.reply.text,
                    "finish_reason": item.reply.finish_reason,
                    "served_model": item.reply.served_model,
                    "prompt_tokens": item.reply.prompt_tokens,
                    "completion_tokens": item.reply.completion_tokens,
                    "latency_s": item.reply.latency_s,
                    "created_at": item.reply.created_at,
                }
            )
        try:
            with self._engine.begin() as connection:
                known = set(
                    connection.execute(
                        sa.select(_TEXTS.c.sha256).where(_TEXTS.c.sha256.in_(list(texts)))
                    ).scalars()
                )
                fresh = [{"sha256": k, "text": v} for k, v in texts.items() if k not in known]
                if fresh:
                    connection.execute(_TEXTS.insert(), fresh)
                connection.execute(_REPLIES.insert(), rows)
        except sa.exc.SQLAlchemyError as error:
            raise _store_error(self.location, error) from None

    def heartbeat(self) -> None:
        """Tell other hosts that this run is alive."""
        self._update(heartbeat_at=time.time())

    def finish(self) -> None:
        """Mark the run, and the interrupted ones that it continued, as finished."""
        self._update(finished_at=time.time())

    def close(self) -> None:
        self._engine.dispose()

    def _update(self, **values: float) -> None:
        ids = [self.run_id, *(self._resumed if "finished_at" in values else [])]
        with self._engine.begin() as connection:
            connection.execute(_RUNS.update().where(_RUNS.c.id.in_(ids)).values(**values))

    def _interrupted(self, identity: str) -> list[str]:
        query = sa.select(_RUNS).where(_RUNS.c.identity == identity, _RUNS.c.finished_at.is_(None))
        with self._engine.connect() as connection:
            runs = list(connection.execute(query).mappings())
        return [run["id"] for run in runs if not _alive(run)]

    def _reply(self, row: Any) -> Reply:
        return Reply(
            row["text"],
            row["finish_reason"],
            row["served_model"],
            row["prompt_tokens"],
            row["completion_tokens"],
            row["latency_s"],
            row["created_at"],
            "resumed" if row["run_id"] in self._resumed else "reused",
        )


def _alive(run: Any) -> bool:
    """Whether a run that has not finished is still going on, here or on another host."""
    if run["host"] != socket.gethostname():
        return bool(time.time() - run["heartbeat_at"] < 6 * HEARTBEAT_S)
    try:
        os.kill(run["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return bool(run["pid"] != os.getpid())  # an earlier run of this very process has ended


def _engine(location: str) -> sa.Engine:
    if "://" not in location:
        path = Path(location)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the folder of the reply store {path}: {error.strerror}") from None
        location = f"sqlite:///{path}"
    try:
        engine = sa.create_engine(location)
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "psycopg", "postgres", f"the store {location}") from None
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
        raise StoreError(
            f"--iqa-store {location}: {error}; give a path or a database URL"
        ) from None
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _durable)
    return engine


def _durable(connection: Any, _record: object) -> None:
    """Write-ahead logging: a commit survives a killed process and readers never block it."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.close()


def _store_error(location: str, error: Exception) -> StoreError:
    reason = str(getattr(error, "orig", None) or error).splitlines()[0]
    return StoreError(
        f"the reply store {location} cannot be used ({reason}); "
        "give another with --iqa-store, or move the damaged file away"
    )
