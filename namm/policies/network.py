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
from .features import BINS, DECAY, FEATURES, HOP, OLD_EPS, ema, spectrogram, token_features
from .scorer import BAM_PARAMETERS, bam_scores, count, layer_sizes, mlp_scores

Scorer = Literal["bam", "mlp"]
RUN = 512  # tokens between runs in the published configuration
_ROWS = 128  # rows of attention written out at a time, where the fused op does not apply


@dataclass(frozen=True)
class Namm:
    """A NAMM (neural attention memory model): a network that scores cached tokens by how they were attended to.

    The network reads a moving average of the spectrum of each token's attention, and the token's age. One network
    serves all layers and heads. The default, where evolution starts, has zero parameters and keeps every token.

    Source: Cetin et al. 2024, "An Evolved Universal Transformer Memory" (arXiv 2410.13166), section 3.

    Args:
        parameters: Parameters [n] of the network; n = 4,172 for "bam".
        mean: Mean of the features [17], from `calibrate`.
        variance: Variance of the features [17], from `calibrate`.
        rule: How scores become a choice of tokens.
        every: Tokens between evictions; a multiple of 16.
        scorer: "bam" (the backward attention memory model of the paper) or "mlp".
        hidden: Widths of the hidden layers; "mlp" only.
        strict: "bam" only: whether a token attends to newer tokens only, and not to itself.
        name: Name in tables and figures.
        eps: Number that is added to the variance; 0 as published. NAMMs of older versions of memx have 1e-5.

    Raises:
        MemxError: `every` is not a positive multiple of 16.
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
    eps: float = 0.0

    hop = context = HOP
    width = BINS

    def __post_init__(self) -> None:
        check_every(self.every)
        assert self.eps in (0.0, OLD_EPS), self.eps
        wanted = BAM_PARAMETERS if self.scorer == "bam" else count(layer_sizes((FEATURES, *self.hidden, 1)))
        assert self.parameters.shape == (wanted,), (self.parameters.shape, wanted)
        assert self.mean.shape == self.variance.shape == (BINS,), (self.mean.shape, self.variance.shape)

    def observe(self, block: Block) -> Tensor:
        """Update the moving average of each key's spectrum with new queries: [B, H, T, 17]."""
        return moving_spectrum(block)

    def scores(self, view: View) -> Tensor:
        """The scorer's output for each token: [B, H, T], float32."""
        return self.score(self.parameters, self.tokens(view), view.recent.exists)

    def tokens(self, view: View) -> Tensor:
        """What the scorer reads of each token: [B, H, T, 25], float32."""
        place = view.key.device
        return token_features(view.ages, view.state, self.mean.to(place), self.variance.to(place), self.eps)

    def score(self, parameters: Tensor, tokens: Tensor, exists: Tensor | None = None) -> Tensor:
        """The outputs of this kind of scorer for given parameters: see `bam_scores` for shapes."""
        parameters = parameters.to(tokens.device)
        if self.scorer == "mlp":
            return mlp_scores(parameters, tokens, hidden=self.hidden)
        return bam_scores(parameters, tokens, exists, strict=self.strict)


def moving_spectrum(block: Block) -> Tensor:
    """The moving average of the spectrum of each key's attention after new queries: [B, H, T, 17], float32."""
    new = block.attention
    carry = block.context.rows()  # [B, H, 16, T_old]
    state = None if block.state is None else block.state.float()
    if new.window is None:
        return attention_spectrogram(new.query, new.key, new.lse, carry, state, new.exists, new.scale, DECAY).spectrum
    # The fused op knows no window: attention is written out, some rows at a time. `carry` is the last 16 rows before a
    # part, the left half of its first frame of 32; keys that came after those rows had none of their attention: zeros.
    for part in new.parts(_ROWS):
        rows = part.rows()
        carry = F.pad(carry, (0, rows.shape[3] - rows.shape[2] - carry.shape[3]))
        state = ema(spectrogram(rows, carry), state)
        carry = rows[:, :, -HOP:]
    assert state is not None
    return state
