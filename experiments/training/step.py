"""A batch -> gradients: its micro-batches forward and backward on this process, with its own rows of each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...memory_layers.llama import MemoryLlamaForCausalLM, moe_layers_of, ultramem_layers_of
from ..config.training import TrainConfig
from ..models.slot_usage import SlotUsage
from ..runtime.devices import autocast_for
from .held_out_text import HeldOutText
from .loss import answer_loss, balance_loss, balance_weight, core_loss, core_weight, text_loss
from .micro_batches import run_overlapped

if TYPE_CHECKING:
    from ..distributed.parallel import Parallelism
    from .data import TrainingData


class TrainStep:
    """Leaves the gradients of a training step in a model and in the gradient buffers of its tables.

    The load-balance loss of experts is that of each micro-batch on each rank; cores have theirs in each, too.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: MemoryLlamaForCausalLM,
        usage: SlotUsage,
        text: HeldOutText | None,
        device: torch.device,
        data: TrainingData,
        parallelism: Parallelism,
        loss: Callable[[MemoryLlamaForCausalLM, Any], Tensor] = answer_loss,
    ) -> None:
        """loss: of a micro-batch, summed over what `data.micro_batches` counts."""
        self.loss = loss
        self.config, self.model, self.usage, self.text = config, model, usage, text
        self.device, self.data, self.parallelism = device, data, parallelism
        self.experts, self.ultramem = moe_layers_of(model), ultramem_layers_of(model)

    def __call__(self, batch: Any, step: int) -> tuple[Tensor, int]:
        """Add a batch's gradients; its loss as far as it is this rank's, and all tokens with mixed-in text."""
        micro_batches, counted, tokens = self.data.micro_batches(batch)
        ranks = self.parallelism.world.size
        parts = len(micro_batches) * ranks
        balance, core = balance_weight(self.config.memory) / parts, core_weight(self.config.memory) / parts
        total = torch.zeros((), device=self.device)

        def forward(micro_batch: Any) -> tuple[Tensor, Tensor]:
            with self._autocast():
                # divided by the tokens of the whole step, so that gradients of micro-batches and ranks add up to it
                loss = self.loss(self.model, micro_batch) / counted
                return loss, loss + balance_loss(self.experts, balance) + core_loss(self.ultramem, core)

        def backward(losses: tuple[Tensor, Tensor]) -> None:
            total.add_(losses[0].detach())
            losses[1].backward()

        def count(micro_batch: Any) -> None:
            self._count(micro_batch.real)

        on_device = (part.to(self.device) for part in micro_batches)
        ahead = self.config.parallel.prefetch if self.config.parallel.host_values else 0
        with self.parallelism.keep_gathered(self.model, ahead):
            run_overlapped(on_device, forward, backward, ahead=ahead, turn=count)
        return total, tokens + self._add_text(step, ranks)

    def _add_text(self, step: int, ranks: int) -> int:
        """Train on the text blocks that are mixed in; each rank takes them all, for its share. Returns their tokens."""
        blocks = self.text.mixed_in(step) if self.text else None
        if blocks is None:
            return 0
        self._count(None)
        # every rank computes the same blocks, whose use counts once
        with nullcontext() if self.parallelism.world.is_first else self.usage.paused(), self._autocast():
            (text_loss(self.model, blocks.to(self.device)) / ranks).backward()
        return blocks.numel()

    def _count(self, mask: Tensor | None) -> None:
        """Leave padding out of the statistics of use and of the experts' balance."""
        self.usage.count_only(mask)
        for layer in self.experts:
            layer.counted = mask

    def _autocast(self):
        return autocast_for(self.config.training.precision, self.device)
