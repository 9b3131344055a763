"""What `memx train` trains besides language models: the value of a config's key `trains` -> its config. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from pydantic import BaseModel

from ....errors import MemxError, shown
from ..base import assign, run_name, validate
from ..merging import given_once
from ..presets import check_command, read_tree


class Kind(NamedTuple):
    """A kind of model: the module here with its config, the name of that class, and the folder that trains."""

    module: str
    config: str
    folder: str


KINDS = {
    "decision": Kind("decision", "DecisionConfig", "decision"),
    "video": Kind("video", "VideoConfig", "video"),
}


class HostPoint(NamedTuple):
    """One run: its folder's name and its config."""

    name: str
    config: Any


def trained_kind(tree: Mapping[str, Any]) -> str | None:
    """The kind of model that a config trains, of `KINDS`; None for a language model.

    Raises MemxError for an unknown kind.
    """
    kind = tree.get("trains")
    if kind is not None and kind not in KINDS:
        raise MemxError(f"trains: no kind of model {shown(kind)}", hint=f"use {', '.join(KINDS)}, or leave it out")
    return kind


def config_class(kind: str) -> type[BaseModel]:
    """The config of a kind of model."""
    found = KINDS[kind]
    return getattr(import_module(f".{found.module}", __package__), found.config)


def load_host_config(source: str, assignments: Iterable[tuple[str, Any]] = ()) -> BaseModel:
    """Resolve a preset or file that trains such a model.

    Args:
        source: A preset's name or a YAML file's path.
        assignments: Dotted keys and values, which go before what the source says.

    Returns:
        The config.

    Raises:
        MemxError: There is no such source, or a key or value is wrong; the message has its path.
    """
    tree = read_tree(source)
    check_command(tree, source, "train")
    tree.pop("command", None)
    kind = trained_kind(tree)
    assert kind is not None, source
    model = config_class(kind)
    for key, value in given_once(assignments, model).items():
        tree = assign(tree, key, value)
    if tree.get("trains") != kind:
        raise MemxError("trains cannot be set", hint=f"use a preset of the other kind instead of {source}")
    return validate(tree, model)


def host_points(source: str, assignments: Sequence[tuple[str, Any]], seeds: Sequence[int]) -> list[HostPoint]:
    """The runs of a command: one, or one for each of several seeds.

    Args:
        source: A preset's name or a YAML file's path.
        assignments: Dotted keys and values.
        seeds: Seeds; none for the config's own.

    Returns:
        The runs, each once.

    Raises:
        MemxError: As `load_host_config`.
    """
    given = [(key, value) for key, value in assignments if key != "seed" or not seeds]
    base: Any = load_host_config(source, given)
    points = []
    for seed in seeds or [base.seed]:
        named = {"name": f"{base.name}-seed{seed}"} if len(seeds) > 1 else {}
        config = validate({**base.model_dump(mode="json"), "seed": seed, **named}, type(base))
        points.append(HostPoint(run_name(config), config))
    return list({point.name: point for point in points}.values())
