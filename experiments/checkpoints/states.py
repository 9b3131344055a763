"""The saved states of a run, of one process or several: a folder -> step-N folders, oldest first. No torch here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TrainingState:
    """Where a run stands, but for its tensors: what `state.json` holds.

    position: of the stream of batches. before: what a pretrained model knew before training. seconds: of training so
    far. value_step: how value tables are stepped, sparse or dense; empty if none is trained.
    """

    position: dict[str, Any]
    before: dict[str, Any]
    seconds: float
    tokens: int
    value_step: str
    step: int


def read_state(folder: Path) -> TrainingState:
    """Read `state.json` of a saved state. Raises OSError, ValueError, KeyError or TypeError for a damaged one."""
    saved = json.loads((folder / "state.json").read_text("utf-8"))
    required = {key: saved[key] for key in ("position", "before", "seconds", "tokens", "step")}
    return TrainingState(**required, value_step=saved.get("value_step", ""))


def write_state(folder: Path, state: TrainingState) -> None:
    """Write `state.json`."""
    (folder / "state.json").write_text(json.dumps(vars(state), indent=2))


def begun_value_step(folder: Path) -> str:
    """How the run of the newest state steps its tables, sparse or dense; empty without a state or tables."""
    states = saved_states(folder)
    if not states:
        return ""
    try:
        return str(json.loads((states[-1] / "state.json").read_text("utf-8")).get("value_step", ""))
    except (OSError, ValueError, AttributeError):
        return ""  # `Checkpointer.restore` says what is wrong with it


def saved_states(folder: Path) -> list[Path]:
    """The whole states in a folder, oldest first."""
    return sorted(folder.glob("step-*")) if folder.is_dir() else []
