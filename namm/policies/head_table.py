"""Numbers for each layer and head of one base model: a bias of the score, and an embedding that the scorer reads.

P members of a population, B sequences, L layers, H key-value heads, T tokens, e numbers of an embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import MemxError


@dataclass(frozen=True)
class HeadTable:
    """What a NAMM's last parameters are: a bias [L * H] if there is one, then embeddings [L * H, e].

    Args:
        layers: Layers L of the base model.
        heads: Key-value heads H of each layer.
        bias: Whether the score of each head has a bias.
        embedding: Numbers e that the scorer also reads, others for each head; 0: none.
    """

    layers: int
    heads: int
    bias: bool = True
    embedding: int = 0

    def __post_init__(self) -> None:
        assert self.layers > 0 and self.heads > 0 and self.embedding >= 0, self

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return self.layers * self.heads * (self.bias + self.embedding)

    def of_layer(
        self, numbers: Tensor, layer: int, heads: int, first: int = 0, total: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """The numbers of one layer.

        Args:
            numbers: [n] or [P, n].
            layer: Its number, from 0.
            heads: The key-value heads H that are asked for.
            first: Number of the first of them.
            total: The key-value heads that the layer has; None: H.

        Returns:
            Bias [H, 1], or [P, 1, H, 1]; embedding [H, e] or [P, H, e].

        Raises:
            MemxError: The base model has other layers or heads.
        """
        self.check(heads if total is None else total, layer + 1)
        count, start = self.layers * self.heads, layer * self.heads + first
        bias, embedding = numbers.split([count * self.bias, count * self.embedding], -1)
        own = slice(start, start + heads)
        embedding = embedding.unflatten(-1, (count, self.embedding))[..., own, :]
        if not self.bias:
            bias = numbers.new_zeros(*numbers.shape[:-1], count)
        bias = bias[..., own, None]
        return (bias[:, None] if numbers.dim() == 2 else bias), embedding

    def beside(self, tokens: Tensor, embedding: Tensor) -> Tensor:
        """Tokens [B, H, T, i] or [P, B, H, T, i] with the embedding of their head behind: [..., i + e]."""
        if not self.embedding:
            return tokens
        if embedding.dim() == 3:  # of each member
            tokens = tokens if tokens.dim() == 5 else tokens.expand(len(embedding), *tokens.shape)
            embedding = embedding[:, None]
        embedding = embedding[..., None, :].expand(*tokens.shape[:-1], self.embedding)
        return torch.cat([tokens, embedding], -1)

    def check(self, heads: int, layers: int) -> None:
        """Raise MemxError for a base model with other heads, or more layers."""
        if heads != self.heads or layers > self.layers:
            raise MemxError(
                f"this NAMM has numbers for {self.layers} layers of {self.heads} key-value heads, "
                f"and layer {layers - 1} of this model has {heads}",
                hint="use it on the model that it was made for, or a NAMM without a head table",
            )
