"""A measured run as a numbered JSON file: written, found again, read, and refused with a reason.

The document is described by ``iqa_checks/data/results.schema.json``: ``results.json`` of
``--iqa-out`` and baselines are the same thing, and a baseline has a name and a number. It holds
all that a later comparison needs: the rows, and for each cell the references, the human scores on
0..100 and every trial with its judgement and the time of its reply. A checksum over the content
tells a file that was cut or edited by hand.

Order never matters: stimuli are known by hash. Nor does the clock: baselines are ordered by their
number, and times are only ever compared for equality (was this the very same reply?).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_checks.errors import UsageError
from iqa_checks.report.difficult import Measured
from iqa_checks.report.row import SCHEMA_VERSION, Row

if TYPE_CHECKING:
    from iqa_checks.cell import Cell, CellResult
    from iqa_checks.comparison import Judged
    from iqa_checks.protocols import Judgement

KIND = "iqa_checks run"
_NUMBERED = re.compile(r"(\d{4,})_(.+)\.json")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_CHOICES = ("first", "second", "comparable")


@dataclass(frozen=True, slots=True)
class SavedTrial:
    """A trial and its answer.

    ``stimuli`` are positions in the row's ``per_stimulus``, in presentation order. ``judgement``:
    a score (single), "first", "second", "comparable" or the first's share of a win (double), ranks
    (multiple), or ``{"unparsed": reason}``.
    ``replied_at`` is the time of the reply in seconds since the epoch,
    0 where unknown: two trials with one time hold one and the same reply.
    """

    stimuli: tuple[int, ...]
    repeat: int
    judgement: float | str | tuple[int, ...] | dict[str, str]
    replied_at: float = 0.0

    def plain(self) -> list[Any]:
        return [list(self.stimuli), self.repeat, self.judgement, self.replied_at]

    @property
    def usable(self) -> bool:
        return not isinstance(self.judgement, dict)


@dataclass(frozen=True, slots=True)
class CellRecord:
    """What a row leaves out and a comparison needs; positions as in the row's ``per_stimulus``.

    ``configuration`` is what was asked and how it was scaled, by name: any difference makes two
    cells incomparable. ``references`` are the SHA-256 of each stimulus's reference ('' without
    one), ``quality`` the human scores on 0..100, higher = better.
    """

    configuration: dict[str, str]
    references: tuple[str, ...]
    quality: tuple[float, ...]
    trials: tuple[SavedTrial, ...]

    def plain(self) -> dict[str, Any]:
        """As JSON holds it; crosses processes."""
        return {
            "configuration": dict(self.configuration),
            "references": list(self.references),
            "quality": list(self.quality),
            "trials": [trial.plain() for trial in self.trials],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> CellRecord:
        """The inverse of `plain`; ValueError or TypeError for anything else."""
        return cls(
            configuration={str(k): str(v) for k, v in plain["configuration"].items()},
            references=tuple(map(str, plain["references"])),
            quality=tuple(float(q) for q in plain["quality"]),
            trials=tuple(_trial(*trial) for trial in plain["trials"]),
        )


@dataclass(frozen=True, slots=True)
class SavedCell:
    """One cell of a run: its row, and what a comparison needs beside it."""

    row: Row
    record: CellRecord

    @property
    def reply_times(self) -> dict[tuple[tuple[str, ...], int], float]:
        """Time of each reply by question: the stimuli in presentation order, and the repeat."""
        hashes = [item[1] for item in self.row.per_stimulus]
        return {
            (tuple(hashes[i] for i in trial.stimuli), trial.repeat): trial.replied_at
            for trial in self.record.trials
        }


@dataclass(frozen=True, slots=True)
class Run:
    """A measured run. ``partial`` says why it is not a whole one, in sentences; () for whole.

    ``fingerprint`` is the identity that the model's backend states, ``commit`` that of the code
    under test. Times in seconds since the epoch; ``cost`` in the currency of the model's price.
    ``experts`` are expert metrics on difficult samples, a record for each set.
    """

    model: str
    fingerprint: str | None
    preset: str
    seed: int
    rows: tuple[Row, ...]
    records: dict[str, CellRecord]
    started_at: float
    saved_at: float
    replies: dict[str, float] | None = None
    cost: float | None = None
    commit: str | None = None
    versions: dict[str, str] | None = None
    partial: tuple[str, ...] = ()
    name: str | None = None
    number: int | None = None
    experts: tuple[Measured, ...] = ()

    @property
    def title(self) -> str:
        """ "0003_nightly", or the model's name where the run was not saved as a baseline."""
        return self.model if self.number is None else f"{self.number:04d}_{self.name}"

    def cell(self, name: str) -> SavedCell | None:
        """A cell by name; None where the run has none of that name."""
        row = next((row for row in self.rows if row.cell == name), None)
        return None if row is None else SavedCell(row, self.records[name])

    @property
    def cells(self) -> dict[str, SavedCell]:
        return {row.cell: SavedCell(row, self.records[row.cell]) for row in self.rows}


# --- From a measured cell -----------------------------------------------------------------------


def record_of(result: CellResult) -> CellRecord:
    """The record of a measured cell; pure, and plain enough to cross processes with `plain`."""
    cell, stimuli = result.cell, result.cell.stimuli
    return CellRecord(
        configuration=configuration_of(cell),
        references=tuple(stimuli.references),
        quality=tuple(float(q) for q in stimuli.quality),
        trials=tuple(
            SavedTrial(
                tuple(int(i) for i in asked.trial.stimuli),
                int(asked.trial.repeat),
                _plain_judgement(asked.judgement),
                float(asked.reply.created_at),
            )
            for asked in result.asked
        ),
    )


def configuration_of(cell: Cell) -> dict[str, str]:
    """What decides, beside stimuli and model, what a cell asks and how it is scaled."""
    return {
        "preset": cell.preset,
        "seed": str(cell.seed),
        "scaling": cell.scaling,
        "repeats": str(cell.repeats),
        "selection": cell.selection,
        "wording": wording_hash(cell.strategy, cell.strategies),
        **({"soft": "True"} if cell.soft else {}),
    }


def check_cell(cell: Cell, baseline: Run) -> None:
    """Refuse a cell that could not be compared with the baseline, before anything is asked.

    A cell that the baseline lacks is new, and fine.
    """
    before = baseline.cell(cell.id)
    if before is None:
        return
    stimuli = cell.stimuli if cell.scenario == "nr" else cell.stimuli.with_references()
    problem = mismatch(
        (stimuli.manifest, configuration_of(cell)),
        (before.row.manifest, before.record.configuration),
    )
    if problem:
        raise UsageError(f"{cell.id} cannot be compared with baseline {baseline.title}: {problem}")


def mismatch(
    candidate: tuple[str, Mapping[str, str]], baseline: tuple[str, Mapping[str, str]]
) -> str | None:
    """Why two cells did not answer the same questions, each a (manifest, configuration)."""
    for name in sorted({*candidate[1], *baseline[1]}):
        now, before = (side[1].get(name, "none") for side in (candidate, baseline))
        if now != before:
            said = f"now {now}, baseline {before}" if len(now) < 30 else "changed since"
            return f"{name} differs ({said}); run with the baseline's or save a new baseline"
    if candidate[0] != baseline[0]:
        return (
            f"its stimuli differ (manifest {candidate[0][:12]}…, baseline {baseline[0][:12]}…): "
            "other images, human scores or sample; use the same or save a new baseline"
        )
    return None


def wording_hash(strategy: str, extra: Path | None = None) -> str:
    """SHA-256 over a strategy's templates and settings: other words are another question."""
    from iqa_checks.prompts import find_strategy

    found = find_strategy(strategy, extra)
    digest = hashlib.sha256(f"{found.exemplars} {found.max_tokens}".encode())
    for path in sorted(p for p in found.templates.rglob("*") if p.is_file()):
        text = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"\n{path.name}\n".encode() + text)
    return digest.hexdigest()


def _plain_judgement(judgement: Judgement) -> float | str | tuple[int, ...] | dict[str, str]:
    from iqa_checks.protocols import Preference, Ranking, Rating

    if isinstance(judgement, Rating):
        return float(judgement.score)
    if isinstance(judgement, Preference):
        return str(judgement.choice) if judgement.outcome is None else float(judgement.outcome)
    if isinstance(judgement, Ranking):
        return tuple(int(rank) for rank in judgement.ranks)
    return {"unparsed": str(judgement.reason)}


def judged_of(record: CellRecord, protocol: str) -> Judged | None:
    """Comparative judgements as arrays; None for ratings."""
    import numpy as np

    from iqa_checks.comparison import Judged
    from iqa_checks.scaling import pairs_from_ranking

    if protocol == "single":
        return None
    worth = {"first": 1.0, "second": 0.0, "comparable": 0.5}
    edges: list[tuple[int, int, int, float]] = []
    for number, trial in enumerate(record.trials):
        said, shown = trial.judgement, trial.stimuli
        if isinstance(said, str):
            edges.append((number, shown[0], shown[1], worth[said]))
        elif isinstance(said, float):
            edges.append((number, shown[0], shown[1], said))
        elif isinstance(said, tuple):
            pairs = pairs_from_ranking(said)
            edges += [(number, shown[i], shown[j], outcome) for i, j, outcome in pairs]
    columns = np.array(edges, dtype=np.float64).reshape(-1, 4).T
    trial, first, second = columns[:3].astype(np.int64)
    return Judged(
        trial,
        first,
        second,
        columns[3],
        n_trials=len(record.trials),
        n_stimuli=len(record.quality),
        ordered=protocol == "double",
    )


# --- A run as a document ------------------------------------------------------------------------


def document_of(run: Run) -> dict[str, Any]:
    """The run as JSON holds it, checksum included."""
    content: dict[str, Any] = {
        "kind": KIND,
        "schema": SCHEMA_VERSION,
        "name": run.name,
        "number": run.number,
        "model": run.model,
        "fingerprint": run.fingerprint,
        "preset": run.preset,
        "seed": run.seed,
        "started_at": run.started_at,
        "saved_at": run.saved_at,
        "commit": run.commit,
        "versions": run.versions or {},
        "replies": run.replies,
        "cost": run.cost,
        "partial": list(run.partial),
        "rows": [row.plain() for row in run.rows],
        "records": {cell: record.plain() for cell, record in sorted(run.records.items())},
        "experts": [measured.plain() for measured in run.experts],
    }
    plain: dict[str, Any] = json.loads(_json(content))  # tuples as the lists that they become
    return plain | {"checksum": checksum(plain)}


def dumped(run: Run) -> str:
    """The document as text: one line per field, row, and record, so that it can be compared."""
    parts = []
    for key, value in document_of(run).items():
        if key in ("rows", "experts") and value:
            text = "[\n" + ",\n".join(_json(row) for row in value) + "\n]"
        elif key == "records" and value:
            text = "{\n" + ",\n".join(f"{_json(c)}: {_json(r)}" for c, r in value.items()) + "\n}"
        else:
            text = _json(value)
        parts.append(f"{_json(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a document without its checksum."""
    bare = {key: value for key, value in content.items() if key != "checksum"}
    text = json.dumps(bare, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


# --- Files --------------------------------------------------------------------------------------


def save(run: Run, folder: Path, name: str, *, allow_partial: bool = False) -> Path:
    """Write ``run`` as the next baseline of ``folder``, "0007_NAME.json".

    Raises
    ------
    UsageError
        The run is partial and that was not allowed, has no cells, the name is not one for a file,
        or the folder cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"baseline name {name!r}: use letters, digits, dots, dashes and underscores"
        )
    if not run.rows:
        raise UsageError(f"baseline {name}: no cell was measured, so there is nothing to save")
    if run.partial and not allow_partial:
        raise UsageError(
            f"baseline {name} not saved: {' '.join(run.partial)} Run the whole suite, or allow a "
            "partial baseline (--iqa-save-partial)"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _write_next(run, folder, name)
    except OSError as error:
        raise UsageError(f"baseline {name} cannot be written to {folder}: {error}") from None


def _write_next(run: Run, folder: Path, name: str) -> Path:
    """Write under the first free number; runs that save at once get numbers of their own."""
    number = max((k for k, _ in _numbered(folder)), default=0)
    while True:
        number += 1
        claim = folder / f".{number:04d}.claim"
        try:
            claim.open("x").close()
        except FileExistsError:  # somebody is writing this one
            continue
        try:
            if any(k == number for k, _ in _numbered(folder)):
                continue
            target = folder / f"{number:04d}_{name}.json"
            part = folder / f".{target.name}.part"
            part.write_text(
                dumped(replace(run, name=name, number=number)), encoding="utf-8", newline="\n"
            )
            os.replace(part, target)
            return target
        finally:
            claim.unlink()


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    found = [(_NUMBERED.fullmatch(path.name), path) for path in folder.glob("*.json")]
    return sorted((int(m.group(1)), path) for m, path in found if m)


def baselines(folder: Path) -> list[Path]:
    """Baseline files of a folder in the order of their numbers."""
    if not folder.is_dir():
        raise UsageError(f"no baselines: {folder} is not a folder; save one with --iqa-save NAME")
    return [path for _, path in _numbered(folder)]


def find(name: str, folder: Path) -> Path:
    """The file of a baseline: a path, a number ("3", "0003"), a file name, or the newest NAME.

    Raises `UsageError` that lists what there is.
    """
    given = Path(name)
    if given.suffix == ".json" and given.is_file():
        return given
    known = _numbered(folder) if folder.is_dir() else []
    for number, path in reversed(known):
        title = path.name.removesuffix(".json")
        if name in (title, path.name, title.partition("_")[2]):
            return path
        if name.isdecimal() and int(name) == number:
            return path
    listed = ", ".join(path.name.removesuffix(".json") for _, path in known) or "none yet"
    raise UsageError(f"no baseline {name!r} in {folder}; there is: {listed}")


def read(path: Path) -> Run:
    """Read a run; every defect is a `UsageError` of one line that names the file and the remedy."""
    document = _parsed(path)
    _check_head(document, path)
    try:
        run = _run(document)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        what = f"field {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"{path} is not a whole run of schema {SCHEMA_VERSION} ({what}); save it again"
        ) from None
    _check_cells(run, path)
    return run


def _parsed(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise UsageError(f"{path} holds {constant}, which is no number; save it again")

    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"{path} cannot be read: {why}") from None
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{path} is cut or damaged: {error.msg} in line {error.lineno}; "
            "restore it or save it again"
        ) from None
    except RecursionError:
        raise UsageError(f"{path} is nested too deeply to be a saved run") from None
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise UsageError(f"{path} is not a run saved by iqa_checks (no kind {KIND!r})")
    return document


def _check_head(document: Mapping[str, Any], path: Path) -> None:
    found = document.get("schema")
    if found != SCHEMA_VERSION:
        raise UsageError(
            f"{path} has schema version {found!r}, this iqa_checks reads {SCHEMA_VERSION}; "
            "save the baseline again with this version"
        )
    try:
        actual = checksum(document)
    except ValueError:
        raise UsageError(f"{path} holds a number that is not finite; save it again") from None
    if document.get("checksum") != actual:
        raise UsageError(
            f"{path} was changed after it was saved: its checksum does not match; "
            "restore it or save it again"
        )


def _run(document: Mapping[str, Any]) -> Run:
    return Run(
        model=str(document["model"]),
        fingerprint=document["fingerprint"],
        preset=str(document["preset"]),
        seed=int(document["seed"]),
        rows=tuple(Row.from_plain(row) for row in document["rows"]),
        records={c: CellRecord.from_plain(r) for c, r in document["records"].items()},
        started_at=float(document["started_at"]),
        saved_at=float(document["saved_at"]),
        replies=document["replies"],
        cost=document["cost"],
        commit=document["commit"],
        versions=dict(document["versions"]),
        partial=tuple(document["partial"]),
        name=document["name"],
        number=document["number"],
        experts=tuple(map(Measured.from_plain, document.get("experts", ()))),
    )


def _check_cells(run: Run, path: Path) -> None:
    seen: set[str] = set()
    for row in run.rows:
        if row.cell in seen:
            raise UsageError(f"{path} holds the cell {row.cell} twice; keep one and save it again")
        seen.add(row.cell)
        record = run.records.get(row.cell)
        if record is None:
            raise UsageError(f"{path} has no record of the cell {row.cell}; save it again")
        problem = _inconsistency(row, record)
        if problem:
            raise UsageError(f"{path}, cell {row.cell}: {problem}; save it again")


def _inconsistency(row: Row, record: CellRecord) -> str | None:
    n = len(row.per_stimulus)
    if not n == row.n == len(record.references) == len(record.quality):
        return f"{row.n} stimuli, but {n} scores and {len(record.quality)} human scores"
    numbers = [
        *record.quality,
        *(v for item in row.per_stimulus for v in item[2:] if v is not None),
    ]
    if not all(math.isfinite(v) for v in numbers):
        return "a score is not a finite number"
    if any(not 0 <= i < n for trial in record.trials for i in trial.stimuli):
        return f"a trial names a stimulus that is not among the {n}"
    return None


def _trial(stimuli: Sequence[Any], repeat: Any, judgement: Any, replied_at: Any) -> SavedTrial:
    return SavedTrial(
        tuple(int(i) for i in stimuli), int(repeat), _judgement(judgement), float(replied_at)
    )


def _judgement(said: Any) -> float | str | tuple[int, ...] | dict[str, str]:
    if isinstance(said, dict):
        return {"unparsed": str(said["unparsed"])}
    if isinstance(said, (list, tuple)):
        return tuple(int(rank) for rank in said)
    if isinstance(said, str):
        if said not in _CHOICES:
            raise ValueError(f"judgement {said!r} is none of {', '.join(_CHOICES)}")
        return said
    return float(said)


# --- What a run knows of itself -----------------------------------------------------------------


def partial_reasons(
    *,
    exit_status: int,
    expected: int,
    measured: int,
    deselected: int = 0,
    limit: int | None = None,
    failed: Sequence[str] = (),
) -> tuple[str, ...]:
    """Why a run should not become a baseline; () where nothing speaks against it.

    Parameters
    ----------
    exit_status
        pytest's; 0 passed, 1 some tests failed, anything else ended early.
    expected, measured, deselected
        Cells collected, measured, and left out by -k, -m or --deselect.
    limit
        ``--iqa-limit``, None without one.
    failed
        Cells whose gates failed.
    """
    reasons = []
    if exit_status not in (0, 1):
        reasons.append(f"The run ended early (exit status {exit_status}).")
    if deselected:
        reasons.append(f"{deselected} cells were deselected.")
    if measured < expected:
        reasons.append(f"Only {measured} of {expected} cells were measured.")
    if limit is not None:
        reasons.append(f"--iqa-limit {limit} shortened the stimulus sets.")
    if failed:
        reasons.append(f"{len(failed)} cells failed their gates ({', '.join(failed[:3])}).")
    return tuple(reasons)


def current_commit(folder: Path) -> str | None:
    """The commit under test: the CI's word for it, or git's; None where there is neither."""
    for variable in ("GITHUB_SHA", "CI_COMMIT_SHA", "GIT_COMMIT"):
        if os.environ.get(variable):
            return os.environ[variable]
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip() or None
