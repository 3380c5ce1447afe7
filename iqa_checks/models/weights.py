"""Where a local model lies and what it is: its folder, its size, the hash of its files.

A local model is its weights' hash: the same files are the same model in any folder, under any name
and behind any port, so that replies are found again. What is hashed is what decides an answer:
weights, configuration, tokenizer, processor and chat template, by name and content, and the code
that comes with them where it is allowed to run. Cards, licences and logs are not.

Nothing here reaches for the network or imports more than the standard library.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iqa_checks.errors import UsageError

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
SETTINGS = (".json", ".jinja", ".model", ".txt", ".tiktoken")
REMEMBERED = 2**20  # bytes: hashes of larger files are kept between runs
_CHUNK = 2**22
_SHA256 = re.compile(r"[0-9a-f]{64}")


def folder_of(repository: str, revision: str = "", *, name: str) -> Path:
    """The folder of a model: ``repository`` is a folder, or ORG/NAME in the user's hub cache.

    ``name`` is what the user asked for. Raises `UsageError` where weights are not at hand.
    """
    folder = Path(repository).expanduser()
    if is_folder(repository):
        _check_complete(folder, name, "save the model there with save_pretrained")
        return folder.resolve()
    at = f" --revision {revision}" if revision else ""
    fetch = f"fetch them with: hf download {repository}{at}"
    cached = hub_cache() / f"models--{repository.replace('/', '--')}"
    commit = revision or "main"
    with contextlib.suppress(OSError):
        commit = (cached / "refs" / commit).read_text().strip()
    snapshot = cached / "snapshots" / commit
    if not snapshot.is_dir():
        raise UsageError(
            f"--model {name}: the weights of {repository} are not in {hub_cache()}; {fetch}"
        )
    _check_complete(snapshot, name, fetch)
    return snapshot


def is_folder(repository: str) -> bool:
    """Whether a repository is named by its folder, not by ORG/NAME."""
    return Path(repository).expanduser().is_dir() or repository.startswith((".", "/", "~"))


def hub_cache() -> Path:
    """Where huggingface_hub keeps what it has fetched."""
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub")).expanduser()


def weight_bytes(folder: Path) -> int:
    """The size of the weights, in bytes."""
    return sum(path.stat().st_size for path in _weight_files(folder))


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json``; `UsageError` where it cannot be read."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder / 'config.json'} cannot be read: {error}") from None
    return config if isinstance(config, dict) else {}


def weights_hash(folder: Path, *, with_code: bool = False) -> str:
    """SHA-256 over names and contents of the files that decide an answer.

    Hashes of large files are remembered by path, size and time of change in the cache folder;
    those in the hub's cache carry theirs as their name.
    """
    suffixes = (*SETTINGS, ".py") if with_code else SETTINGS
    files = [p for p in folder.rglob("*") if p.suffix in suffixes and _visible(p, folder)]
    memory = _Memory(_memory_file())
    lines = [
        f"{path.relative_to(folder).as_posix()} {memory.sha256(path)}"
        for path in sorted([*files, *_weight_files(folder)])
    ]
    memory.keep()
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _visible(path: Path, folder: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(folder).parts)


def _weight_files(folder: Path) -> list[Path]:
    """Safetensors where there are any: the same weights in an older form are not read then."""
    files = [p for p in folder.rglob("*") if p.suffix in WEIGHTS and _visible(p, folder)]
    safe = [path for path in files if path.suffix == ".safetensors"]
    return safe or files


def _check_complete(folder: Path, name: str, remedy: str) -> None:
    if not (folder / "config.json").is_file():
        found = "no such folder" if not folder.is_dir() else "it has no config.json"
        raise UsageError(
            f"--model {name}: {folder} is not the folder of a model: {found}; {remedy}"
        )
    missing = [shard for shard in _shards(folder) if not (folder / shard).is_file()]
    if missing or not _weight_files(folder):
        lacks = f"the weights {missing[0]}" if missing else "any weights"
        raise UsageError(f"--model {name}: {folder} lacks {lacks}; {remedy}")


def _shards(folder: Path) -> Iterator[str]:
    """The files that an index of weights names."""
    for index in folder.glob("*.safetensors.index.json"):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            yield from sorted(set(json.loads(index.read_text())["weight_map"].values()))


def _memory_file() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root, "iqa_checks", "weights.json")


class _Memory:
    """Hashes of large files by path, size and time of change, kept in a JSON file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, list[Any]] = {}
        self._changed = False
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(file.read_text())
            self._known = known if isinstance(known, dict) else {}

    def sha256(self, path: Path) -> str:
        real = path.resolve()
        if _SHA256.fullmatch(real.name) and real.parent.name == "blobs":
            return real.name
        state = real.stat()
        if state.st_size < REMEMBERED:
            return hashlib.sha256(real.read_bytes()).hexdigest()
        stamp = [state.st_size, state.st_mtime_ns]
        if self._known.get(str(real), [])[:2] != stamp:
            self._known[str(real)] = [*stamp, _hash_file(real)]
            self._changed = True
        return str(self._known[str(real)][2])

    def keep(self) -> None:
        """Write what is new; a cache that cannot be written only costs time."""
        if not self._changed:
            return
        part = self._file.with_suffix(f".{os.getpid()}.part")
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(self._known))
            part.replace(self._file)


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
