"""What a run would cost, before it starts: the model built on the meta device, bytes, FLOPs, steps, folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..memory_layers.config import MemoryConfig, ModelConfig
from ..memory_layers.llama import MemoryLlamaConfig, MemoryLlamaForCausalLM, tables_of
from ..memory_layers.sizes import Sizes, model_sizes
from ..results.published import published_total
from .build import build_split, llama_config, pick_device, use_bfloat16
from .config import TrainConfig
from .host import host_config
from .optimizer import parameter_groups, steps_sparsely
from .pretrained import check_start, choose_trainable, host_memory_config, host_model_config, with_memory
from .sweep import Point

_SAVED_PER_BLOCK = 14  # activations of one block kept for the backward pass, in multiples of d floats a token


def cost_of(point: Point, runs: Path) -> dict[str, Any]:
    """Cost of one point. Facts are loaded and checked; nothing is trained, and no weight takes memory.

    tokens_per_step is estimated from the rows a step's documents fill at most; activation_bytes from the tensors a
    block keeps for its backward pass, so both are estimates; the rest is exact for the vocabulary of the config.
    published_total: the published parameters of the same base, kind and slots, if there are any.
    """
    config = point.config
    check_start(config)
    split, _ = build_split(config)
    base, memory, llama = _described(config)
    with torch.device("meta"):
        model = MemoryLlamaForCausalLM(llama)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    choose_trainable(model, config.finetune.train)
    vocabulary: Any = llama.vocab_size
    sizes = model_sizes(base, memory, vocabulary)
    training = config.training
    tokens = training.batch * _document_tokens(config)
    half = use_bfloat16(training.precision, pick_device(training.device))
    rows = sum(len(table.weight) for table in tables_of(model))
    chosen = config.finetune.train == "slots" or steps_sparsely(rows, training, tokens * sizes.slots_read)
    value_step = ("sparse" if chosen else "dense") if rows and config.finetune.train != "lora" else ""
    return {
        "run": point.name,
        "folder": str(runs / point.name),
        "facts": len(split.trained),
        "unseen_facts": len(split.unseen),
        "kind": memory.kind,
        "variant": config.variant,
        "memory_slots": memory.slots,
        "parameters_total": parameters,
        "published_total": published_total(base.name, memory.kind, memory.slots),
        "parameters_active": sizes.parameters_active,
        "flops_per_token": sizes.flops,
        "weights_bytes": sizes.weight_bytes(4, 2 if training.value_dtype == "bfloat16" else 4),
        "optimizer_bytes": _optimizer_bytes(config, model, sizes, value_step),
        "activation_bytes": _activation_bytes(base, memory, config, vocabulary, 2 if half else 4),
        "value_step": value_step,
        "steps": training.steps,
        "tokens_per_step": tokens,
        "training_flops": 3 * sizes.flops * tokens * training.steps,
    }


def _described(config: TrainConfig) -> tuple[ModelConfig, MemoryConfig, MemoryLlamaConfig]:
    """Shape, memory and transformers config: of the config, or of its pretrained start, whose weights stay unread."""
    source = config.finetune.source
    if source is None:
        return config.model, config.memory, llama_config(config, config.data.vocabulary)
    host = host_config(source)
    base = host_model_config(host, source.rstrip("/").rpartition("/")[2])
    if getattr(host, "memory_layers", None):
        assert isinstance(host, MemoryLlamaConfig)
        return base, host_memory_config(host), host
    return base, config.memory, with_memory(host, config.memory)


def _optimizer_bytes(config: TrainConfig, model: nn.Module, sizes: Sizes, value_step: str) -> int:
    """Moments of what is trained, and what the sparse step keeps of each row. LoRA's own are left out."""
    training, finetune = config.training, config.finetune
    rest = 8 * sum(p.numel() for kind in ("matrices", "others") for _, p in parameter_groups(model)[kind])
    if value_step == "" or (finetune.train == "slots" and finetune.slots_optimizer == "sgd"):
        return rest
    if value_step == "dense":
        return rest + 8 * sizes.table
    moment = 2 if training.value_moments == "bfloat16" else 4
    moments = (2 if training.value_second_moment == "full" else 1) * moment
    masters = 4 if training.value_dtype == "bfloat16" and training.value_rounding == "masters" else 0
    steps = 8 * sum(len(table.weight) for table in tables_of(model))  # when each row was touched
    return rest + sizes.table * (moments + masters) + steps


def _document_tokens(config: TrainConfig) -> int:
    """Tokens of a usual document: a quarter of a row."""
    return max(8, config.data.sequence // 4)


def _activation_bytes(base: ModelConfig, memory: MemoryConfig, config: TrainConfig, vocabulary: int, size: int) -> int:
    tokens = config.training.batch * _document_tokens(config) // config.training.accumulate
    per_token = base.layers * (_SAVED_PER_BLOCK * base.width + 3 * base.feed_forward_width)
    per_token += model_sizes(base, memory, 1).slots_read * 4
    logits = vocabulary if config.data.loss_on == "all" else vocabulary // 4
    return tokens * (per_token * size + logits * 4)
