"""The model that `memx evict` uses unless one is named: that on which the NAMM of a run was evolved."""

from __future__ import annotations

from pathlib import Path

from ...namm.saved.places import DESCRIPTION, is_shipped
from ...results.namm.rows import NAMM
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
    return model_of_run(namm) or SMOLLM2


def model_of_run(namm: str | Path | None) -> str | None:
    """Find the model that the NAMM of a run was evolved on.

    Args:
        namm: As for `default_model`.

    Returns:
        Its name or its folder; None for a NAMM that lies in no run.

    Raises:
        MemxError: The config of that run cannot be read.
    """
    run = _run_of(namm)
    if run is None or command_of(read_config(run)) != EVOLVE:
        return None
    runs, here = run.resolve().parent, Path.cwd()
    runs = runs.relative_to(here) if runs.is_relative_to(here) else runs
    return host_source(load_evolution_config(str(run / CONFIG)).host, runs)


def _run_of(namm: str | Path | None) -> Path | None:
    """The folder with a config that a NAMM's folder is, or lies in; None for a name, and any other folder."""
    if namm is None or is_shipped(namm) or not Path(namm).is_dir():
        return None
    folder = Path(namm)
    in_run = folder.resolve().name == NAMM and (folder / DESCRIPTION).is_file()
    places = (folder, folder.resolve().parent) if in_run else (folder,)
    return next((place for place in places if (place / CONFIG).is_file()), None)
