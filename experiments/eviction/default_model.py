"""The model that `memx evict` uses unless one is named: that on which the NAMM of a run was evolved."""

from __future__ import annotations

from pathlib import Path

from ...results.store.run_info import read_config
from ..base_models.model_folder import SMOLLM2
from ..config.loading import load_evolution_config
from ..config.presets import command_of
from .base_model import host_source

CONFIG, EVOLVE = "config.yaml", "evolve-namm"


def default_model(namm: str | Path | None) -> str:
    """Find the model for a NAMM.

    Args:
        namm: What was given as the NAMM: a run, the folder of its NAMM, any other folder or name, or nothing.

    Returns:
        The first base model of the run that the folder is or lies in; SmolLM2 for any other.

    Raises:
        MemxError: The config of that run cannot be read.
    """
    folder = None if namm is None else Path(namm)
    for run in () if folder is None else (folder, folder.parent):
        if (run / CONFIG).is_file() and command_of(read_config(run)) == EVOLVE:
            return host_source(load_evolution_config(str(run / CONFIG)).host, run.parent)
    return SMOLLM2
