"""Sparse fine-tuning: which slots facts look up and ordinary text does not -> the rows that a step may train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...kernels.embedding_bag.gradient import BagGradient
from ...memory_layers.llama import memory_layers_of
from ...memory_layers.slot_scores import SlotScores
from ...memory_layers.tables.values import MemoryValues
from ..config.training import FinetuneConfig

if TYPE_CHECKING:
    from ...memory_layers.llama import MemoryLlamaForCausalLM


class TrainableRows:
    """Chooses the rows that a step may train: those that its facts look up and ordinary text does not."""

    def __init__(self, model: MemoryLlamaForCausalLM, config: FinetuneConfig, text: Tensor) -> None:
        """text [R, S]: blocks of ordinary text, each a reference batch of its own; the first of them are read."""
        self.rows = config.rows
        tables = {name: module for name, module in model.named_modules() if isinstance(module, MemoryValues)}
        self.scores = {
            name: SlotScores(table.weight.shape[0], table.weight.device, by=config.rows_by)
            for name, table in tables.items()
        }
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
