"""What the dry runs of several commands share: the folders that would be written, and what stands in the way."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...results.store.runs import RunStore
from .console import say


def would_write(folder: str) -> str:
    """The folder of a run, and whether the run itself would be refused because the folder has one already.

    Args:
        folder: The run folder.
    """
    path = Path(folder)
    if not RunStore(path.parent).has_content(path.name):
        return folder
    return f"{folder} (exists: add --resume to continue or keep it, or --force to replace it)"


def print_folders(folders: Iterable[str]) -> None:
    """Print a line for each run folder that would be written."""
    for folder in folders:
        say(f"would write {would_write(folder)}")
