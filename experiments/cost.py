"""What a run would cost, before it starts: the model built on the meta device, bytes, FLOPs, steps, folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..memory_layers.llama import MemoryLlamaForCausalLM
from ..memory_layers.sizes import model_sizes
from .build import build_split, llama_config, pick_device, use_bfloat16
from .config import TrainConfig
from .sweep import Point

_SAVED_PER_BLOCK = 14  # activations of one block kept for the backward pass, in multiples of d floats a token


def cost_of(point: Point, runs: Path) -> dict[str, Any]:
    """Cost of one point. Facts are loaded and checked; nothing is trained, and no weight takes memory.

    tokens_per_step is estimated from the rows a step's documents fill at most; activation_bytes from the tensors a
    block keeps for its backward pass, so both are estimates; the rest is exact for the vocabulary of the config.
    """
    config = point.config
    split, _ = build_split(config)
    vocabulary = config.data.vocabulary
    with torch.device("meta"):
        model = MemoryLlamaForCausalLM(llama_config(config, vocabulary))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    sizes = model_sizes(config.model, config.memory, vocabulary)
    training = config.training
    tokens = training.batch * _document_tokens(config)
    half = use_bfloat16(training.precision, pick_device(training.device))
    return {
        "run": point.name,
        "folder": str(runs / point.name),
        "facts": len(split.trained),
        "unseen_facts": len(split.unseen),
        "kind": config.memory.kind,
        "memory_slots": config.memory.slots,
        "parameters_total": parameters,
        "parameters_active": sizes.parameters_active,
        "flops_per_token": sizes.flops,
        "weights_bytes": 4 * parameters,
        "optimizer_bytes": 8 * parameters,
        "activation_bytes": _activation_bytes(config, tokens // training.accumulate, 2 if half else 4),
        "steps": training.steps,
        "tokens_per_step": tokens,
        "training_flops": 3 * sizes.flops * tokens * training.steps,
    }


def _document_tokens(config: TrainConfig) -> int:
    """Tokens of a usual document: a quarter of a row."""
    return max(8, config.data.sequence // 4)


def _activation_bytes(config: TrainConfig, tokens: int, size: int) -> int:
    model, memory = config.model, config.memory
    per_token = model.layers * (_SAVED_PER_BLOCK * model.width + 3 * model.feed_forward_width)
    per_token += len(memory.placed_layers(model.layers)) * memory.heads * memory.top_k * 4
    logits = config.data.vocabulary if config.data.loss_on == "all" else config.data.vocabulary // 4
    return tokens * (per_token * size + logits * 4)
