"""What a run folder says of itself in run.json and config.yaml, read with care: a damaged file is named."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any, Literal, get_args

from ...errors import MemxError
from ...json_text import BadJson, parse_json
from ...yaml_text import BadYaml, parse_yaml

Status = Literal["finished", "interrupted", "running", "failed", "empty"]
_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("started", "ended", "experiment", "command", "device", "facts", "error"), str),
    **dict.fromkeys(("seed", "threads", "ranks", "steps", "tokens", "generations", "answer"), int),
    **dict.fromkeys(("facts_trained", "facts_held_out"), int),
    **dict.fromkeys(("seconds", "peak_bytes"), (int, float)),
}
_LARGEST = 2**20  # bytes of a config or of run.json


def is_run(path: Path) -> bool:
    """Whether a folder holds a run, or cannot be looked into."""
    try:
        (path / "run.json").lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def read_info(folder: Path) -> dict[str, Any]:
    """What run.json of a run folder says; empty if there is none.

    Raises:
        MemxError: It is damaged or cannot be read; the message names it.
    """
    path = folder / "run.json"
    text = read_text(path)
    if text is None:
        return {}
    try:
        info = parse_json(text)
    except BadJson as error:
        raise damaged(path, error.reason) from None
    if not isinstance(info, dict):
        raise damaged(path, "is not a section of keys and values")
    if info.get("status") not in get_args(Status):
        given = "no status" if "status" not in info else f"the unknown status {str(info['status'])[:40]!r}"
        raise damaged(path, f"has {given}")
    for name, kind in _KINDS.items():
        if info.get(name) is not None and (not isinstance(info[name], kind) or isinstance(info[name], bool)):
            raise damaged(path, f"has the {name} {str(info[name])[:40]!r}, which cannot be")
    return info


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a run folder; empty if there is none.

    Raises:
        MemxError: It is damaged or cannot be read; the message names it.
    """
    path = folder / "config.yaml"
    text = read_text(path)
    if text is None:
        return {}
    try:
        config = parse_yaml(text)
    except BadYaml as error:
        raise damaged(path, f"is not YAML: {error.place_and_reason}") from None
    if not isinstance(config, dict):
        raise damaged(path, "is not a section of keys and values")
    return config


def read_text(path: Path) -> str | None:
    """A text file of a run folder; None if it is not there.

    Raises:
        MemxError: It is no file of text, too large, or cannot be read; the message names it.
    """
    data = read_file(path, most=_LARGEST)
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        raise damaged(path, "is not UTF-8 text") from None


def read_file(path: Path, most: int | None = None, *, read: bool = True) -> bytes | None:
    """What a file of a run folder holds; None if it is not there.

    Args:
        path: The file.
        most: Bytes that it may have.
        read: Whether to read it, rather than only see that it can be: then nothing is returned of it.

    Raises:
        MemxError: It is no file, larger than so many bytes, or cannot be read; the message names it.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
            raise damaged(path, "is not a file")
        if most is not None and found.st_size > most:
            raise damaged(path, f"is larger than {most:,} bytes")
        return path.read_bytes() if read else b""
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None


def damaged(path: Path, what: str) -> MemxError:
    """The error for a file of a run folder that makes no sense."""
    joined = what if what.split()[0] in ("is", "has", "line") else f"is damaged: {what}"
    return MemxError(f"{path} {joined}", hint=f"restore that file, or delete the folder {path.parent}")


def unreadable(path: Path, error: Exception) -> MemxError:
    """The error for a file that the system does not give."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return MemxError(f"cannot read {path}: {reason}", hint="check its permissions and the disk")
