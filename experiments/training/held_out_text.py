"""Ordinary text beside the facts: its loss before and after, and blocks to mix in.

R blocks of S tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import MemxError
from ..config.training import TextConfig
from ..data.fact_text import text_of_source
from ..data.text import split_text, text_blocks, text_nll
from ..metrics.estimates import Estimate, ratio_estimate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ...memory_layers.llama import MemoryLlamaForCausalLM

_TRAINING_BLOCKS = 2000  # at most, unless training sees more before it begins anew


class HeldOutText:
    """Blocks of text for training and held-out ones for measuring; they share no document."""

    def __init__(self, config: TextConfig, tokenizer: PreTrainedTokenizerFast, seed: int, steps: int = 0) -> None:
        assert config.source is not None
        self.config, seed = config, seed if config.seed is None else config.seed
        most = max(_TRAINING_BLOCKS, steps * config.mix)
        training, held_out = split_text(text_of_source(config.source), config.held_out, seed)
        self.training = text_blocks(training, tokenizer, block=config.block, most=most, seed=seed)
        self.held_out = text_blocks(held_out, tokenizer, block=config.block, most=config.blocks, seed=seed)
        if not len(self.training) or not len(self.held_out):
            raise MemxError(
                f"text.source {config.source} is too short for blocks of {config.block} tokens",
                hint="lower text.block, or use a longer text",
            )

    def measure(self, model: MemoryLlamaForCausalLM) -> Estimate:
        """NLL in nats per token over the held-out blocks."""
        found = text_nll(model, self.held_out)
        return ratio_estimate([nll for nll, _ in found], [tokens for _, tokens in found])

    def mixed_in(self, step: int) -> Tensor | None:
        """The blocks [R, S] that step `step` trains on, in turn; None if none are mixed in."""
        if not self.config.mix:
            return None
        places = torch.arange(step * self.config.mix, (step + 1) * self.config.mix) % len(self.training)
        return self.training[places]
