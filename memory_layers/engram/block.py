"""A Llama block with an n-gram memory: hidden states [B, Q, d] and the tokens of the pass -> hidden states."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from .layer import EngramLayer
from .tokens import NgramTokens

TOKENS = "memx_ngrams"  # the argument by which the decoder hands tokens down to its blocks


class EngramDecoderLayer(LlamaDecoderLayer):
    """A block of Llama whose hidden states get the output of an n-gram memory added before attention.

    Args:
        config: Config of the model.
        layer_idx: Number of the block.
        engram: Its n-gram memory.
    """

    def __init__(self, config: Any, layer_idx: int, engram: EngramLayer) -> None:
        super().__init__(config, layer_idx)
        self.engram = engram

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Add the memory's output, then run the block."""
        tokens: NgramTokens = kwargs[TOKENS]
        return super().forward(hidden_states + self.engram(hidden_states, tokens), *args, **kwargs)
