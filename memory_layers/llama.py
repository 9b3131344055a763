"""Llama 3 with memory layers, as a transformers model: `MemoryLlamaConfig`, `MemoryLlamaForCausalLM`.

The feed-forward (`mlp`) of the chosen blocks is a `MemoryLayer`; everything else is transformers' own Llama, so
`generate`, `save_pretrained`, `from_pretrained`, PEFT and lm-eval work. Registered with the Auto classes.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from ..errors import MemxError
from .layer import MemoryLayer, MemoryValues


class MemoryLlamaConfig(LlamaConfig):
    """LlamaConfig and where its memory layers are.

    memory_layers: indices of the blocks whose feed-forward is a memory layer; empty is a plain Llama.
    memory_slots: N, a square. memory_key_width: d_k (None: hidden_size/2). memory_shared: one value table for
    all layers, or one for each.
    """

    model_type = "memory_llama"

    def __init__(
        self,
        memory_layers: Sequence[int] = (),
        memory_slots: int = 0,
        memory_heads: int = 4,
        memory_top_k: int = 32,
        memory_key_width: int | None = None,
        memory_qk_norm: bool = False,
        memory_shared: bool = True,
        **kwargs,
    ) -> None:
        self.memory_layers = list(memory_layers)
        self.memory_slots = memory_slots
        self.memory_heads = memory_heads
        self.memory_top_k = memory_top_k
        self.memory_key_width = memory_key_width
        self.memory_qk_norm = memory_qk_norm
        self.memory_shared = memory_shared
        super().__init__(**kwargs)


class MemoryLlamaForCausalLM(LlamaForCausalLM):
    """LlamaForCausalLM whose chosen blocks hold a `MemoryLayer` as their `mlp`."""

    config_class = MemoryLlamaConfig

    def __init__(self, config: MemoryLlamaConfig) -> None:
        super().__init__(config)
        place_memory_layers(self, config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # called children first, so a memory layer draws over what its Linear and norms were given
        if isinstance(module, MemoryLayer | MemoryValues):
            module.reset_parameters()
        else:
            super()._init_weights(module)


def place_memory_layers(model: LlamaForCausalLM, config: MemoryLlamaConfig) -> None:
    """Put a memory layer in place of the feed-forward of each block in config.memory_layers."""
    table: MemoryValues | None = None
    for index in sorted(set(config.memory_layers)):
        if not 0 <= index < config.num_hidden_layers:
            raise MemxError(
                f"memory layer {index} is outside the model's {config.num_hidden_layers} blocks",
                hint=f"choose from 0..{config.num_hidden_layers - 1}",
            )
        layer = MemoryLayer(
            config.hidden_size,
            config.memory_slots,
            heads=config.memory_heads,
            top_k=config.memory_top_k,
            key_width=config.memory_key_width,
            qk_norm=config.memory_qk_norm,
            values=table if config.memory_shared else None,
        )
        table = layer.values
        model.model.layers[index].mlp = layer


def memory_layers_of(model: nn.Module) -> list[MemoryLayer]:
    """The memory layers of a model, in order."""
    return [module for module in model.modules() if isinstance(module, MemoryLayer)]


@torch.no_grad()
def draw_weights(model: MemoryLlamaForCausalLM, seed: int) -> None:
    """Initialise every module from its own stream, named by the seed and the module's path.

    Models that differ in one block then start from the same numbers everywhere else.
    """
    for name, module in reversed(list(model.named_modules())):  # children before parents
        torch.manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
        model._init_weights(module)


AutoConfig.register(MemoryLlamaConfig.model_type, MemoryLlamaConfig, exist_ok=True)
AutoModelForCausalLM.register(MemoryLlamaConfig, MemoryLlamaForCausalLM, exist_ok=True)
