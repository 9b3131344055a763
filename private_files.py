"""Files that code is loaded from: whether only this user can have written them, and folders that only they can write.

A library or a setting of a cache is used only if nobody else could have put it there. The file and every folder above
it must belong to the user or to root, and nobody else may write to them. A shared folder in which only owners rename
and delete their files, as /tmp, may lie above. For data it is enough that the files are the user's own: another user
who can rename folders above them cannot make any.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from functools import cache
from pathlib import Path


def stranger_in(path: Path) -> str:
    """Why another user may have written a file or folder; empty if none can.

    Args:
        path: The file or folder, which is there.

    Returns:
        One phrase that names the first file or folder that somebody else owns or may write to.

    Raises:
        OSError: The path, or a folder above it, cannot be looked at.
    """
    if not hasattr(os, "getuid"):  # Windows keeps caches where only their user writes
        return ""
    given = path.absolute()
    for one in dict.fromkeys((given, given.resolve())):  # where a link points to, and who may change the link
        for place in (one, *one.parents):
            if problem := _problem(place, may_be_shared=place != one):
                return problem
    return ""


def stranger_inside(folder: Path) -> str:
    """Why another user may have written a folder of data, or a file in it; empty if none can.

    Args:
        folder: The folder, without folders in it. What is the user's own loses what others may do to it.

    Returns:
        One phrase that names the first file or folder that somebody else owns or may write to.

    Raises:
        OSError: The folder cannot be looked at.
    """
    if not hasattr(os, "getuid"):
        return ""
    for place in dict.fromkeys((folder, folder.resolve(), *sorted(folder.iterdir()))):
        found = place.lstat()
        if found.st_uid == os.getuid() and not stat.S_ISLNK(found.st_mode) and found.st_mode & 0o022:
            with suppress(OSError):
                place.chmod(stat.S_IMODE(found.st_mode) & ~0o022)
        if problem := _problem(place, may_be_shared=False):
            return problem
    return ""


def private_folder(path: Path) -> Path:
    """Make a folder that only the user can write to, with its parents.

    Args:
        path: The folder. One that is there, and the user's own, loses what others may do in it.

    Returns:
        The folder.

    Raises:
        OSError: The folder cannot be made, or is another user's.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if hasattr(os, "getuid") and found.st_uid == os.getuid() and stat.S_ISDIR(found.st_mode) and found.st_mode & 0o022:
        with suppress(OSError):  # on a disk that cannot be written `stranger_in` says so
            path.chmod(0o700)
    return path


def _problem(place: Path, *, may_be_shared: bool) -> str:
    """What is wrong with one file or folder; empty if nothing is."""
    found = place.lstat()
    if found.st_uid not in (os.getuid(), 0) and not (may_be_shared and found.st_uid == _unknown_root()):
        return f"{place} belongs to another user"
    if stat.S_ISLNK(found.st_mode):  # its mode says nothing
        return ""
    if may_be_shared and stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
        return ""
    by_group = found.st_mode & stat.S_IWGRP and not _is_own_group(found.st_gid)
    return f"other users can write to {place}" if by_group or found.st_mode & stat.S_IWOTH else ""


@cache
def _unknown_root() -> int | None:
    """The number that the machine's root has in a container which does not know root; None elsewhere."""
    try:
        known = Path("/proc/self/uid_map").read_text("ascii").splitlines()  # number inside, outside, how many
        if known and all(line.split()[1] != "0" for line in known):
            return int(Path("/proc/sys/kernel/overflowuid").read_text("ascii"))
    except (OSError, ValueError, IndexError):  # no Linux
        pass
    return None


def _is_own_group(number: int) -> bool:
    """Whether a group is the one of this user alone, as systems with the umask 002 give to every user."""
    import grp
    import pwd

    try:
        group, user = grp.getgrgid(number), pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
