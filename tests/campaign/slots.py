"""A folder where one command runs at a time, made of a master copy, and what a command changed in it.

`home` is the whole folder, and commands run some levels below it: what climbs out of its own folder is seen too.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

State = dict[str, tuple[int, ...]]
_LOCK = ".lock"  # files that stay, empty, where processes took turns


@dataclass
class Changes:
    """Paths below a slot's home that a command made, changed or took away."""

    made: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def all(self) -> list[str]:
        """All of them."""
        return [*self.made, *self.changed, *self.lost]


class Slot:
    """A copy of the master folder under `home`/above/work."""

    def __init__(self, home: Path, master: Path) -> None:
        self.home, self.master = home, master
        self.work = home / "above" / "work"
        self.printed = home.with_name(f"{home.name}-printed")
        self.environment = {
            "HOME": str(home / "user"),
            "XDG_CACHE_HOME": str(master.parent / "caches"),
            "TMPDIR": str(home / "temporary"),
        }
        self.renew()

    def renew(self) -> None:
        """Make everything as it is in the master copy."""
        if self.home.exists():
            shutil.rmtree(self.home)
        for name in ("user", "temporary", "above"):
            (self.home / name).mkdir(parents=True)
        shutil.copytree(self.master, self.work, symlinks=True)
        self.first = self.state()

    def state(self) -> State:
        """What is there now."""
        return snapshot(self.home)

    def changes(self) -> Changes:
        """What differs from `first`, by size, time and place of files; folders by their being there."""
        now, found = self.state(), Changes()
        found.made = [path for path in now if path not in self.first and not path.endswith(_LOCK)]
        found.lost = [path for path in self.first if path not in now]
        found.changed = [path for path, state in now.items() if self.first.get(path, state) != state]
        found.changed = [path for path in found.changed if not self._same(path)]
        return found

    def heal(self, paths: list[str]) -> None:
        """Give files that were damaged or added on purpose their first content, or take them away."""
        for path in paths:
            whole = self.work / path
            if path and whole.is_file():
                whole.unlink()
                if (self.master / path).is_file():
                    shutil.copy2(self.master / path, whole)

    def restore(self, found: Changes) -> None:
        """Undo what a command did."""
        if found.lost or found.changed:
            self.renew()
            return
        for path in sorted(found.made, reverse=True):  # what is in a folder before the folder
            whole = self.home / path
            if whole.is_dir() and not whole.is_symlink():
                shutil.rmtree(whole, ignore_errors=True)
            else:
                whole.unlink(missing_ok=True)

    def _same(self, path: str) -> bool:
        whole = self.home / path
        first = self.master / whole.relative_to(self.work) if whole.is_relative_to(self.work) else None
        return bool(first and first.is_file() and whole.is_file() and first.read_bytes() == whole.read_bytes())


def snapshot(root: Path) -> State:
    """Relative path -> kind, size, time and inode of a file; of a folder, its kind alone."""
    return dict(_entries(str(root), len(str(root)) + 1))


def _entries(folder: str, cut: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            info = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                yield entry.path[cut:], (stat.S_IFMT(info.st_mode),)
                yield from _entries(entry.path, cut)
            else:
                yield entry.path[cut:], (info.st_mode, info.st_size, info.st_mtime_ns, info.st_ino)
