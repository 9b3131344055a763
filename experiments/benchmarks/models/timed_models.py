"""Which whole models `memx bench model` times: one of each kind at a shape, or those of a training config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch

from ....errors import MemxError
from ....memory_layers.config import PRODUCT_KEYS, Kind, MemoryConfig, ModelConfig
from ....memory_layers.slots import half_keys
from ...config.loading import load_config
from ...config.points import points
from ...config.shares import apply_shares
from ...config.training import DataConfig, TrainConfig, TrainingConfig
from ..ops.shapes import sized

_TABLES: tuple[Kind, ...] = (*PRODUCT_KEYS, "engram")
_KINDS: tuple[Kind, ...] = ("dense", *_TABLES, "moe")
_SLOTS = {"cpu": (2**12, 2**16), "cuda": (2**14, 2**18, 2**20)}


@dataclass(frozen=True)
class ModelShape:
    """The base: blocks, hidden size d, attention heads, vocabulary; rows a step and tokens of each; experts of MoE."""

    layers: int = 4
    width: int = 128
    heads: int = 4
    vocabulary: int = 2048
    batch: int = 8
    sequence: int = 128
    experts: int = 8


LARGE = ModelShape(layers=8, width=1024, heads=16, vocabulary=32_768, batch=16, sequence=1024)


def model_shape(texts: Sequence[str], device: torch.device) -> ModelShape:
    """The shape that suits the device, or the small or large one, with the entries that `--shapes` changes."""
    return sized(ModelShape(), LARGE, texts, device, "model")


def model_configs(slots: Sequence[int], shape: ModelShape, device: torch.device) -> list[TrainConfig]:
    """A model of every kind, those with tables at every size. Raises MemxError for one that cannot be built.

    An n-gram memory, whose rows are narrower, has as many values in its tables as a memory of so many slots.
    """
    slots = slots or _SLOTS[device.type]
    return [_config(kind, size, shape) for kind in _KINDS for size in (slots if kind in _TABLES else (0,))]


def configured_models(source: str, shape: ModelShape) -> tuple[list[TrainConfig], ModelShape]:
    """The models of a training config, each once, whatever its seed.

    Args:
        source: A preset's name or a YAML file's path.
        shape: Of the batches alone: rows and tokens of each. Nothing else of it may differ from the default.

    Returns:
        The points of its sweep, matched in cost, and the shape, with no more tokens than each of them can read.

    Raises:
        MemxError: There is no such source, it starts from a pretrained model, or the shape names what the config has.
    """
    usual = [asdict(ModelShape()), asdict(LARGE)]
    for key, value in asdict(shape).items():
        if key not in ("batch", "sequence") and value not in (each[key] for each in usual):
            raise MemxError(f"--shapes {key}: the config sets it", hint="with --config, change only batch and sequence")
    config = load_config(source)
    if config.finetune.source is not None:
        raise MemxError(
            f"{source} starts from the pretrained model {config.finetune.source}",
            hint="give a config that trains new models, such as kinds",
        )
    found: dict[str, TrainConfig] = {}
    for point in points(config):
        alike = point.model_copy(update={"seed": 0, "name": "", "data": point.data.model_copy(update={"seed": 0})})
        found.setdefault(alike.model_dump_json(), point)
    names = [(point.variant, point.memory.kind, point.memory.slots, point.model.title) for point in found.values()]
    if len(set(names)) < len(names):
        raise MemxError(
            f"{source}: models differ in more than kind, slots, base and variant",
            hint="name each with a variant, or set one value of the sweep",
        )
    contexts = (point.model.context for point in found.values())
    return list(found.values()), replace(shape, sequence=min(shape.sequence, *contexts))


def _config(kind: Kind, slots: int, shape: ModelShape) -> TrainConfig:
    try:
        if kind in PRODUCT_KEYS:
            half_keys(slots)
        count = min(3, shape.layers) if kind == "memory+" else 1 if kind in PRODUCT_KEYS else None
        model = ModelConfig(layers=shape.layers, width=shape.width, heads=shape.heads, context=shape.sequence)
        memory = MemoryConfig(kind=kind, slots=slots, count=count, stride=1, experts=shape.experts)
        if kind == "engram":
            memory = apply_shares(MemoryConfig(kind=kind, sparse=slots * shape.width), model, close=False)
        return TrainConfig(
            name="bench",
            model=model,
            memory=memory,
            data=DataConfig(vocabulary=shape.vocabulary, sequence=shape.sequence),
            training=TrainingConfig(warmup=0),
        )
    except ValueError as error:
        raise MemxError(
            f"{kind} model with {slots:,} slots: {_reason(error)}", hint="change --shapes or --slots"
        ) from None


def _reason(error: ValueError) -> str:
    """The first thing that a config minds."""
    errors = getattr(error, "errors", list)()
    return str(errors[0]["msg"]).removeprefix("Value error, ") if errors else str(error)
