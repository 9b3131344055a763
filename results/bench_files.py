"""What `memx bench --save` leaves in a folder: rows.jsonl and environment.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .files import make_folder, write_atomically
from .rows import Row, write_rows


def save_bench(folder: Path, rows: Sequence[Row], environment: Mapping[str, Any]) -> None:
    """Write both files, each whole or not at all. Raises MemxError when the disk is full or forbids it."""
    make_folder(folder)
    write_atomically(folder / "environment.json", json.dumps(environment, indent=2) + "\n")
    write_rows(folder / "rows.jsonl", rows)
