"""Puts memories into the blocks of a Llama: settings -> layers in place of, or beside, its feed-forwards."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from ..errors import MemxError
from .engram.block import EngramDecoderLayer
from .engram.layer import EngramLayer
from .engram.primes import table_primes
from .layer import MemoryLayer, ResidualMemory
from .llama_config import MemoryLlamaConfig
from .model_config import MemorySettings, memories_of
from .moe import MoeLayer
from .peer import PeerLayer
from .tables.initial_scale import feed_forward_std
from .tables.values import MemoryValues
from .ultramem.layer import UltraMemLayer

KINDS = ("memory", "ultramem", "engram", "peer", "moe")
INSERTIONS = ("replace", "beside")
_CHOICES = {
    "kind": KINDS,
    "insertion": INSERTIONS,
    "scores": ("softmax", "none"),
    "output_init": ("published", "matched"),
}


def place_memory_layers(blocks: nn.ModuleList, config: MemoryLlamaConfig) -> None:
    """Put every memory of a config into the blocks of a decoder.

    Args:
        blocks: Those of the decoder, all with feed-forwards; one with an n-gram memory is replaced.
        config: The decoder's config.

    Raises:
        MemxError: A block, a kind or an insertion that does not exist, or two memories in place of one feed-forward.
    """
    memories = memories_of(config)
    for memory in memories:
        _check(memory, config)
    replaced: set[int] = set()
    # those that replace a feed-forward first: the others are added to what is there then
    for memory in sorted(memories, key=lambda one: one.insertion != "replace" or one.kind == "engram"):
        if memory.kind == "engram":
            _place_engrams(blocks, config, memory)
            continue
        if memory.insertion == "replace":
            if twice := replaced & set(memory.layers):
                raise MemxError(
                    f"two memories replace the feed-forward of block {min(twice)}", hint="give them other blocks"
                )
            replaced |= set(memory.layers)
        _place(blocks, config, memory)


def _check(memory: MemorySettings, config: MemoryLlamaConfig) -> None:
    for name, known in _CHOICES.items():
        if (given := getattr(memory, name)) not in known:
            raise MemxError(
                f"unknown memory_{name} {given!r}", hint=f"choose from {', '.join(known)} (memory+: memory with gating)"
            )
    for index in sorted(set(memory.layers)):
        if not 0 <= index < config.num_hidden_layers:
            raise MemxError(
                f"memory layer {index} is outside the model's {config.num_hidden_layers} blocks",
                hint=f"choose from 0..{config.num_hidden_layers - 1}",
            )


def _place(blocks: nn.ModuleList, config: MemoryLlamaConfig, memory: MemorySettings) -> None:
    table: MemoryValues | None = None
    for index in sorted(set(memory.layers)):
        block: Any = blocks[index]
        layer = _make_layer(config, memory, table if memory.shared else None)
        if isinstance(layer, MemoryLayer) or (isinstance(layer, UltraMemLayer) and not memory.units):
            table = layer.values
        block.mlp = ResidualMemory(block.mlp, layer) if memory.insertion == "beside" else layer


def _make_layer(config: MemoryLlamaConfig, memory: MemorySettings, table: MemoryValues | None) -> nn.Module:
    width: Any = config.hidden_size
    if memory.kind == "moe":
        inner: Any = memory.expert_width or config.intermediate_size
        std: Any = config.initializer_range
        return MoeLayer(width, memory.experts, inner, top_k=memory.experts_per_token, std=std)
    keys: Any = dict(heads=memory.heads, top_k=memory.top_k, key_width=memory.key_width, qk_norm=memory.qk_norm)
    matched = memory.output_init == "matched"
    keys |= dict(scores=memory.scores, output_std=_feed_forward_std(config) if matched else None)
    if memory.kind == "peer":
        return PeerLayer(width, memory.slots, **keys)
    keys |= dict(value_width=memory.value_width, output_gate=memory.output_gate)
    keys |= dict(silent=memory.insertion == "beside" and not matched, values=table)
    if memory.kind == "ultramem":
        keys |= dict(rank=memory.rank, expansion=memory.expansion, units=memory.units)
        return UltraMemLayer(width, memory.slots, **keys)
    return MemoryLayer(width, memory.slots, **keys, gating=memory.gating)


def _feed_forward_std(config: MemoryLlamaConfig) -> float:
    """The standard deviation of the outputs of the model's feed-forwards at the start."""
    width, inner, std = config.hidden_size, config.intermediate_size, config.initializer_range
    return feed_forward_std(width, inner, std)  # type: ignore[arg-type]


def _place_engrams(blocks: nn.ModuleList, config: MemoryLlamaConfig, memory: MemorySettings) -> None:
    width: Any = config.hidden_size
    vocabulary: Any = config.vocab_size
    layers = sorted(set(memory.layers))
    primes = table_primes(memory.slots, memory.heads, len(memory.ngrams), len(layers))
    for index, of_layer in zip(layers, primes, strict=True):
        block: Any = blocks[index]
        if isinstance(block, EngramDecoderLayer):
            raise MemxError(f"block {index} has two n-gram memories", hint="give them other blocks")
        engram = EngramLayer(
            width,
            memory.slots,
            vocabulary=vocabulary,
            heads=memory.heads,
            ngrams=memory.ngrams,
            row_width=memory.value_width,
            layer=index,
            seed=memory.hash_seed,
            primes=of_layer,
            signed_root=memory.signed_root,
            convolution=memory.convolution,
            silent=memory.insertion == "beside",
        )
        blocks[index] = _with_engram(block, config, index, engram)


def _with_engram(
    block: LlamaDecoderLayer, config: MemoryLlamaConfig, index: int, engram: EngramLayer
) -> EngramDecoderLayer:
    """The block, with the weights that it has and a memory."""
    new = EngramDecoderLayer(config, index, engram)
    for name, module in block.named_children():
        setattr(new, name, module)
    return new
