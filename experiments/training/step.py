"""A batch -> gradients: its parts forward and backward on this process, of several each with its own rows."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...memory_layers.llama import MemoryLlamaForCausalLM, moe_layers_of
from ..config.training import TrainConfig
from ..data.batches import Batch
from ..models.slot_usage import SlotUsage
from ..runtime.devices import autocast_for
from .held_out_text import HeldOutText
from .loss import answer_loss, balance_loss, parts_of, text_loss
from .micro_batches import kept_whole, run_overlapped

if TYPE_CHECKING:
    from ..distributed.parallel import Parallelism


class TrainStep:
    """Leaves the gradients of a training step in a model and in the sinks of its tables.

    divided: whether a batch holds this rank's rows alone; else they are taken of it here. The loss-balance of experts
    is that of each part of a batch on each rank.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: MemoryLlamaForCausalLM,
        use: SlotUsage,
        text: HeldOutText | None,
        device: torch.device,
        layout: Parallelism | None,
        *,
        divided: bool,
    ) -> None:
        self.config, self.model, self.use, self.text = config, model, use, text
        self.device, self.layout, self.divided = device, layout, divided
        self.experts = moe_layers_of(model)

    def __call__(self, batch: Batch, step: int) -> tuple[Tensor, int]:
        """Add the gradients of a batch; its loss as far as it is this rank's, and the tokens of all ranks."""
        parts, counted, tokens = self._parts(batch)
        ranks = self.layout.world.size if self.layout is not None else 1
        weight = self.config.memory.balance / (len(parts) * ranks)
        total = torch.zeros((), device=self.device)

        def forward(part: Batch) -> tuple[Tensor, Tensor]:
            with self._autocast():
                loss = answer_loss(self.model, part) / counted
                return loss, loss + balance_loss(self.experts, weight)

        def backward(found: tuple[Tensor, Tensor]) -> None:
            total.add_(found[0].detach())
            found[1].backward()

        on_device = (Batch(*(tensor.to(self.device) for tensor in part)) for part in parts)
        ahead = self.config.parallel.prefetch if self.config.parallel.host_values else 0
        with kept_whole(self.model, ahead):
            run_overlapped(
                on_device, forward, backward, ahead=ahead, turn=lambda part: self._count(part.documents.flatten() >= 0)
            )
        self._add_text(step, ranks)
        return total, tokens

    def _parts(self, batch: Batch) -> tuple[list[Batch], int, int]:
        """This rank's parts of a batch, and how many tokens of all ranks are counted in the loss and shown."""
        parts = parts_of(batch, self.config.training.accumulate)
        counted, tokens = int((batch.labels != -100).sum()), int((batch.documents >= 0).sum())
        if self.layout is None:
            return parts, counted, tokens
        if self.divided:
            counted, tokens = map(int, self.layout.totals([counted, tokens]))
            return parts, counted, tokens
        return [self.layout.share_of(part) for part in parts], counted, tokens

    def _add_text(self, step: int, ranks: int) -> None:
        """Blocks of ordinary text beside the facts; of several ranks each takes them all, for its share."""
        blocks = self.text.mixed_in(step) if self.text else None
        if blocks is None:
            return
        self._count(None)
        first = self.layout is None or self.layout.world.is_first
        with nullcontext() if first else self.use.paused(), self._autocast():  # their use counts once
            (text_loss(self.model, blocks.to(self.device)) / ranks).backward()

    def _count(self, mask: Tensor | None) -> None:
        """Leave padding out of the statistics of use and of the experts' balance."""
        self.use.count_only(mask)
        for layer in self.experts:
            layer.counted = mask

    def _autocast(self):
        return autocast_for(self.config.training.precision, self.device)
