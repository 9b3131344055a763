"""Folders of evolutions and of saved NAMMs -> what an evaluation of them is by default, as a plain tree. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import MemxError
from ...json_text import parse_json
from ...results.namm.rows import NAMM
from ...results.store.resuming import resume_hint
from ...results.store.run_info import read_config
from ...results.store.runs import Run
from ..config.evolution import EvolveConfig
from ..config.loading import load_evolution_config
from ..config.policy_eval import is_known
from ..config.presets import TRAIN, command_of
from ..config.tasks import HELD_OUT_TASKS

_DESCRIPTION = "namm.json"  # of namm.files, which imports torch


def eval_tree(folders: Sequence[Path], said: Mapping[str, Any]) -> dict[str, Any]:
    """The config tree of an evaluation of what some folders hold: runs of `memx evolve-namm`, or saved NAMMs.

    said: what the user has said, by key; where the runs differ in something else, or a saved NAMM says nothing of it,
    that is asked for. Raises MemxError for that, and for a folder that holds neither.
    """
    if not folders:
        raise MemxError("no NAMM to evaluate", hint="give a run folder of memx evolve-namm, or a saved NAMM")
    places = [_place(folder) for folder in folders]
    configs = [config for _, config in places if config is not None]
    described = [_described(place) for place, _ in places]
    labels = _labels([folder if config else place for folder, (place, config) in zip(folders, places, strict=True)])
    trained = {
        task: None
        for one, (_, config) in zip(described, places, strict=True)
        for task in [*one["tasks"], *(config.validated_on if config else ())]
    }
    validated = dict.fromkeys(task for config in configs for task in config.validated_on)
    tree: dict[str, Any] = {
        "command": "eval-namm",
        "namms": [
            {
                "folder": str(place),
                "label": label,
                "sha256": one["sha256"],
                "seed": config.seed if config else 0,
                "evolved_on": one["host"] or "",
                "budget": one["rule"]["budget"],
            }
            for (place, config), one, label in zip(places, described, labels, strict=True)
        ],
        "tasks": [*(validated or filter(is_known, trained)), *HELD_OUT_TASKS],
        "trained": [*trained],
    }
    if not {"host", "host.name", "host.preset"} & said.keys():
        tree["host"] = _host(configs, described)
    shared: dict[str, tuple[str, Callable[[EvolveConfig], Any]]] = {
        "length": ("--length", lambda config: config.tasks.length),
        "mode": ("--mode", lambda config: config.fitness.mode),
        "source": ("--set source=FOLDER", lambda config: config.tasks.source),
    }
    for key, (option, of) in shared.items():
        if key not in said and configs:
            tree[key] = _agreed(key, option, [of(config) for config in configs])
    mode = said.get("mode", tree.get("mode", "post_hoc"))
    allocations = dict.fromkeys(one["rule"]["allocation"] for one in described if one["rule"]["budget"] is not None)
    if "allocations" not in said and set(allocations) - {"equal"}:
        tree["allocations"] = [*dict.fromkeys(["equal", *allocations])]  # the NAMMs' own, and what baselines have
    if "every" not in said:
        intervals = [one["every"] for one in described]
        tree["every"] = _agreed("every", "--interval", intervals) if mode == "online" else intervals[0]
    return tree


def _place(folder: Path) -> tuple[Path, EvolveConfig | None]:
    """Where a folder's NAMM lies, and the config of its evolution if the folder is a run."""
    if (folder / _DESCRIPTION).is_file():
        return folder, None
    if (folder / "config.yaml").is_file():
        if command_of(read_config(folder)) == TRAIN:
            raise MemxError(
                f"{folder} is a run of memx train, not of memx evolve-namm",
                hint="give a run of memx evolve-namm, or the folder of a NAMM",
            )
        config = load_evolution_config(str(folder / "config.yaml"))
        if not (folder / NAMM / _DESCRIPTION).is_file():
            raise MemxError(f"the run {folder} has no NAMM yet", hint=resume_hint(Run(folder)))
        return folder / NAMM, config
    there = "contains no NAMM and is not a run of memx evolve-namm" if folder.is_dir() else "does not exist"
    raise MemxError(f"{folder} {there}", hint="use memx runs to list the runs; the NAMM of a run is in RUN/namm")


def _described(place: Path) -> dict[str, Any]:
    """What namm.json says of a NAMM."""
    try:
        found = parse_json((place / _DESCRIPTION).read_bytes())
        wanted = ("sha256", "host", "tasks", "every")
        told = {name: found[name] for name in wanted} | {"tasks": list(found["tasks"])}
        rule = found["rule"]
        return {**told, "rule": {"budget": rule["budget"], "allocation": rule.get("allocation", "equal")}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        plain = isinstance(error, OSError | ValueError)
        reason = str(error) if plain else f"{_DESCRIPTION} must have sha256, host, tasks, every and rule.budget"
        raise MemxError(
            f"cannot load the NAMM in {place}: {reason}", hint="copy the folder again, or save the NAMM again"
        ) from None


def _host(configs: Sequence[EvolveConfig], described: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The host of the runs, if they agree on one and nothing else is asked for."""
    if len(configs) < len(described):
        known = ", ".join(dict.fromkeys(str(one["host"]) for one in described if one["host"]))
        raise MemxError(
            "a saved NAMM does not come with a model", hint=f"add --model{f', e.g. {known}' if known else ''}"
        )
    return _agreed("host", "--model", [config.host.model_dump(mode="json", exclude={"threads"}) for config in configs])


def _agreed(key: str, option: str, values: Sequence[Any]) -> Any:
    if any(value != values[0] for value in values):
        found = ", ".join(dict.fromkeys(str(value) for value in values))
        raise MemxError(f"the NAMMs differ in {key}: {found}", hint=f"choose one with {option}")
    return values[0]


def _labels(folders: Sequence[Path]) -> list[str]:
    """namm; of several, each with the name of its run, without the hash where that tells them apart."""
    if len(folders) == 1:
        return [NAMM]
    resolved = [folder.resolve() for folder in folders]
    names = [one.parent.name if one.name == NAMM else one.name for one in resolved]
    short = [name.rpartition("-")[0] or name for name in names]
    chosen = short if len(set(short)) == len(short) else names
    return [f"{NAMM} {name}" for name in chosen]
