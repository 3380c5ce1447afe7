"""What is at hand, what is missing and what is damaged: a look at every image of a found set.

Files are opened in threads (reading waits for the disk, and zlib leaves the interpreter free) and
only their headers and ends are read, unless asked to decode them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from iqa_checks.errors import StimuliAbsent, StimulusError
from iqa_checks.layouts.images import deep_problem, quick_problem
from iqa_checks.layouts.published import Found, Published, locate, published_sets, read

THREADS = 8
CHUNK = 64  # files per task: a future costs as much as a header


@dataclass(frozen=True, slots=True)
class Survey:
    """What a set under a folder looks like.

    ``found`` is None where the set is not there, and ``trouble`` then says why if its table is
    unusable. ``absent``, ``damaged`` and ``out_of_range`` are one message each.
    """

    published: Published
    found: Found | None = None
    n_expected: int = 0
    n_rows: int = 0
    n_present: int = 0
    absent: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    out_of_range: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()
    trouble: str = ""

    @property
    def whole(self) -> bool:
        return self.found is not None and not self.faults and self.n_rows == self.n_expected

    @property
    def faults(self) -> tuple[str, ...]:
        """Everything that is missing or wrong, the worst first."""
        trouble = (self.trouble,) if self.trouble else ()
        return (*trouble, *self.damaged, *self.out_of_range, *self.twice, *self.absent)


def survey(
    root: Path,
    *,
    names: Iterable[str] = (),
    deep: bool = False,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Iterator[Survey]:
    """Look for every published set under ``root`` and at every image that is there.

    ``progress`` is called with a set's name, the images looked at and their number.
    """
    problems: dict[Path, str] = {}
    for name in names or published_sets():
        published = published_sets()[name]
        try:
            found = locate(published, root)
            yield _look_at(found, problems, deep, progress)
        except StimuliAbsent:
            yield Survey(published)
        except StimulusError as error:
            yield Survey(published, trouble=str(error))


def survey_lines(surveys: Iterable[Survey], *, shown: int = 5) -> list[str]:
    """What a person reads: a line per set, its first faults, and at the end what was not found."""
    lines, nowhere = [], []
    for one in surveys:
        if one.found is None and not one.trouble:
            nowhere.append(f"{one.published.name:<10} not found: {one.published.get}")
            continue
        lines.append(f"{one.published.name:<10} {_summary(one)}")
        faults = one.faults
        lines += [f"    {fault}" for fault in faults[:shown]]
        if len(faults) > shown:
            lines.append(f"    and {len(faults) - shown:,} more")
    return [*lines, *nowhere]


def _summary(one: Survey) -> str:
    if one.found is None:
        return "unusable"
    counts = [
        f"{one.n_present:,} of {one.n_expected:,} stimuli",
        *(
            f"{len(faults):,} {what}"
            for what, faults in (
                ("absent", one.absent),
                ("damaged images", one.damaged),
                ("scores out of range", one.out_of_range),
                ("rows twice", one.twice),
            )
            if faults
        ),
    ]
    return f"{'whole' if one.whole else 'NOT WHOLE'}: {', '.join(counts)} in {one.found.folder}"


def _look_at(
    found: Found,
    problems: dict[Path, str],
    deep: bool,
    progress: Callable[[str, int, int], None],
) -> Survey:
    """``problems`` is shared between sets: three of them live on the images of KADID-10k."""
    published, reading = found.published, read(found)
    files = {row.path for row in reading.rows}
    files |= {row.reference for row in reading.rows if row.reference is not None}
    todo = sorted(files - problems.keys())
    check = deep_problem if deep else quick_problem
    for done, (path, problem) in enumerate(_in_threads(check, todo), 1):
        problems[path] = problem
        progress(published.name, done, len(todo))
    low, high = published.scale
    seen: dict[tuple[Path, Path | None], str] = {}
    twice = [
        f"{row.row}: {row.path.name} is there twice"
        for row in reading.rows
        if seen.setdefault((row.path, row.reference), row.row) != row.row
    ]
    return Survey(
        published=published,
        found=found,
        n_expected=published.expected.get("stimuli", 0),
        n_rows=reading.n_rows,
        n_present=len(reading.rows),
        absent=reading.absent,
        damaged=tuple(f"{path}: {problems[path]}" for path in sorted(files) if problems[path]),
        out_of_range=tuple(
            f"{row.row}: score {row.mos:g} outside {low:g}..{high:g}"
            for row in reading.rows
            if not low <= row.mos <= high
        ),
        twice=tuple(twice),
    )


def _in_threads(check: Callable[[Path], str], paths: list[Path]) -> Iterator[tuple[Path, str]]:
    chunks = [paths[k : k + CHUNK] for k in range(0, len(paths), CHUNK)]
    with ThreadPoolExecutor(THREADS) as pool:
        for chunk, found in zip(
            chunks, pool.map(lambda chunk: [check(path) for path in chunk], chunks), strict=True
        ):
            yield from zip(chunk, found, strict=True)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on a terminal; nothing where the output is a file or a pipe."""
    from rich.console import Console
    from rich.progress import Progress, TaskID

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda name, done, total: None
        return
    tasks: dict[str, TaskID] = {}
    with Progress(console=console, transient=True) as bar:

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            if done % CHUNK == 0 or done == total:
                bar.update(tasks[name], completed=done)

        yield show
