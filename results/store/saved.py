"""What a run folder holds that a stopped run continues from, whichever command wrote it."""

from __future__ import annotations

from pathlib import Path

from ...errors import MemxError
from .run_info import read_info

# of `memx train`, `memx evolve-namm`, `memx eval` and `memx eval-namm`
_RESUMED_FROM = (
    "state/step-*",
    "state/evolution.json",
    "answers.jsonl",
    "harness.jsonl",
    "prompts.jsonl",
    "units.jsonl",
)


def is_worth_keeping(folder: Path) -> bool:
    """Whether a run is finished, or has saved something that it can continue from."""
    saved = (path for pattern in _RESUMED_FROM for path in folder.glob(pattern))
    if any(path.is_dir() or path.stat().st_size for path in saved):
        return True
    try:
        return read_info(folder).get("status") == "finished"
    except MemxError:
        return False


def saved_step(state: Path) -> int | None:
    """The step of the newest saved state, or the generation of a saved evolution; None without one."""
    steps = [int(path.name[5:]) for path in state.glob("step-*") if path.name[5:].isdecimal()]
    arrays = [path.stem.split("-")[1] for path in state.glob("evolution-*-*.safetensors")]
    return max([*steps, *(int(number) for number in arrays if number.isdecimal())], default=None)
