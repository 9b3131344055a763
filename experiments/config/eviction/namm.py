"""The section `namm` of an evolution's config: the network, what it reads, and how its scores become a choice."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ....errors import shown
from ..base import StrictModel

_HOP = 16  # of the spectrogram


class NammConfig(StrictModel):
    """Fixed settings of a NAMM (not evolved): scoring network, eviction interval and eviction rule."""

    scorer: Literal["bam", "mlp", "linear"] = Field(
        default="bam", description="network that scores tokens: bam (attention over newer tokens), mlp or linear"
    )
    hidden: tuple[int, ...] = Field(default=(), description="mlp: widths of the hidden layers; empty: none")
    features: tuple[str, ...] = Field(
        default=("published",),
        min_length=1,
        description="what the network reads of each token: names of memx.namm.FEATURES; published: the paper's 25",
    )
    head_bias: bool = Field(
        default=False, description="a bias for each layer and head, which binds the NAMM to its base model"
    )
    head_embedding: int = Field(
        default=0, ge=0, le=1024, description="numbers for each layer and head that the network also reads; 0: none"
    )
    strict: bool = Field(default=False, description="bam: exclude a token from its own attention")
    every: int = Field(
        default=512, ge=_HOP, multiple_of=_HOP, description="eviction interval in tokens, a multiple of 16"
    )
    rule: Literal["threshold", "budget"] = Field(
        default="threshold",
        description="threshold: keep tokens that score at least `threshold`; budget: keep the best share of them",
    )
    threshold: float = Field(default=0.0, allow_inf_nan=False, description="threshold: lowest score that is kept")
    budget: float = Field(default=0.5, gt=0, le=1, description="budget: share of all tokens to keep, in (0, 1]")
    grouping: Literal["layer_max", "per_head"] = Field(
        default="layer_max",
        description="threshold: tokens per head; layer_max: as many as the layer's largest head, per_head: its own",
    )
    allocation: Literal["equal", "global", "table", "layer_max"] = Field(
        default="equal",
        description="budget: equal shares of heads, one threshold (global, layer_max), or a table of measured shares",
    )
    first: int = Field(default=0, ge=0, le=1_000_000, description="first tokens kept in any case, within the budget")
    newest: int = Field(default=0, ge=0, le=1_000_000, description="newest tokens kept in any case, within the budget")

    @model_validator(mode="after")
    def _hidden_is_of_an_mlp(self) -> NammConfig:
        if self.hidden and self.scorer != "mlp":
            raise ValueError("hidden needs scorer mlp; set namm.scorer to mlp, or remove hidden")
        if any(not 1 <= width <= 100_000 for width in self.hidden):
            raise ValueError(f"hidden {shown(list(self.hidden))} has a width below 1 or above 100,000; change it")
        return self
