"""What a user calls a model -> the folder or hub name to load; of a training run, its checkpoint. No torch here."""

from __future__ import annotations

import re
from pathlib import Path

from ...errors import MemxError, nearest
from ...hub import mute_hub
from ...results.store.resuming import resume_hint
from ...results.store.runs import Run
from .gemma3 import gemma3_folder
from .smollm2 import smollm2_folder

SMOLLM2 = "smollm2"
PACKAGED = {SMOLLM2: smollm2_folder, "gemma3-270m": gemma3_folder}
EXAMPLES = f"use {SMOLLM2}, a folder written by save_pretrained, or a hub name such as meta-llama/Llama-3.2-1B"
COPY_AGAIN = "give a folder written by save_pretrained, with its tokenizer"
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+", re.ASCII)


def find_model_folder(name: str) -> tuple[str, str]:
    """Find what a name means: the one way in which every command and `memx.load_model` do.

    Args:
        name: `smollm2` or `gemma3-270m`, a folder written by save_pretrained, the folder of a training run, or a hub
            name.

    Returns:
        The folder or hub name to load, and the hint for when it does not load.

    Raises:
        MemxError: There is no such model, the run is not finished, or a package is missing.
    """
    if name in PACKAGED:
        with mute_hub():
            folder = PACKAGED[name]()
        return str(folder), f"delete the converted copy, and memx converts it again: rm -r {folder}"
    folder = Path(name).expanduser()
    if folder.is_dir():
        if (folder / "config.json").is_file():
            return str(folder), COPY_AGAIN
        if (folder / "run.json").is_file():
            return str(_checkpoint(folder)), COPY_AGAIN
        hint = "give a folder written by save_pretrained, or a run folder such as results/runs/RUN"
        raise MemxError(f"the folder {name} has no model (no config.json)", hint=hint)
    if folder.is_file():
        raise MemxError(f"{name} is a file, not the folder of a model", hint=COPY_AGAIN)
    if not _HUB_NAME.fullmatch(name):
        raise MemxError(f"no model or folder {name!r}", hint=nearest(name, PACKAGED) or EXAMPLES)
    return name, EXAMPLES


def may_be_on_hub(name: str) -> bool:
    """Whether a name is no folder here, and has the form of those on the Hugging Face hub."""
    return not Path(name).expanduser().exists() and _HUB_NAME.fullmatch(name) is not None


def _checkpoint(folder: Path) -> Path:
    """The trained model in a run's folder. Raises MemxError for a run without one."""
    checkpoint, run = folder / "checkpoint", Run(folder)
    if (checkpoint / "config.json").is_file():
        return checkpoint
    if run.status == "finished":
        raise MemxError(
            f"the run {folder} has no model in it", hint="give a run of `memx train`, or a folder with config.json"
        )
    raise MemxError(f"the run {folder} has no model yet: it is not finished", hint=resume_hint(run))
