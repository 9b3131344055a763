"""What a training step minimises: a packed batch or blocks of text -> a loss to differentiate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ...memory_layers.config import MemoryConfig
from ...memory_layers.moe import MoeLayer
from ...memory_layers.ultramem.layer import UltraMemLayer
from ..data.batches import Batch, block_mask

if TYPE_CHECKING:
    from ...memory_layers.llama import MemoryLlamaForCausalLM


def answer_loss(model: MemoryLlamaForCausalLM, batch: Batch) -> Tensor:
    """Cross-entropy summed over the labelled tokens of a packed batch; logits are made for those alone."""
    labels = batch.labels.flatten()
    counted = (labels != -100).nonzero().squeeze(-1)
    inputs = dict(attention_mask=block_mask(batch.documents), position_ids=batch.positions)
    logits = model.logits_at(counted, batch.tokens, **inputs)  # [counted, vocabulary]
    return F.cross_entropy(_wide(logits), labels.index_select(0, counted), reduction="sum")


def text_loss(model: MemoryLlamaForCausalLM, blocks: Tensor) -> Tensor:
    """Mean cross-entropy of the next token over blocks [R, S] of plain text."""
    places = torch.arange(blocks.numel(), device=blocks.device).view_as(blocks)[:, :-1].flatten()
    logits = model.logits_at(places, blocks)
    return F.cross_entropy(_wide(logits), blocks[:, 1:].flatten())


def _wide(logits: Tensor) -> Tensor:
    """Logits in float32, or in float64 where the model is."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def balance_loss(layers: list[MoeLayer], weight: float) -> Tensor | float:
    """The load-balance losses that the last forward pass left, summed and weighed; 0 without a mixture of experts."""
    found = [layer.balance for layer in layers if layer.balance is not None]
    return weight * torch.stack(found).sum() if found else 0.0


def balance_weight(memory: MemoryConfig) -> float:
    """The weight of the load-balance losses: that of the mixture of experts among the memories of a model."""
    return next((part.balance for part in memory.parts if part.kind == "moe"), memory.balance)


def core_loss(layers: list[UltraMemLayer], weight: float) -> Tensor | float:
    """How far the cores of Tucker scores were from rank one in the last forward pass, summed and weighed."""
    found = [layer.excess for layer in layers if layer.excess is not None]
    return weight * torch.stack(found).sum() if found else 0.0


def core_weight(memory: MemoryConfig) -> float:
    """The weight of the loss on cores: that of the UltraMem memory among the memories of a model."""
    return next((part.core_penalty for part in memory.parts if part.kind == "ultramem"), memory.core_penalty)
