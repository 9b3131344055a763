"""The NAMM itself as a policy: features of each cached token, a scorer network, a threshold.

Source: Cetin et al. 2024, "An Evolved Universal Transformer Memory" (arXiv 2410.13166), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...errors import MemxError
from .base import Block, Rule, View, check_every
from .features.normalisation import standardise
from .features.registry import PUBLISHED, FeatureSet
from .features.spectrum import OLD_EPS
from .head_table import HeadTable
from .scorer import Activation, Scorer, bam_scores, count, mlp_scores, network_sizes

RUN = 512  # tokens between runs in the published configuration


@dataclass(frozen=True)
class Namm:
    """A NAMM (neural attention memory model): a small network that scores cached tokens by their features.

    One network serves all layers and heads. The default, where the published evolution starts, is the published NAMM
    with zero parameters; it keeps every token.

    Source: Cetin et al. 2024, "An Evolved Universal Transformer Memory" (arXiv 2410.13166), section 3.

    Args:
        parameters: Parameters [n]: of the network, then of the head table; 4,172 for the published NAMM. None: zeros.
        mean: Mean [m] of the standardised inputs, from `calibrate`; m = 17 for the published features. None: zeros.
        variance: Variance [m] of the standardised inputs, from `calibrate`. None: ones.
        rule: How scores become a choice of tokens.
        every: Tokens between evictions; a multiple of 16.
        scorer: "bam" (the backward attention memory model of the paper), "mlp" or "linear".
        hidden: Widths of the hidden layers; "mlp" only.
        strict: "bam" only: whether a token attends to newer tokens only, and not to itself.
        name: Name in tables and figures.
        eps: Number that is added to the variance; 0 as published. NAMMs of older versions of memx have 1e-5.
        features: Names of what the scorer reads of each token, in this order: see `FEATURES`.
        activation: Between the layers of an MLP: "relu" or "gelu". None: "relu" for the published features, else
            "gelu".
        table: Numbers for each layer and head of one base model, which bind the NAMM to it. None: it is universal.

    Raises:
        MemxError: `every` is not a positive multiple of 16, or a feature is unknown.

    Example:
        ```python
        from memx.namm import NO_PASS, Namm, Rule

        small = Namm(scorer="mlp", hidden=(8, 8), features=NO_PASS, rule=Rule(budget=0.25), every=64)
        print(small.parameters.shape)  # [161]
        ```
    """

    parameters: Tensor = field(default=None, repr=False)  # type: ignore[assignment]  # made in __post_init__
    mean: Tensor = field(default=None, repr=False)  # type: ignore[assignment]
    variance: Tensor = field(default=None, repr=False)  # type: ignore[assignment]
    rule: Rule = field(default_factory=Rule)
    every: int = RUN
    scorer: Scorer = "bam"
    hidden: tuple[int, ...] = ()
    strict: bool = False
    name: str = "namm"
    eps: float = 0.0
    features: tuple[str, ...] = PUBLISHED
    activation: Activation | None = None
    table: HeadTable | None = None

    def __post_init__(self) -> None:
        check_every(self.every)
        assert self.eps in (0.0, OLD_EPS), self.eps
        wanted, inputs = self.parameter_count, int(self.feature_set.standardised.sum())
        made = {
            "features": self.feature_set.names,
            "activation": self.activation or ("relu" if self.features == PUBLISHED else "gelu"),
            "parameters": torch.zeros(wanted) if self.parameters is None else self.parameters,
            "mean": torch.zeros(inputs) if self.mean is None else self.mean,
            "variance": torch.ones(inputs) if self.variance is None else self.variance,
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)
        for name, numbers in (("parameters", wanted), ("mean", inputs), ("variance", inputs)):
            if (shape := getattr(self, name).shape) != (numbers,):
                raise MemxError(
                    f"{name} has shape {list(shape)}, and a NAMM of these features and layers needs [{numbers}]",
                    hint="give numbers that were made for the same features: calibrate(..., features=namm.features)",
                )

    @cached_property
    def feature_set(self) -> FeatureSet:
        """The features as one."""
        return FeatureSet(tuple(self.features))

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of the network's layers."""
        embedding = 0 if self.table is None else self.table.embedding
        return network_sizes(self.scorer, self.feature_set.inputs + embedding, self.hidden)

    @property
    def parameter_count(self) -> int:
        """How many parameters it has, those of the head table included."""
        return count(self.sizes) + (0 if self.table is None else self.table.count)

    @property
    def hop(self) -> int:
        """`observe` gets new queries in multiples of this number; 0: its features need none."""
        return self.feature_set.hop

    @property
    def context(self) -> int:
        """Previous queries that its features look at."""
        return self.feature_set.context

    @property
    def width(self) -> int:
        """Numbers that its features keep beside each key."""
        return self.feature_set.width

    @property
    def half_state(self) -> bool:
        """Whether what its features keep beside each key may be stored in float16, beside half-precision keys."""
        return self.feature_set.half_state

    @property
    def observes(self) -> object:
        """What its features note while reading; NAMMs of which this is equal note the same."""
        return self.feature_set.observes

    @property
    def needs_rotary(self) -> bool:
        """Whether it reads keys or queries before rotary positions."""
        return self.feature_set.rotary

    def check_model(self, layers: int) -> None:
        """Raise MemxError for a model with other layers than the head table has numbers for."""
        if self.table is not None and self.table.layers != layers:
            raise MemxError(
                f"this NAMM has numbers for {self.table.layers} layers, and this model has {layers}",
                hint="use it on the model that it was made for, or a NAMM without a head table",
            )

    def observe(self, block: Block) -> Tensor:
        """Update what its features note of each key with new queries: [B, H, T, width], float32."""
        return self.feature_set.observe(block)

    def summary_size(self, width: int) -> int:
        """Numbers that its features keep of each sequence and query head."""
        return self.feature_set.summary_size(width)

    def summarise(self, block: Block, summary: Tensor) -> Tensor:
        """Update what its features note of each sequence and query head: [B, Hq, numbers]."""
        return self.feature_set.summarise(block, summary)

    def scores(self, view: View) -> Tensor:
        """The scorer's output for each token: [B, H, T], float32."""
        heads: dict[str, Any] = dict(first_head=view.first_head, total_heads=view.total_heads)
        return self.score(self.parameters, self.tokens(view), view.recent.exists, layer=view.layer, **heads)

    def tokens(self, view: View) -> Tensor:
        """What the scorer reads of each token, standardised: [B, H, T, inputs], float32."""
        features = self.feature_set
        return standardise(features.read(view), features.standardised, self.mean, self.variance, self.eps)

    def score(
        self,
        parameters: Tensor,
        tokens: Tensor,
        exists: Tensor | None = None,
        *,
        layer: int | None = None,
        first_head: int = 0,
        total_heads: int | None = None,
    ) -> Tensor:
        """Score tokens with given parameters, of one candidate or a population.

        Args:
            parameters: [n] or [P, n].
            tokens: What `tokens` gave: [B, H, T, inputs], or [P, B, H, T, inputs] to give each candidate its own.
            exists: Which are tokens [B or P*B, 1 or H, T], bool; None: all.
            layer: Number of the layer; needed with a head table.
            first_head: Number of the first of the H heads.
            total_heads: Heads of the layer. None: H.

        Returns:
            Scores [B, H, T], or [P, B, H, T] of a population, float32.

        Raises:
            MemxError: The head table is of another model.
        """
        parameters = parameters.to(tokens.device)
        if self.table is None:
            return self._network(parameters, tokens, exists)
        assert layer is not None, "a head table needs the number of the layer"
        network, numbers = parameters.split([count(self.sizes), self.table.count], -1)
        bias, embedding = self.table.of_layer(numbers, layer, tokens.shape[-3], first_head, total_heads)
        scores = self._network(network, self.table.beside(tokens, embedding), exists)
        return scores + bias

    def _network(self, parameters: Tensor, tokens: Tensor, exists: Tensor | None) -> Tensor:
        if self.scorer == "bam":
            return bam_scores(parameters, tokens, exists, strict=self.strict)
        assert self.activation is not None
        return mlp_scores(
            parameters, tokens, hidden=self.hidden if self.scorer == "mlp" else (), activation=self.activation
        )
