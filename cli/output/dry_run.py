"""What the dry runs of several commands share: the folders that would be written, and what stands in the way."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...results.store.runs import RunStore
from .console import say

_FEW = 8  # new folders that are all listed


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
    """Print a line for each run folder that would be written: of many new ones, for the first and for how many more."""
    texts = [(folder, would_write(folder)) for folder in folders]
    new = [text for folder, text in texts if text == folder]
    for text in (text for folder, text in texts if text != folder):
        say(f"would write {text}")
    shown = new if len(new) <= _FEW else new[: _FEW - 1]
    for text in shown:
        say(f"would write {text}")
    if len(new) > len(shown):
        say(f"and {len(new) - len(shown)} more; --json lists them all")
