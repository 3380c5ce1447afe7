"""The cache of generated images: each made once, verified by hash whenever it is used.

A generated image is a PNG with a record beside it: its SHA-256, and its measured score where the
score is a property of the pixels. A file that does not match its record is made again. Images
that are missing are made by several threads (NumPy, SciPy and Pillow let go of the interpreter
lock for most of the work, and threads are safe beside the broker's, which forks would not be).

Two runs at once: a lock per folder makes the second wait and find the work done. Where locks are
not to be had (some network folders, Windows) both make the same bytes, and each file is moved
into place whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iqa_checks.errors import StimulusError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

VERSION = 3  # of the generators: other pixels get another folder
MAX_THREADS = 8


@dataclass(frozen=True)
class Recipe:
    """How to make one image of the cache.

    ``name`` is its path below the cache without ".png". ``measure`` gives its score where that is
    a property of the pixels; other scores are known before any pixel.
    """

    name: str
    pixels: Callable[[], Pixels]
    measure: Callable[[Pixels], float] | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """One image of the cache, whole and as recorded."""

    path: Path
    sha256: str
    measured: float | None


def key(*parts: object) -> str:
    """A hash of ``parts``: decides draws and ties the same way on every machine."""
    return hashlib.sha256(":".join(map(str, parts)).encode()).hexdigest()


def generate(recipes: Sequence[Recipe], cache_dir: Path) -> dict[str, Generated]:
    """All images by recipe name, made where the cache lacks them or they are damaged."""
    wanted = {recipe.name: recipe for recipe in recipes}
    found = {name: _cached(cache_dir, name) for name in wanted}
    missing = [recipe for name, recipe in wanted.items() if found[name] is None]
    if missing:
        with _alone(cache_dir):
            found |= {r.name: _cached(cache_dir, r.name) for r in missing}  # made by another run
            missing = [recipe for recipe in missing if found[recipe.name] is None]
            found |= _make_all(missing, cache_dir)
    return {name: made for name, made in found.items() if made is not None}


def _cached(cache_dir: Path, name: str) -> Generated | None:
    path = cache_dir / f"{name}.png"
    try:
        recorded, _, measured = path.with_suffix(".sha256").read_text().strip().partition(" ")
        if hashlib.sha256(path.read_bytes()).hexdigest() == recorded:
            return Generated(path, recorded, float(measured) if measured else None)
    except (OSError, ValueError):
        pass  # absent, unreadable, or a record that is no record: make it
    return None


def _make_all(recipes: Sequence[Recipe], cache_dir: Path) -> dict[str, Generated]:
    from concurrent.futures import ThreadPoolExecutor, as_completed

    made = {}
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        jobs = {pool.submit(_make, recipe, cache_dir): recipe.name for recipe in recipes}
        try:
            for job in _progress(as_completed(jobs), len(jobs)):
                made[jobs[job]] = job.result()
        except BaseException:  # Ctrl-C too: begin nothing more
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return made


def _make(recipe: Recipe, cache_dir: Path) -> Generated:
    pixels = recipe.pixels()
    data = _png(pixels)
    digest = hashlib.sha256(data).hexdigest()
    measured = recipe.measure(pixels) if recipe.measure else None
    path = cache_dir / f"{recipe.name}.png"
    try:
        write_atomically(path, data)
        record = digest if measured is None else f"{digest} {measured!r}"
        write_atomically(path.with_suffix(".sha256"), record.encode())
    except OSError as error:
        raise StimulusError(
            f"cannot write generated images to {cache_dir} ({error.strerror}); "
            "give another folder with --iqa-cache DIR"
        ) from None
    return Generated(path, digest, measured)


def _png(pixels: Pixels) -> bytes:
    import io

    import PIL.Image

    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside and move: nobody ever sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def _alone(cache_dir: Path) -> Iterator[None]:
    """Hold the cache's lock; the system lets go of it when a process dies."""
    try:
        import fcntl

        cache_dir.mkdir(parents=True, exist_ok=True)
        file = (cache_dir / ".lock").open("w")
    except (ImportError, OSError):  # no such locks here, or not writable: said when writing
        yield
        return
    with file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _progress(jobs: Iterator[_Job], total: int) -> Iterator[_Job]:
    """The same jobs, with a bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield from jobs
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(jobs, "generating stimuli", total, console=console, transient=True)


if TYPE_CHECKING:
    from concurrent.futures import Future

    _Job = Future[Generated]
