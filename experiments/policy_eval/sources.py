"""NAMMs by folder, run or name -> what an evaluation of them is by default, as a plain tree. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ...errors import MemxError, nearest
from ...json_text import parse_json
from ...namm.plugins import is_plugin, plugin_digest
from ...namm.saved.places import DESCRIPTION, HUB_NAME, find_namm, is_shipped, shipped_namms
from ...results.namm.rows import NAMM
from ...results.store.resuming import resume_hint
from ...results.store.run_info import read_config
from ...results.store.runs import Run
from ..base_models.model_folder import SMOLLM2
from ..config.eviction.evolution import EvolveConfig
from ..config.eviction.host import HostConfig
from ..config.eviction.policy_eval import EvalConfig, is_known
from ..config.eviction.tasks import HELD_OUT_TASKS
from ..config.eviction.universal_eval import UniversalEvalConfig
from ..config.loading import is_on_trained_host, load_evolution_config
from ..config.presets import TRAIN, command_of

_WithPolicies = TypeVar("_WithPolicies", EvalConfig, UniversalEvalConfig)


class _Source(NamedTuple):
    """A NAMM that is to be evaluated.

    Attributes:
        given: The folder or name that the user gave.
        name: What the config calls it: the folder of the NAMM, or its name.
        folder: Where it lies on this machine.
        config: The config of its evolution, if a run was given.
        shipped: Whether it comes with memx.
    """

    given: Path
    name: str
    folder: Path
    config: EvolveConfig | None = None
    shipped: bool = False


def eval_tree(folders: Sequence[Path], said: Mapping[str, Any]) -> dict[str, Any]:
    """The config tree of an evaluation of what some folders hold: runs of `memx evolve-namm`, or saved NAMMs.

    said: what the user has said, by key; where the runs differ in something else, or a saved NAMM says nothing of it,
    that is asked for. Raises MemxError for that, and for a folder that holds neither.
    """
    if not folders:
        hint = "give a run folder of memx evolve-namm, or a saved NAMM, e.g. memx eval-namm universal"
        raise MemxError("no NAMM to evaluate", hint=hint)
    sources = [_source(folder) for folder in folders]
    configs = [source.config for source in sources if source.config is not None]
    described = [_described(source.folder) for source in sources]
    trained = {
        task: None
        for one, source in zip(described, sources, strict=True)
        for task in [*one["tasks"], *(source.config.validated_on if source.config else ())]
    }
    validated = dict.fromkeys(task for config in configs for task in config.validated_on)
    tree: dict[str, Any] = {
        "command": "eval-namm",
        "namms": _entries(sources, described),
        "tasks": [*(validated or filter(is_known, trained)), *HELD_OUT_TASKS],
        "trained": [*trained],
    }
    if not {"host", "host.name", "host.preset"} & said.keys():
        tree["host"] = _host(sources, described)
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
        both = [*dict.fromkeys(["equal", *allocations])]  # what baselines have, and the NAMMs' own
        tree |= {"allocations": both} if "allocations_of" in said else {"allocations_of": {NAMM: both}}
    if "every" not in said:
        intervals = [one["every"] for one in described]
        tree["every"] = _agreed("every", "--interval", intervals) if mode == "online" else intervals[0]
    return tree


def namm_entries(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The key `namms` of an evaluation: an entry for each folder or name. Raises MemxError for one that has no NAMM."""
    sources = [_source(folder) for folder in folders]
    return _entries(sources, [_described(source.folder) for source in sources])


def with_policy_sources(config: _WithPolicies) -> _WithPolicies:
    """Add the checksums of the files that a user's own policies are in.

    Args:
        config: The evaluation.

    Returns:
        The evaluation.

    Raises:
        MemxError: A policy cannot be imported, or its file is not the one that the config is for.
    """
    found = {name: plugin_digest(name) for name in config.policies if is_plugin(name)}
    for name, digest in config.policy_sources.items():
        if found.get(name, digest) != digest:
            raise MemxError(
                f"the file of policy {name} has changed since this config was written",
                hint="remove policy_sources from the config to evaluate the policy as it is now",
            )
    return config.model_copy(update={"policy_sources": found})


def _entries(sources: Sequence[_Source], described: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    labels = _labels([source.given for source in sources])
    return [
        {
            "folder": source.name,
            "label": label,
            "sha256": one["sha256"],
            "settings": one["settings"],
            "seed": source.config.seed if source.config else 0,
            "evolved_on": one["host"] or "",
            "budget": one["rule"]["budget"],
            "grouping": one["rule"]["grouping"] if one["rule"]["budget"] is None else None,
        }
        for source, one, label in zip(sources, described, labels, strict=True)
    ]


def _source(folder: Path) -> _Source:
    """The NAMM of a folder or name, and the config of its evolution if the folder is a run."""
    if (folder / DESCRIPTION).is_file():
        return _Source(folder, str(folder), folder)
    if (folder / "config.yaml").is_file():
        about = read_config(folder)
        if is_on_trained_host(about) and (folder / NAMM / DESCRIPTION).is_file():
            return _Source(folder, str(folder / NAMM), folder / NAMM)
        if command_of(about) == TRAIN:
            raise MemxError(
                f"{folder} is a run of memx train, not of memx evolve-namm",
                hint="give a run of memx evolve-namm, or the folder of a NAMM",
            )
        config = load_evolution_config(str(folder / "config.yaml"))
        if not (folder / NAMM / DESCRIPTION).is_file():
            raise MemxError(f"the run {folder} has no NAMM yet", hint=resume_hint(Run(folder)))
        return _Source(folder, str(folder / NAMM), folder / NAMM, config)
    shipped = is_shipped(folder)
    if shipped or (not folder.exists() and HUB_NAME.fullmatch(str(folder))):
        return _Source(folder, str(folder), find_namm(folder), shipped=shipped)
    there = "contains no NAMM and is not a run of memx evolve-namm" if folder.is_dir() else "does not exist"
    hint = "use memx runs to list the runs; the NAMM of a run is in RUN/namm"
    if not folder.exists():
        hint = nearest(str(folder).lower(), shipped_namms()) or hint
    raise MemxError(f"{folder} {there}", hint=hint)


def _described(place: Path) -> dict[str, Any]:
    """What namm.json says of a NAMM."""
    try:
        found = parse_json((place / DESCRIPTION).read_bytes())
        wanted = ("sha256", "host", "tasks", "every")
        told = {name: found[name] for name in wanted} | {"tasks": list(found["tasks"])}
        rule = found["rule"]
        shared = {name: rule[name] for name in ("budget", "grouping")} | {"allocation": rule.get("allocation", "equal")}
        return {**told, "rule": shared, "settings": settings_checksum(found)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        plain = isinstance(error, OSError | ValueError)
        reason = str(error) if plain else f"{DESCRIPTION} must have sha256, host, tasks, every and rule.budget"
        raise MemxError(
            f"cannot load the NAMM in {place}: {reason}", hint="copy the folder again, or save the NAMM again"
        ) from None


def settings_checksum(described: Mapping[str, Any]) -> str:
    """Tell apart NAMMs with the same numbers that keep other tokens.

    Args:
        described: What namm.json says of a NAMM.

    Returns:
        A checksum of all that an evaluation does not set itself.
    """
    rule = {name: described["rule"].get(name) for name in ("threshold", "grouping", "first", "newest")}
    wanted = ("features", "scorer", "hidden", "activation", "strict")
    text = json.dumps([rule, *(described.get(name) for name in wanted)], sort_keys=True)
    return sha256(text.encode()).hexdigest()


def _host(sources: Sequence[_Source], described: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The host of the runs, and SmolLM2 for NAMMs that come with memx, if they agree on one."""
    hosts = [source.config.host for source in sources if source.config is not None]
    hosts += [HostConfig(name=SMOLLM2) for source in sources if source.shipped]
    if len(hosts) < len(sources):
        known = ", ".join(dict.fromkeys(name for one in described if one["host"] for name in one["host"].split(" + ")))
        raise MemxError(
            "a saved NAMM does not come with a model", hint=f"add --model{f', e.g. {known}' if known else ''}"
        )
    return _agreed("host", "--model", [host.model_dump(mode="json", exclude={"threads"}) for host in hosts])


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
