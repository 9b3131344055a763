"""What a pretrained start fixes: keys of a config that count no more, and points of a sweep that are one model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ...errors import MemxError, shown
from ..base_models.load import host_config
from ..config.merging import dotted, sections
from ..config.points import points
from ..config.training import TrainConfig
from .describe import host_memory_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from ...memory_layers.config import MemoryConfig

_SHAPE = ("model.", "data.vocabulary", "corpus.tokenizer")  # of any pretrained model


def without_fixed(config: TrainConfig, given: Mapping[str, Any]) -> tuple[TrainConfig, list[str]]:
    """Leave out of a sweep what the pretrained model fixes: its shape, its tokenizer and a memory that it has.

    Args:
        config: The config of a run or a sweep.
        given: The dotted keys and values of the command line.

    Returns:
        The config, and a note on each key that does not count.

    Raises:
        MemxError: There is no such model, or a key that it fixes was given, or is set by a variant.
    """
    source = config.finetune.source
    varied = {*config.sweep, *(key for changes in config.variants.values() for key in changes)}
    if "finetune.source" in varied:
        _check_several(config, varied)
        return config, []
    if source is None:
        return config, []
    memory = _memory_of(host_config(source))
    fixed = (*_SHAPE, "memory.") if memory else _SHAPE
    known = sections(TrainConfig)
    swept = {f"sweep.{key}": values for key, values in dotted(given.get("sweep") or {}, known).items()}
    for key, value in {**dotted(given, known), **swept}.items():
        name = key.removeprefix("sweep.")
        if name.startswith(fixed) and not (memory and _is_as_it_was(memory, key, value)):
            raise MemxError(
                f"{name} cannot be {shown(value)}: {_reason(source, memory, name)}", hint=f"leave out {key}"
            )
    for name, changes in config.variants.items():
        for key in changes:
            if key.startswith(fixed):
                what = f"variant {shown(name)} sets {key}: {_reason(source, memory, key)}"
                raise MemxError(what, hint="choose other variants with --variant, or leave out --init-from")
    gone = [key for key in config.sweep if key.startswith(fixed)]
    left = {key: values for key, values in config.sweep.items() if key not in gone}
    notes = [f"the sweep over {key} is left out: {_reason(source, memory, key)}" for key in gone]
    if memory and not gone and (config.memory.kind, config.memory.slots) != (memory.kind, memory.slots):
        notes.append(f"memory.* of the config does not count: {_reason(source, memory, 'memory.slots')}")
    return config.model_copy(update={"sweep": left}), notes


def _check_several(config: TrainConfig, varied: Iterable[str]) -> None:
    """Raise MemxError where models to start from differ, and so do settings that one of them fixes."""
    for source in dict.fromkeys(point.finetune.source for point in points(config)):
        if source is None:
            continue
        memory = _memory_of(host_config(source))
        for key in varied:
            if key.startswith((*_SHAPE, "memory.") if memory else _SHAPE):
                what = f"{key} and finetune.source cannot both differ between runs: {_reason(source, memory, key)}"
                raise MemxError(what, hint=f"leave {key} out of the sweep and the variants")


def _memory_of(host: PretrainedConfig) -> MemoryConfig | None:
    return host_memory_config(host) if getattr(host, "memory_layers", None) else None


def _is_as_it_was(memory: MemoryConfig, key: str, value: Any) -> bool:
    section, _, name = key.partition(".")
    there = getattr(memory, name, None)
    return section == "memory" and value == (list(there) if isinstance(there, tuple) else there)


def _reason(source: str, memory: MemoryConfig | None, key: str) -> str:
    if memory and key.startswith("memory."):
        return f"{source} has a memory of {memory.slots:,} slots" if memory.slots else f"{source} has a {memory.kind}"
    return f"{source} has its own {'shape' if key.startswith('model.') else 'tokenizer'}"
