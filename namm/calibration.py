"""A host and prompts -> the mean and variance of each input, by which a NAMM's features are standardised.

Collected once, with everything kept, over the batch, heads, tokens and layers at every run; then frozen and saved with
the NAMM. Source: Cetin et al. 2024 (arXiv 2410.13166), section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import MemxError
from ..transformers_compat import input_device
from .attachment import attach
from .policies.base import Block, Rule, View, check_every
from .policies.features.normalisation import Normalisation
from .policies.features.registry import PUBLISHED, FeatureSet
from .policies.network import RUN
from .trial import evaluating

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Calibration:
    """A policy that keeps everything and adds to `normalisation` what a NAMM would have read at each run."""

    every: int = RUN
    features: FeatureSet = field(default_factory=lambda: FeatureSet(PUBLISHED))
    normalisation: Normalisation = field(init=False)

    name = "calibration"
    rule = Rule(threshold=-inf)

    def __post_init__(self) -> None:
        check_every(self.every)
        object.__setattr__(self, "normalisation", Normalisation(int(self.features.standardised.sum())))

    @property
    def hop(self) -> int:
        """That of the features."""
        return self.features.hop

    @property
    def context(self) -> int:
        """That of the features."""
        return self.features.context

    @property
    def width(self) -> int:
        """That of the features."""
        return self.features.width

    @property
    def half_state(self) -> bool:
        """That of the features."""
        return self.features.half_state

    @property
    def needs_rotary(self) -> bool:
        """Whether the features need keys or queries before rotary positions."""
        return self.features.rotary

    def observe(self, block: Block) -> Tensor:
        """What the features note of each key after new queries: [B, H, T, width]."""
        return self.features.observe(block)

    def summary_size(self, width: int) -> int:
        """That of the features."""
        return self.features.summary_size(width)

    def summarise(self, block: Block, summary: Tensor) -> Tensor:
        """What the features note of each sequence after new queries: [B, Hq, numbers]."""
        return self.features.summarise(block, summary)

    def scores(self, view: View) -> Tensor:
        """Zero for each token, [B, H, T], once the inputs of those that exist are added."""
        inputs = self.features.read(view)[..., self.features.standardised.to(view.key.device)]
        exists = view.recent.exists
        self.normalisation.add(inputs if exists is None else inputs[exists])
        return torch.zeros(inputs.shape[:3], device=inputs.device)


def calibrate(
    model: PreTrainedModel,
    batches: Iterable[Tensor | Mapping[str, Any]],
    *,
    every: int = RUN,
    features: Sequence[str] = PUBLISHED,
) -> tuple[Tensor, Tensor]:
    """Measure the mean and variance of a NAMM's features on a model; the NAMM normalises its features by them.

    The model keeps its full cache. It runs in eval mode, without gradients and without its language-model head. Tokens
    after a prompt's last multiple of `every` are not measured.

    Source: Cetin et al. 2024, "An Evolved Universal Transformer Memory" (arXiv 2410.13166), section 3.

    Args:
        model: A decoder that `attach` supports.
        batches: Prompts: input ids [N] or [B, N], or mappings with `input_ids` and optionally `attention_mask`, padded
            on either side.
        every: Tokens between evictions of the NAMM; a multiple of 16.
        features: Names of the NAMM's features.

    Returns:
        Mean and variance of each standardised input, float32, over batch, heads, tokens and layers: [17] each for the
        published features, of which the age is not standardised.

    Raises:
        MemxError: In the cases of `attach`; for a batch of another form; if no prompt has `every` tokens;
            if the model's attention is not finite.
    """
    policy, longest = Calibration(every, FeatureSet(tuple(features))), 0
    with evaluating(model), attach(model, policy) as attached, torch.no_grad():
        for batch in batches:
            ids, mask = _prompts(batch)
            lengths = mask.sum(1)
            longest = max(longest, int(lengths.max()))
            long = lengths >= every
            if long.any():
                ids, mask = ids[long].to(input_device(model)), mask[long].to(input_device(model))
                positions = (mask.cumsum(1) - 1).clamp_min(0)  # as in generation
                attached.decoder(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True)
    if longest < every:
        raise MemxError(
            f"every prompt is shorter than the NAMM's eviction interval of {every} tokens: the longest has {longest}",
            hint="calibrate on longer prompts, or use a smaller eviction interval",
        )
    mean, variance = policy.normalisation.result()
    if not (mean.isfinite() & variance.isfinite()).all():
        raise MemxError("the model's attention is not finite", hint="use another dtype, such as bfloat16 or float32")
    return mean, variance


def _prompts(batch: Tensor | Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Input ids [B, N] and which of them are tokens, [B, N] bool."""
    ids, mask = (batch.get("input_ids"), batch.get("attention_mask")) if isinstance(batch, Mapping) else (batch, None)
    if not isinstance(ids, Tensor) or ids.dim() not in (1, 2) or ids.numel() == 0:
        shape = list(ids.shape) if isinstance(ids, Tensor) else type(ids).__name__
        raise MemxError(
            f"input ids {shape} are not prompts", hint="pass tensors of shape [tokens] or [prompts, tokens]"
        )
    there = torch.ones_like(ids, dtype=torch.bool) if mask is None else torch.as_tensor(mask).to(ids.device).bool()
    if there.shape != ids.shape:
        raise MemxError(
            f"attention mask {list(there.shape)} does not match input ids {list(ids.shape)}",
            hint="give it the same shape",
        )
    return torch.atleast_2d(ids), torch.atleast_2d(there)
