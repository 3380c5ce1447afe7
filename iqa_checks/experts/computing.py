"""Vectors of numbers for images, each computed once: in parallel, kept on disk, safe to kill.

What is kept is one SQLite file per identity (what computes, its version, its weights) with one
value per stimulus hash. Scores of experts and features of embedders both come from here. joblib
does the parallel part: processes on this machine, or a Ray cluster by its address.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_checks.errors import IqaChecksError, StimulusError, UsageError
from iqa_checks.experts.packages import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEW = 16  # so many images are computed here, without starting processes
CHUNK = 8  # images that a worker is given at once
RAY_ANSWERS_S = 10.0  # how long a cluster may take to accept a connection
_LOCK_S = 86_400.0  # how long to wait for another run that computes the same


@dataclass(frozen=True, slots=True)
class Item:
    """An image to measure: the hash that identifies it, its file, its reference's."""

    key: str
    path: Path
    reference: Path | None = None


Pair = tuple[Path, "Path | None"]
"""An image file and its reference's."""
Measure = Callable[[Sequence[Pair]], Sequence[Sequence[float]]]
"""The numbers of each image; several images at once only where `Opener.batch` allows it."""


@dataclass(frozen=True)
class Opener:
    """How a worker opens what measures: a module-level function and its arguments.

    Equal openers are opened once per process. ``batch`` is how many images are handed over at
    once.
    """

    function: Callable[..., Measure]
    arguments: tuple[Any, ...] = ()
    batch: int = 1


@dataclass(frozen=True, slots=True)
class Where:
    """Where to compute and keep: ``jobs`` processes (None: as many as there are processors).

    ``ray_address`` is that of a Ray cluster ("auto", "local", "ray://host:10001", "host:6379"),
    whose machines must see the image files under the same paths.
    """

    cache_dir: Path
    jobs: int | None = None
    ray_address: str | None = None


def compute_once(
    items: Sequence[Item],
    opener: Opener,
    about: Mapping[str, Any],
    where: Where,
    *,
    name: str,
    remark: Callable[[Sequence[Item]], str] | None = None,
) -> NDArray[np.float64]:
    """Values of all items, shape (len(items), width); what is stored is not computed again.

    Parameters
    ----------
    about
        What the values depend on besides the images (versions, weights, dtype, device), as JSON.
        Another ``about`` is another file.
    name
        For the file name, the progress bar and messages: "gmsd".
    remark
        Called once in a run that has something to compute, with what is absent, before it is
        computed. What it returns is kept beside the values: `remarks`.

    Raises
    ------
    IqaChecksError
        From the first image that cannot be measured; what was computed before is kept.
    """
    import numpy as np

    path, document = _place(about, where.cache_dir, name)
    with Values.open(path, document) as values:
        known = values.read(item.key for item in items)
        if any(item.key not in known for item in items):
            with _alone(path):  # another worker may be computing the same
                known = values.read(item.key for item in items)
                absent = {item.key: item for item in items if item.key not in known}
                if absent and remark is not None:
                    values.remark(remark(list(absent.values())))
                for done in _computed(list(absent.values()), opener, where, name):
                    values.write(done)
                    known |= done
    return np.array([known[item.key] for item in items], dtype=np.float64)


def remarks(about: Mapping[str, Any], cache_dir: Path, *, name: str) -> tuple[str, ...]:
    """What the runs that computed these values remarked on them; () where there is nothing."""
    path, document = _place(about, cache_dir, name)
    if not path.is_file():
        return ()
    with Values.open(path, document) as values:
        return values.remarks()


def _place(about: Mapping[str, Any], cache_dir: Path, name: str) -> tuple[Path, str]:
    """The file of these values, and what it says of itself."""
    document = json.dumps(dict(about), sort_keys=True)
    digest = hashlib.sha256(document.encode()).hexdigest()
    return cache_dir / "computed" / f"{name.replace('/', '-')}-{digest[:16]}.sqlite", document


def _computed(
    items: Sequence[Item], opener: Opener, where: Where, name: str
) -> Iterator[dict[str, tuple[float, ...]]]:
    """Values by key, chunk after chunk in the order of the items."""
    size = max(CHUNK, opener.batch)
    chunks = [items[k : k + size] for k in range(0, len(items), size)]
    with _progress(len(items), name) as advance:
        for done in _in_parallel(chunks, opener, where, len(items)):
            yield done
            advance(len(done))


def _in_parallel(
    chunks: Sequence[Sequence[Item]], opener: Opener, where: Where, n_items: int
) -> Iterator[dict[str, tuple[float, ...]]]:
    jobs = _jobs(where.jobs, n_items)
    if where.ray_address is None and jobs == 1:
        yield from (measure(opener, chunk) for chunk in chunks)
        return
    joblib = require("joblib", "computing in parallel")
    if where.ray_address is None:
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator")
        yield from parallel(joblib.delayed(measure)(opener, chunk) for chunk in chunks)
        return
    with _ray(where.ray_address) as n_slots:
        for start in range(0, len(chunks), 2 * n_slots):  # its backend returns whole lists only
            slab = chunks[start : start + 2 * n_slots]
            yield from joblib.Parallel(n_jobs=n_slots)(
                joblib.delayed(measure)(opener, chunk) for chunk in slab
            )


def measure(opener: Opener, chunk: Sequence[Item]) -> dict[str, tuple[float, ...]]:
    """What a worker does with its chunk: the values by key, in batches of the opener's size.

    A batch that fails is measured one image at a time, which tells the image that is to blame
    from one that only did not fit into the memory beside the others.
    """
    several = _opened(opener)
    found: dict[str, tuple[float, ...]] = {}
    for start in range(0, len(chunk), opener.batch):
        batch = chunk[start : start + opener.batch]
        together = _together(several, batch) if len(batch) > 1 else None
        found |= together or {item.key: _one(several, item) for item in batch}
    return found


def _together(several: Measure, batch: Sequence[Item]) -> dict[str, tuple[float, ...]] | None:
    """Values of a batch by key, None where it fails."""
    try:
        values = several([(item.path, item.reference) for item in batch])
        return {item.key: _floats(v) for item, v in zip(batch, values, strict=True)}
    except Exception:  # a metric package, or the device, may raise anything
        return None


@lru_cache(maxsize=2)
def _opened(opener: Opener) -> Measure:
    return opener.function(*opener.arguments)


def _one(several: Measure, item: Item) -> tuple[float, ...]:
    try:
        (values,) = several([(item.path, item.reference)])
        return _floats(values)
    except IqaChecksError:
        raise
    except Exception as error:
        raise StimulusError(
            f"{item.path} cannot be measured ({type(error).__name__}: {error}); "
            "look at the image, or leave it out"
        ) from error


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _jobs(asked: int | None, n_items: int) -> int:
    if asked is not None and asked < 1:
        raise UsageError(f"{asked} jobs: expected at least 1")
    if n_items <= FEW:
        return 1
    if asked is not None:
        return asked
    if "PYTEST_XDIST_WORKER" in os.environ:
        return 1  # the test runner is using the processors already
    joblib = require("joblib", "computing in parallel")
    return int(joblib.cpu_count())


@contextlib.contextmanager
def _ray(address: str) -> Iterator[int]:
    """joblib sends its work to a Ray cluster meanwhile; yields how many processors it has."""
    joblib = require("joblib", "computing in parallel")
    ray = require("ray", "computing on a Ray cluster", extra="ray")
    backend = require("ray.util.joblib", "computing on a Ray cluster", extra="ray")
    started = not ray.is_initialized()
    if started:
        _check_address(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"--iqa-ray {address}: no Ray cluster can be used there "
                f"({str(error).strip().splitlines()[0]}); start one (ray start --head), "
                "correct the address, or leave --iqa-ray out"
            ) from None
    backend.register_ray()
    try:
        with joblib.parallel_config(backend="ray"):
            yield max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        if started:
            ray.shutdown()


def _check_address(address: str) -> None:
    """`UsageError` where nothing listens: Ray itself would wait for many minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not (colon and port.isdecimal()):
        return  # "auto", "local"
    try:
        socket.create_connection((host, int(port)), timeout=RAY_ANSWERS_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"--iqa-ray {address}: nothing answers there ({error}); start a cluster "
            "(ray start --head), correct the address, or leave --iqa-ray out"
        ) from None


@contextlib.contextmanager
def _progress(total: int, name: str) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    if total <= 1 or not sys.stderr.isatty():
        yield lambda _n: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=total)
        yield lambda n: bar.advance(task, n)


class Values:
    """One file of values by stimulus hash. A write is whole or absent, also after a kill."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path, document: str) -> Iterator[Values]:
        """``document`` says what the values are, for people who look into the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=60.0)
        try:
            with _explained(path), connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS computed "
                    "(stimulus TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
                )
                connection.execute("CREATE TABLE IF NOT EXISTS about (document TEXT PRIMARY KEY)")
                connection.execute("CREATE TABLE IF NOT EXISTS remarks (text TEXT UNIQUE)")
                connection.execute("INSERT OR IGNORE INTO about VALUES (?)", (document,))
            with _explained(path):
                yield cls(connection)
        finally:
            connection.close()

    def remark(self, text: str) -> None:
        """Keep a remark beside the values; the same one twice is one."""
        with self._connection:
            self._connection.execute("INSERT OR IGNORE INTO remarks VALUES (?)", (text,))

    def remarks(self) -> tuple[str, ...]:
        rows = self._connection.execute("SELECT text FROM remarks ORDER BY rowid")
        return tuple(text for (text,) in rows)

    def read(self, keys: Iterator[str]) -> dict[str, tuple[float, ...]]:
        import numpy as np

        found = {}
        for key in set(keys):
            row = self._connection.execute(
                "SELECT value FROM computed WHERE stimulus = ?", (key,)
            ).fetchone()
            if row is not None:
                found[key] = tuple(np.frombuffer(row[0], dtype="<f8").tolist())
        return found

    def write(self, values: Mapping[str, Sequence[float]]) -> None:
        import numpy as np

        rows = [(key, np.asarray(value, dtype="<f8").tobytes()) for key, value in values.items()]
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO computed VALUES (?, ?)", rows)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time computes what belongs into ``path``; a dead one lets go."""
    lock = sqlite3.connect(path.with_suffix(".lock"), timeout=_LOCK_S, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        lock.close()


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise UsageError(
            f"{path} cannot be used ({error}): delete it, and it is computed again"
        ) from None
