"""Names in a table -> files in a set's folder, and never anywhere else.

Rules for names, which come from files that others wrote:

- A name is relative. An absolute one, a drive letter, a NUL and any ``..`` are refused, even where
  the path would come back inside: no published table has one.
- A symbolic link, of an image or of a folder on the way, must lead to a place inside the set's
  folder; one that leads outside is refused and the message names its target. (The set's folder
  itself may be reached through links: the user named it.)
- Case: the exact name wins; else the one file that differs by case alone (TID2013 ships
  ``I01_01_1.bmp`` beside ``i01_01_2.bmp`` and ``I01.BMP`` beside ``i25.bmp``); two such files with
  no exact one are ambiguous and refused.
- A table of scores that is a link outside is refused unread, too.
- Only regular files are images: a folder, a pipe or a device is refused, unopened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from iqa_checks.errors import StimulusError

MAX_FOLDERS = 4096  # looked into while searching; a home directory is not a data set


class Folder:
    """A set's folder. Each subfolder is listed once: 11,000 names cost one listing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._inside = root.resolve()
        self._listings: dict[str, dict[str, list[os.DirEntry[str]]]] = {}
        self._checked: set[str] = set()

    def find(self, name: str, folders: Sequence[str], where: str) -> Path | None:
        """The file of that name in the first of ``folders`` that has it, or None.

        Raises `StimulusError`, beginning with ``where``, for a name that breaks a rule.
        """
        parts = safe_parts(name, where)
        for folder in folders:
            entry = self._entry([*filter(None, folder.split("/")), *parts], where)
            if entry is not None:
                return Path(entry.path)
        return None

    def _entry(self, parts: Sequence[str], where: str) -> os.DirEntry[str] | None:
        folder = ""
        for part in parts[:-1]:
            step = self._pick(folder, part, where)
            if step is None or not step.is_dir():
                return None
            self._stay_inside(step, where)
            folder = f"{folder}/{step.name}" if folder else step.name
        found = self._pick(folder, parts[-1], where)
        if found is None or found.is_dir(follow_symlinks=False):
            return None
        self._stay_inside(found, where)
        return found

    def _stay_inside(self, entry: os.DirEntry[str], where: str) -> None:
        """A link may not lead outside, and what it leads to must be a file or a folder."""
        if entry.path in self._checked:
            return
        if entry.is_symlink():
            target = Path(entry.path).resolve()
            if not target.is_relative_to(self._inside):
                raise StimulusError(
                    f"{where}: {entry.path} is a link to {target}, outside the set's folder "
                    f"{self.root}; put the files there, or name the folder that holds them"
                )
            if not target.exists():
                raise StimulusError(f"{where}: {entry.path} is a link to nothing; restore it")
        if not (entry.is_file() or entry.is_dir()):
            kind = stat.filemode(entry.stat().st_mode)
            raise StimulusError(f"{where}: {entry.path} is not a file ({kind}); remove it")
        self._checked.add(entry.path)

    def _pick(self, folder: str, name: str, where: str) -> os.DirEntry[str] | None:
        same = self._listing(folder).get(name.casefold(), [])
        fitting = [entry for entry in same if entry.name == name] or same
        if len(fitting) > 1:
            names = ", ".join(sorted(entry.name for entry in same))
            raise StimulusError(
                f"{where}: {name} may be any of {names} in {self.root / folder}, which differ by "
                "case alone; keep the right one"
            )
        return fitting[0] if fitting else None

    def _listing(self, folder: str) -> dict[str, list[os.DirEntry[str]]]:
        if folder not in self._listings:
            listing: dict[str, list[os.DirEntry[str]]] = {}
            try:
                with os.scandir(self.root / folder) as entries:
                    for entry in entries:
                        listing.setdefault(entry.name.casefold(), []).append(entry)
            except OSError:
                pass  # an absent folder holds nothing
            self._listings[folder] = listing
        return self._listings[folder]


def safe_parts(name: str, where: str) -> list[str]:
    """The parts of a relative name; `StimulusError` where it could lead elsewhere."""
    parts = name.replace("\\", "/").split("/")
    absolute = parts[0] == "" or parts[0].endswith(":")
    if not name or absolute or ".." in parts or "\0" in name:
        raise StimulusError(
            f"{where}: the name {name!r} leads outside the set's folder or nowhere; expected a "
            "relative path without '..'; restore the published table"
        )
    return [part for part in parts if part not in ("", ".")] or [name]


def require_inside(path: Path, root: Path) -> None:
    """Refuse a file, a table say, that is a link to a place outside ``root``."""
    target = path.resolve()
    if not target.is_relative_to(root.resolve()):
        raise StimulusError(
            f"{path} is a link to {target}, outside {root}; put the file itself there"
        )


def folders_below(root: Path, depth: int = 3) -> list[Path]:
    """``root`` and the folders below it, nearest first, links not followed.

    Stops after 4,096 folders.
    """
    found = [root]
    level = [root]
    for _ in range(depth):
        below: list[Path] = []
        for folder in level:
            below += _subfolders(folder)
            if len(found) + len(below) > MAX_FOLDERS:
                return [*found, *below][:MAX_FOLDERS]
        found += below
        level = below
    return found


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return [folder / name for name in sorted(names) if not name.startswith(".")]
