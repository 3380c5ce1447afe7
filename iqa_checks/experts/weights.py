"""Weight files of experts and embedders: found on this machine or reported as absent.

Nothing is downloaded here, ever. A file is looked for in the folder the user names, then where
PyTorch and Hugging Face keep what was downloaded before.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from iqa_checks.errors import UsageError

Kind = Literal["torchvision", "pyiqa", "huggingface", "clip", "stlpips-pytorch", "own export"]

_SOURCES: dict[str, str] = {
    "torchvision": "https://download.pytorch.org/models/{name}",
    "pyiqa": "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/{name}",
    "huggingface": "https://huggingface.co/{repository}",
    "clip": "OpenAI's CLIP ({name}, https://github.com/openai/CLIP)",
    "stlpips-pytorch": "pip install 'iqa_checks[experts]' (the package stlpips-pytorch has it)",
    "own export": "export it with torch.jit.save, see docs/experts.md",
}
_FOLDERS = {"torchvision": "checkpoints", "pyiqa": "pyiqa", "clip": "clip"}


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file a metric loads.

    ``name`` is its place inside a weights folder: the bare file name, or for Hugging Face
    OWNER/REPOSITORY/FILE (OWNER/REPOSITORY for a whole one). ``megabytes`` is its size as
    published or as its parameters make it, None where neither is known to us.
    """

    name: str
    megabytes: float | None
    kind: Kind

    def __str__(self) -> str:
        size = "size unknown" if self.megabytes is None else f"{self.megabytes:,g} MB"
        return f"{self.name} ({size})"

    @property
    def repository(self) -> str:
        return "/".join(self.name.split("/")[:2])

    @property
    def file(self) -> str:
        """File name inside the Hugging Face repository, '' for a whole one."""
        return "/".join(self.name.split("/")[2:])

    @property
    def source(self) -> str:
        return _SOURCES[self.kind].format(name=self.name, repository=self.repository)

    def find(self, weights_dir: Path | None) -> Path | None:
        """The file, or the folder of a whole repository; None where it is not at hand."""
        candidates = [] if weights_dir is None else [weights_dir / self.name]
        folder = _FOLDERS.get(self.kind)
        if folder is not None:
            if weights_dir is not None:
                candidates.append(weights_dir / "hub" / folder / self.name)
            candidates.append(torch_hub() / folder / self.name)
        if self.kind == "stlpips-pytorch":
            candidates.append(_package_folder("stlpips_pytorch") / "weights/vST0.0" / self.name)
        if self.kind == "huggingface":
            candidates += _in_hub_cache(self)
        return next((path for path in candidates if path.exists()), None)


def find_all(
    files: Sequence[WeightFile], weights_dir: Path | None, *, who: str
) -> dict[WeightFile, Path]:
    """Where each file is; one `UsageError` that names all that are absent, and what to do."""
    found = {file: file.find(weights_dir) for file in files}
    absent = [file for file, path in found.items() if path is None]
    if absent:
        folder = weights_dir or Path("FOLDER")
        lines = [f"  {folder / file.name}  <-  {file.source}  {file}" for file in absent]
        how = "" if weights_dir else " and give that folder (--iqa-weights FOLDER)"
        raise UsageError(
            f"{who} needs weights that are not on this machine, and nothing is downloaded "
            f"unasked. Put{how}:\n" + "\n".join(lines)
        )
    return {file: path for file, path in found.items() if path is not None}


def identity(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file, or of the names and sizes of a folder's files."""
    return [_digest(path, path.stat().st_mtime_ns) for path in paths]


@cache
def _digest(path: Path, _changed_ns: int) -> str:
    if path.is_dir():
        names = sorted(f"{p.relative_to(path)} {p.stat().st_size}" for p in path.rglob("*"))
        return hashlib.sha256("\n".join(names).encode()).hexdigest()
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def torch_hub() -> Path:
    """Where PyTorch keeps downloaded weights, without importing it."""
    cache_home = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    return Path(os.environ.get("TORCH_HOME", f"{cache_home}/torch")).expanduser() / "hub"


@contextmanager
def staged(found: dict[WeightFile, Path]) -> Iterator[None]:
    """Packages find these files as if they had downloaded them, and cannot download others.

    Used while a model is built: links in a temporary folder, in the layout of the caches.
    """
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        hub = Path(name) / "hub"
        for file, path in found.items():
            _place(file, path, hub)
        for target, attribute, value in _redirections(hub):
            stack.enter_context(mock.patch.object(target, attribute, value))
        yield


def _place(file: WeightFile, path: Path, hub: Path) -> None:
    folder = _FOLDERS.get(file.kind)
    if folder is not None:
        _link(path, hub / folder / file.name)
    elif file.kind == "stlpips-pytorch":
        _link(path, hub / "pyiqa" / file.name)
    elif file.kind == "huggingface":
        cached = hub / "huggingface" / f"models--{file.repository.replace('/', '--')}"
        (cached / "refs").mkdir(parents=True, exist_ok=True)
        (cached / "refs" / "main").write_text("local")
        _link(path, cached / "snapshots" / "local" / file.file if file.file else
              cached / "snapshots" / "local")  # fmt: skip


def _link(path: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(path.resolve(), target_is_directory=path.is_dir())


def _redirections(hub: Path) -> list[tuple[Any, str, Any]]:
    """What to replace while a model is built: cache folders, and everything that downloads."""
    import urllib.request

    import torch.hub

    refuse = _refuse_download
    patches: list[tuple[Any, str, Any]] = [
        (torch.hub, "_hub_dir", str(hub)),
        (torch.hub, "download_url_to_file", refuse),
        (urllib.request, "urlopen", refuse),
    ]
    hugging_face = _imported("huggingface_hub.constants")
    if hugging_face is not None:
        patches += [
            (hugging_face, "HF_HUB_OFFLINE", True),
            (hugging_face, "HF_HUB_CACHE", str(hub / "huggingface")),
        ]
    with_pyiqa = _imported("pyiqa.utils.download_util")
    if with_pyiqa is not None:
        patches.append((with_pyiqa, "download_url_to_file", refuse))
        # Modules hold copies of the name; LIQE's keeps text features there, whatever its weights.
        patches += [
            (module, "DEFAULT_CACHE_DIR", str(hub / "pyiqa"))
            for name, module in list(sys.modules.items())
            if name.startswith("pyiqa.") and hasattr(module, "DEFAULT_CACHE_DIR")
        ]
        (hub / "pyiqa").mkdir(parents=True, exist_ok=True)
    return patches


def _refuse_download(url: object, *_: object, **__: object) -> None:
    raise UsageError(
        f"a package asked to download {getattr(url, 'full_url', url)}, which is not done unasked: "
        "get that file yourself and put it where docs/experts.md says; if it is there, it is not "
        "the file that the package expects (its checksum differs)"
    )


def _imported(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def _package_folder(package: str) -> Path:
    from importlib.util import find_spec

    spec = find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else Path(f"/no such package/{package}")


def _in_hub_cache(file: WeightFile) -> list[Path]:
    """Snapshots of a Hugging Face repository in the user's cache, without importing the client."""
    cache_home = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    home = os.environ.get("HF_HOME", f"{cache_home}/huggingface")
    root = Path(os.environ.get("HF_HUB_CACHE", f"{home}/hub")).expanduser()
    repository = root / f"models--{file.repository.replace('/', '--')}"
    try:
        commit = (repository / "refs" / "main").read_text().strip()
    except OSError:
        return []
    return [repository / "snapshots" / commit / file.file]
