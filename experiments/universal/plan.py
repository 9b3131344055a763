"""What an evaluation on another host is by default, and what it would do: no torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...results.store.runs import Run, RunStore, run_config
from ..config.base import run_name
from ..config.eviction.universal_eval import UniversalEvalConfig
from ..policy_eval.sources import namm_entries
from ..runtime.options import Options
from .load import find_host_run
from .policies import lines

_KEYS = ("every", "units", "at_once", "mode")  # of a host's config, in the section evaluation: what fits it


def evaluation_tree(host: str, folders: Sequence[Path], runs: Path) -> dict[str, Any]:
    """The config tree of an evaluation.

    Args:
        host: KIND:RUN.
        folders: Folders or names of NAMMs.
        runs: The folder of runs.

    Raises:
        MemxError: There is no such host or NAMM.
    """
    found = find_host_run(host, runs)
    about = run_config(Run(found.folder))
    fits = {key: value for key, value in about.get("evaluation", {}).items() if key in _KEYS}
    named = str(found.folder) if found.folder.parent.resolve() != runs.resolve() else found.folder.name
    return {
        "command": "eval-namm",
        "host": {"kind": found.kind, "run": named, "sha256": found.sha256},
        "namms": namm_entries(folders),
        **fits,
    }


def evaluation_plan(config: UniversalEvalConfig, runs: Path) -> dict[str, Any]:
    """What an evaluation would do: names and amounts in the order in which they are shown.

    Raises MemxError if its host is not there.
    """
    found = find_host_run(f"{config.host.kind}:{config.host.run}", runs)
    table = lines(config)
    return {
        "host": f"{found.kind}:{config.host.run}",
        "namms": ", ".join(one.folder for one in config.namms),
        "policies": ", ".join(("full", *config.policies)),
        "budgets": ", ".join(f"{budget:g}" for budget in config.budgets),
        "allocations": ", ".join(config.allocations),
        "tokens between evictions": config.every if config.mode == "online" else "one eviction, after the clip",
        "units of each policy": config.units,
        "lines of the table": len(table),
        "units in all": len(table) * config.units,
        "folder": str(runs / run_name(config)),
    }


def check_free(config: UniversalEvalConfig, options: Options) -> str:
    """The name of the evaluation's folder. Raises MemxError if it holds a run that may not be resumed or replaced."""
    name = run_name(config)
    RunStore(options.runs).check_free(name, resume=options.resume, force=options.force)
    return name
