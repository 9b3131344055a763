"""Ordinary text beside the facts: its loss before and after, blocks to mix in, and which slots it uses.

R blocks of S tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import MemxError
from ...kernels.embedding_bag.gradient import BagGradient
from ...memory_layers.llama import memory_layers_of
from ...memory_layers.product_keys import MemoryValues
from ...memory_layers.slot_scores import SlotScores
from ..config.training import FinetuneConfig, TextConfig
from ..data.text import ordinary_text, split_text, text_blocks, text_nll
from ..metrics.estimates import Estimate, ratio_estimate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ...memory_layers.llama import MemoryLlamaForCausalLM

_TRAINING_BLOCKS = 2000  # at most; a fine-tuning run does not see more


class HeldOutText:
    """Blocks of text for training and held-out ones for measuring; they share no document."""

    def __init__(self, config: TextConfig, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        assert config.source is not None
        self.config = config
        training, held_out = split_text(ordinary_text(config.source), config.held_out, seed)
        self.training = text_blocks(training, tokenizer, block=config.block, most=_TRAINING_BLOCKS, seed=seed)
        self.held_out = text_blocks(held_out, tokenizer, block=config.block, most=config.blocks, seed=seed)
        if not len(self.training) or not len(self.held_out):
            raise MemxError(
                f"text.source {config.source} is too short for blocks of {config.block} tokens",
                hint="lower text.block, or give more text",
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


class TrainableRows:
    """Chooses the rows that a step may train: those that its facts look up and ordinary text does not."""

    def __init__(self, model: MemoryLlamaForCausalLM, config: FinetuneConfig, text: Tensor) -> None:
        """text [R, S]: blocks of ordinary text, each a reference batch of its own; the first of them are read."""
        self.rows = config.rows
        tables = {name: module for name, module in model.named_modules() if isinstance(module, MemoryValues)}
        self.scores = {name: SlotScores(table.weight.shape[0], table.weight.device) for name, table in tables.items()}
        self._of_table = {id(table): self.scores[name] for name, table in tables.items()}
        self._watch(model, text[: config.reference].split(1))

    @torch.no_grad()
    def _watch(self, model: MemoryLlamaForCausalLM, batches: Sequence[Tensor]) -> None:
        """Count which slots each batch of text [R, S] looks up."""
        seen: dict[int, list[Tensor]] = {}
        layers = memory_layers_of(model)
        for layer in layers:
            owners = [id(table) for table in layer.tables()]
            layer.observe = lambda slots, owners=owners: [seen.setdefault(o, []).append(slots) for o in owners]
        for batch in batches:
            seen.clear()
            model.model(batch.to(model.device), use_cache=False)
            for owner, slots in seen.items():
                self._of_table[owner].add_reference(torch.cat([part.flatten() for part in slots]))
        for layer in layers:
            layer.observe = None

    def __call__(self, name: str, parts: list[BagGradient]) -> Tensor:
        return self.scores[name].top_rows(torch.cat([part.slots.flatten() for part in parts]), self.rows)
