"""The transformers config of a Llama with memory layers, and the memories that it describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import LlamaConfig


class MemoryLlamaConfig(LlamaConfig):
    """The config of a Llama with memory layers: LlamaConfig, and which blocks have which memory.

    Args:
        memory_layers: Indices of the blocks that have a memory, from 0. Empty: a plain Llama.
        memory_kind: "memory", "ultramem", "engram", "peer" or "moe". Memory+ is "memory" with gating and qk-norm.
        memory_slots: Rows N of the value table; must be a square. Of an engram: of each layer's table, any number.
        memory_heads: Query heads H of each memory layer, or hash heads of each n-gram order.
        memory_top_k: Slots k that each head selects.
        memory_key_width: Width d_k of a key, both halves together. None: hidden_size/2.
        memory_value_width: Width d_v of a row of the table. None: hidden_size, for an engram that / rows a token reads.
        memory_qk_norm: Whether to apply RMSNorm to queries and keys.
        memory_gating: Whether the output is W2(y * silu(W1 x)).
        memory_output_gate: Whether to scale the output of each token by sigmoid(w x).
        memory_shared: Whether all memory layers share one value table.
        memory_insertion: "replace": the memory replaces the feed-forward. "beside": both outputs are added.
        memory_experts: MoE only: experts E of each layer.
        memory_experts_per_token: MoE only: experts k for each token.
        memory_expert_width: MoE only: inner width of an expert. None: intermediate_size.
        memory_ngrams: Engram only: orders of the n-grams.
        memory_hash_seed: Engram only: random seed of the hashes.
        memory_signed_root: Engram only: whether the gate takes the signed square root of its dot product.
        memory_convolution: Engram only: whether a causal convolution follows.
        memory_scores: Weights of selected rows: a "softmax" of their scores, or with "none" the scores.
        memory_output_init: "published", or "matched": outputs start with the variance of a feed-forward's.
        memory_rank: UltraMem only: rank r of the Tucker scores.
        memory_expansion: UltraMem only: virtual tables E of each value table.
        memory_units: UltraMem only: whether values are units of two vectors each.
        memory_also: Further memories of the same model, each a dict of these fields without `memory_`.
        **kwargs: Arguments of LlamaConfig.
    """

    model_type = "memory_llama"

    def __init__(
        self,
        memory_layers: Sequence[int] = (),
        memory_kind: str = "memory",
        memory_slots: int = 0,
        memory_heads: int = 4,
        memory_top_k: int = 32,
        memory_key_width: int | None = None,
        memory_value_width: int | None = None,
        memory_qk_norm: bool = False,
        memory_gating: bool = False,
        memory_output_gate: bool = False,
        memory_shared: bool = True,
        memory_insertion: str = "replace",
        memory_experts: int = 16,
        memory_experts_per_token: int = 1,
        memory_expert_width: int | None = None,
        memory_ngrams: Sequence[int] = (2, 3),
        memory_hash_seed: int = 0,
        memory_signed_root: bool = False,
        memory_convolution: bool = False,
        memory_scores: str = "softmax",
        memory_output_init: str = "published",
        memory_rank: int = 2,
        memory_expansion: int = 4,
        memory_units: bool = False,
        memory_also: Sequence[Mapping[str, Any]] = (),
        **kwargs: Any,
    ) -> None:
        self.memory_layers = list(memory_layers)
        self.memory_kind = memory_kind
        self.memory_slots = memory_slots
        self.memory_heads = memory_heads
        self.memory_top_k = memory_top_k
        self.memory_key_width = memory_key_width
        self.memory_value_width = memory_value_width
        self.memory_qk_norm = memory_qk_norm
        self.memory_gating = memory_gating
        self.memory_output_gate = memory_output_gate
        self.memory_shared = memory_shared
        self.memory_insertion = memory_insertion
        self.memory_experts = memory_experts
        self.memory_experts_per_token = memory_experts_per_token
        self.memory_expert_width = memory_expert_width
        self.memory_ngrams = list(memory_ngrams)
        self.memory_hash_seed = memory_hash_seed
        self.memory_signed_root = memory_signed_root
        self.memory_convolution = memory_convolution
        self.memory_scores = memory_scores
        self.memory_output_init = memory_output_init
        self.memory_rank = memory_rank
        self.memory_expansion = memory_expansion
        self.memory_units = memory_units
        self.memory_also = [dict(one) for one in memory_also]
        super().__init__(**kwargs)
