"""The saved states of a run, of one process or several: a folder -> step-N folders, oldest first. No torch here."""

from __future__ import annotations

import json
from pathlib import Path


def begun_value_step(folder: Path) -> str:
    """How the run of the newest state steps its tables, sparse or dense; empty without a state or tables."""
    states = saved_states(folder)
    if not states:
        return ""
    try:
        return str(json.loads((states[-1] / "state.json").read_text("utf-8")).get("value_step", ""))
    except (OSError, ValueError, AttributeError):
        return ""  # `load_state` says what is wrong with it


def saved_states(folder: Path) -> list[Path]:
    """The whole states in a folder, oldest first."""
    return sorted(folder.glob("step-*")) if folder.is_dir() else []
