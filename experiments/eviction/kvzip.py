"""KVzip's scores: how much a model needs each cached key and value to repeat its context -> a score for each.

L layers, Hq query heads that share H key-value heads, N tokens of context, Q queries at a time.
Source: Kim et al. 2025, "KVzip: Query-Agnostic KV Cache Compression with Context Reconstruction" (arXiv 2505.23416).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...namm.attachment import attach
from ...namm.cache.cache import EvictingCache
from ...namm.policies.base import Attention, Block, Policy, Rule, View
from ...transformers_compat import input_device, length_dependent_rotary, reset_rotary
from ..data.tokenizer import encode_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

INSTRUCTION = "\n\nRepeat the previous context exactly.\n\n"
_ROWS = 64  # queries whose attention is written out at a time


def kvzip_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    context: Tensor,
    *,
    piece: int = 512,
    after_context: Callable[[Policy], EvictingCache] | None = None,
) -> Tensor:
    """Compute KVzip's score of every key of a context.

    The model reads the context, then an instruction to repeat it, then the context again. A key's score is the greatest
    attention probability that it receives from any of the tokens after the context, over the query heads that share it.
    That takes a second pass over the context, of twice the length, and attention of `piece` queries at a time.

    Source: Kim et al. 2025 (arXiv 2505.23416), section 3.2; the context is repeated in one go, not by parts.

    Args:
        model: A decoder that `attach` supports, with as many key-value heads in every layer.
        tokenizer: Its tokenizer.
        context: Token ids [N].
        piece: Tokens of the repetition that are read at a time, which bounds the memory.
        after_context: Makes a cache that holds the whole context and goes on under a policy, which saves reading it
            again. Not used where rotary factors depend on the length of the whole text.

    Returns:
        Scores [L, H, N] in [0, 1], float32, on the model's device. 0 for a key out of its layer's window.

    Raises:
        MemxError: In the cases of `attach`.
    """
    again = repetition(tokenizer, context)
    recorder = _Recorder(len(context))
    with torch.no_grad(), attach(model, recorder) as attached:
        reset_rotary(attached.decoder)
        if after_context is None or length_dependent_rotary(attached.decoder):
            cache, left = attached.new_cache(), (context, *again.split(piece))
        else:
            cache, left = after_context(recorder), again.split(piece)
        cache.length = len(context) + len(again)
        for ids in left:
            attached.decoder(input_ids=ids[None].to(input_device(model)), past_key_values=cache)
    place = input_device(model)  # layers may lie on several
    return torch.stack([recorder.greatest[layer].to(place) for layer in range(len(cache.layers))])


def repetition(tokenizer: PreTrainedTokenizerFast, context: Tensor) -> Tensor:
    """What is read after a context: the instruction, and the context's tokens but for one that begins every text."""
    instruction = torch.tensor(encode_text(tokenizer, INSTRUCTION, begin=False), dtype=context.dtype)
    begins = tokenizer.bos_token_id is not None and int(context[0]) == tokenizer.bos_token_id
    return torch.cat([instruction, context[1:].cpu() if begins else context.cpu()])


@dataclass(frozen=True)
class _Recorder:
    """Keeps everything, and notes of each layer the greatest attention that the first `length` keys get later on."""

    length: int
    greatest: dict[int, Tensor] = field(default_factory=dict)

    name = "kvzip"
    every = None
    hop = 1
    context = width = 0
    rule = Rule(threshold=-inf)

    def observe(self, block: Block) -> Tensor:
        """Nothing is kept beside a key: [1, H, T, 0]."""
        attention = block.attention
        heads, keys = attention.key.shape[1:3]
        if block.layer not in self.greatest:
            self.greatest[block.layer] = attention.lse.new_zeros(heads, self.length)
        if int(attention.own[0, 0, -1]) >= self.length:
            greatest = self.greatest[block.layer]
            for part in attention.parts(_ROWS):
                _raise(greatest, part)
        return attention.lse.new_zeros(1, heads, keys, 0)

    def scores(self, view: View) -> Tensor:
        """Never asked."""
        raise AssertionError("this policy never evicts")


def _raise(greatest: Tensor, attention: Attention) -> None:
    """Raise the greatest attention of keys [H, N] to that of more queries, which are not of the context."""
    places = attention.positions[0].long()  # [H, T]
    length = greatest.shape[1]
    weights = attention.by_head()[0].amax((1, 2))  # [H, T]
    # a key of the repetition has a position beyond the context: it lands in a last column, which is dropped
    padded = torch.cat([greatest, greatest[:, :1]], 1)
    padded.scatter_reduce_(1, places.clamp_max(length), weights.to(greatest.dtype), "amax")
    greatest.copy_(padded[:, :length])
