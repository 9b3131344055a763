"""What `memx bench --save` leaves in a folder: rows.jsonl and environment.json, whole after every op."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import MemxError
from ...files import cannot_write, write_atomically
from ...leftovers import remove
from .claims import owned
from .rows import Row, write_rows


@contextmanager
def claim_bench(folder: Path, *, force: bool) -> Iterator[None]:
    """Own the folder of `--save` while the block measures; what it holds stays until something is saved.

    Raises:
        MemxError: It holds rows or a run already and force is not set, another process owns it, or it cannot be
            written.
    """
    _check_free(folder, force=force)
    busy = MemxError(f"--save: another process is writing {folder}", hint="wait until it ends, or give another folder")
    with owned(folder, busy, wait=0, leave_lock=False):
        _check_free(folder, force=force)
        yield


def save_bench(folder: Path, rows: Sequence[Row], environment: Mapping[str, Any]) -> None:
    """Write both files, each whole or not at all; rows never lie beside the environment of others.

    Raises:
        MemxError: The disk is full or forbids it.
    """
    about, text = folder / "environment.json", json.dumps(environment, indent=2) + "\n"
    try:
        known = about.read_text("utf-8") == text
    except (OSError, UnicodeDecodeError):
        known = False
    if not known:
        try:
            remove(about)
        except OSError as error:
            raise cannot_write(about, error) from None
    write_rows(folder / "rows.jsonl", rows)
    if not known:
        write_atomically(about, text)


def _check_free(folder: Path, *, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise MemxError(f"--save: {folder} is not a folder", hint="give a new folder")
    if not force and ((folder / "rows.jsonl").exists() or (folder / "run.json").exists()):
        raise MemxError(f"--save: {folder} already contains a benchmark", hint="give another folder, or add --force")
