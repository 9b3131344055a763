"""What an evaluation on another host is by default, and what it would do: no torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...results.store.runs import Run, RunStore, run_config
from ..config.base import run_name
from ..config.eviction.universal_eval import UniversalEvalConfig
from ..config.eviction.universal_evolution import UniversalEvolveConfig
from ..policy_eval.sources import namm_entries
from ..runtime.options import Options
from .load import HostRun, find_host_run
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
    return {"command": "eval-namm", "host": _host(found, runs), "namms": namm_entries(folders), **fits}


def evolution_tree(host: str, start: str, runs: Path) -> dict[str, Any]:
    """The config tree of an evolution: host, KIND:RUN, and start, a folder or name of a NAMM, as `evaluation_tree`."""
    found = find_host_run(host, runs)
    about = run_config(Run(found.folder)).get("evaluation", {})
    fits = {"every": about["every"]} if "every" in about else {}
    (entry,) = namm_entries([Path(start)])
    return {"command": "evolve-namm", "host": _host(found, runs), "start": entry, **fits}


def _host(found: HostRun, runs: Path) -> dict[str, Any]:
    """The section of a host; its run is named by its folder where it lies elsewhere."""
    elsewhere = found.folder.parent.resolve() != runs.resolve()
    return {
        "kind": found.kind,
        "run": str(found.folder) if elsewhere else found.folder.name,
        "sha256": found.sha256,
    }


def evolution_plan(config: UniversalEvolveConfig, runs: Path) -> dict[str, Any]:
    """What an evolution would do, as `evaluation_plan`."""
    found = find_host_run(f"{config.host.kind}:{config.host.run}", runs)
    checks = config.generations // config.validate_every + 1
    return {
        "host": f"{found.kind}:{config.host.run}",
        "start": "zeros" if config.zeros else config.start.folder,
        "budgets": ", ".join(f"{budget:g}" for budget in config.budgets),
        "tokens between evictions": config.every,
        "generations": config.generations,
        "candidates": config.population,
        "units of each candidate": config.units * len(config.budgets),
        "units in all": len(config.budgets)
        * (config.generations * config.population * config.units + checks * config.validation),
        "folder": str(runs / run_name(config)),
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
