"""The shape of a base model, for counts of what work with its cache costs."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Shape:
    """A host: parameters used for a token, layers, query and key-value heads, numbers a head, bytes of a number.

    noted: numbers that a NAMM notes beside a key.
    """

    parameters: int
    active: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    size: int
    noted: int

    @property
    def token_bytes(self) -> int:
        """Of keys and values of one token, and of what a NAMM notes beside them."""
        numbers = 2 * self.head_dim * self.size + 4 * self.noted + 4
        return self.layers * self.kv_heads * numbers

    def forward(self, new: int, before: int = 0) -> float:
        """FLOPs of so many tokens after others."""
        attended = new * before + new * new / 2
        return 2.0 * self.active * new + 4.0 * self.layers * self.heads * self.head_dim * attended


def meta_model(described: PretrainedConfig) -> PreTrainedModel:
    """A base model of a transformers config on the meta device: without weights."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(deepcopy(described), trust_remote_code=False)


def host_shape(described: PretrainedConfig, dtype: str, noted: int, model: PreTrainedModel | None = None) -> Shape:
    """The shape of a base model.

    Args:
        described: Its transformers config.
        dtype: Of cached keys and values, by its name in torch.
        noted: Numbers that a NAMM notes beside a key.
        model: Its `meta_model`, where there is one already.

    Returns:
        The shape, counted on the meta device.
    """
    count = sum(parameter.numel() for parameter in (model or meta_model(described)).parameters())
    sizes: Any = described
    table = sizes.vocab_size * sizes.hidden_size
    active = count if getattr(sizes, "tie_word_embeddings", True) else count - table  # a look-up is no product
    kv_heads = getattr(sizes, "num_key_value_heads", None) or sizes.num_attention_heads
    head_dim = getattr(sizes, "head_dim", None) or sizes.hidden_size // sizes.num_attention_heads
    size = getattr(torch, dtype).itemsize
    return Shape(count, active, sizes.num_hidden_layers, sizes.num_attention_heads, kv_heads, head_dim, size, noted)
