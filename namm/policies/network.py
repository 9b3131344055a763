"""The NAMM itself as a policy: the spectrum of each token's attention, a scorer network, a threshold.

Source: Cetin et al. 2024, "An Evolved Universal Transformer Memory" (arXiv 2410.13166), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ...kernels.attention_spectrogram import attention_spectrogram
from .base import Block, Rule, View, check_every
from .features import BINS, DECAY, FEATURES, HOP, ema, spectrogram, token_features
from .scorer import BAM_PARAMETERS, bam_scores, count, layer_sizes, mlp_scores

Scorer = Literal["bam", "mlp"]
RUN = 512  # tokens between runs in the published configuration
_ROWS = 128  # rows of attention written out at a time, where the fused op does not apply


@dataclass(frozen=True)
class Namm:
    """A NAMM: parameters [n] of its scorer, and the mean and variance [17] that its features are normalised by.

    The default is what evolution starts from: zero parameters, which keep everything. hidden: widths of an MLP scorer's
    hidden layers; strict: a token's BAM attention leaves itself out.
    """

    parameters: Tensor = field(default_factory=lambda: torch.zeros(BAM_PARAMETERS))
    mean: Tensor = field(default_factory=lambda: torch.zeros(BINS))
    variance: Tensor = field(default_factory=lambda: torch.ones(BINS))
    rule: Rule = field(default_factory=Rule)
    every: int = RUN
    scorer: Scorer = "bam"
    hidden: tuple[int, ...] = ()
    strict: bool = False
    name: str = "namm"

    hop = context = HOP
    width = BINS

    def __post_init__(self) -> None:
        check_every(self.every)
        wanted = BAM_PARAMETERS if self.scorer == "bam" else count(layer_sizes((FEATURES, *self.hidden, 1)))
        assert self.parameters.shape == (wanted,), (self.parameters.shape, wanted)
        assert self.mean.shape == self.variance.shape == (BINS,), (self.mean.shape, self.variance.shape)

    def observe(self, block: Block) -> Tensor:
        """The moving average of each key's spectrum after new queries: [B, H, T, 17]."""
        return moving_spectrum(block)

    def scores(self, view: View) -> Tensor:
        """The scorer's output for each token: [B, H, T], float32."""
        return self.score(self.parameters, self.tokens(view), view.recent.exists)

    def tokens(self, view: View) -> Tensor:
        """What the scorer reads of each token: [B, H, T, 25], float32."""
        place = view.key.device
        return token_features(view.ages, view.state, self.mean.to(place), self.variance.to(place))

    def score(self, parameters: Tensor, tokens: Tensor, exists: Tensor | None = None) -> Tensor:
        """The outputs of this kind of scorer for given parameters: see `bam_scores` for shapes."""
        parameters = parameters.to(tokens.device)
        if self.scorer == "mlp":
            return mlp_scores(parameters, tokens, hidden=self.hidden)
        return bam_scores(parameters, tokens, exists, strict=self.strict)


def moving_spectrum(block: Block) -> Tensor:
    """The moving average of the spectrum of each key's attention after new queries: [B, H, T, 17], float32."""
    met = block.attention
    carry = block.context.rows()  # [B, H, 16, T_old]
    state = None if block.state is None else block.state.float()
    if met.window is None:
        return attention_spectrogram(met.query, met.key, met.lse, carry, state, met.exists, met.scale, DECAY).spectrum
    for part in met.parts(_ROWS):
        rows = part.rows()
        carry = F.pad(carry, (0, rows.shape[3] - rows.shape[2] - carry.shape[3]))
        state = ema(spectrogram(rows, carry), state)
        carry = rows[:, :, -HOP:]
    assert state is not None
    return state
