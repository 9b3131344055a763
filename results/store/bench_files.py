"""What `memx bench --save` leaves in a folder: rows.jsonl and environment.json, whole after every op."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import MemxError
from ...files import make_folder, write_atomically
from .rows import Row, write_rows


def claim_bench(folder: Path, *, force: bool) -> None:
    """Make the folder of `--save` before anything is measured.

    Raises:
        MemxError: It holds rows or a run already and force is not set, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise MemxError(f"--save: {folder} is not a folder", hint="give a new folder")
    if not force and ((folder / "rows.jsonl").exists() or (folder / "run.json").exists()):
        raise MemxError(f"--save: {folder} already contains a benchmark", hint="give another folder, or add --force")
    make_folder(folder)
    write_rows(folder / "rows.jsonl", ())


def save_bench(folder: Path, rows: Sequence[Row], environment: Mapping[str, Any]) -> None:
    """Write both files, each whole or not at all.

    Raises:
        MemxError: The disk is full or forbids it.
    """
    write_atomically(folder / "environment.json", json.dumps(environment, indent=2) + "\n")
    write_rows(folder / "rows.jsonl", rows)
