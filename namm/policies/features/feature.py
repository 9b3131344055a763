"""What a feature is: numbers of each cached token, and what must be watched while reading for them.

B sequences, Hq query heads that share H key-value heads (G each), T keys, d numbers a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ....kernels.attention_spectrogram import HOP
from ..base import Attention, Block, View

SINKS = 4  # first tokens, on which attention rests that has nowhere to go


@dataclass(frozen=True)
class RowObserver:
    """Numbers beside each key that change with each query's attention to it: a pass over the attention matrix.

    Attributes:
        update: (numbers [B, H, t, width], queries, their attention [B, H, G, q, t]) -> the numbers after these queries.
        width: Numbers beside a key.
    """

    update: Callable[[Tensor, Attention, Tensor], Tensor]
    width: int = 1


@dataclass(frozen=True)
class BlockObserver:
    """Numbers beside each key that change with whole blocks of queries.

    Attributes:
        update: (new queries, whose state is this observer's own) -> the numbers [B, H, T, width].
        width: Numbers beside a key.
        context: Queries of before the block that it looks at.
    """

    update: Callable[[Block], Tensor]
    width: int
    context: int


@dataclass(frozen=True)
class Summary:
    """Numbers of each sequence and query head, whatever keys stay.

    Attributes:
        size: d -> how many numbers.
        update: (new queries, numbers [B, Hq, size]) -> the numbers after these queries.
    """

    size: Callable[[int], int]
    update: Callable[[Block, Tensor], Tensor]


@dataclass(frozen=True)
class Feature:
    """One or more numbers of each cached token, which a scorer reads.

    Attributes:
        name: Its name in a NAMM's file.
        inputs: How many numbers.
        read: (layer's cache, the observer's numbers [B, H, T, width]) -> [B, H, T, inputs].
        equation: What it is, in a line.
        plain: The first so many numbers are read as they are; the others are standardised.
        queries: Newest queries that `read` looks at.
        observer: What is noted beside each key.
        summary: What is noted of each sequence.
        rotary: Whether it needs keys or queries before rotary positions.
    """

    name: str
    inputs: int
    read: Callable[[View, Tensor], Tensor]
    equation: str
    plain: int = 0
    queries: int = 0
    observer: RowObserver | BlockObserver | None = None
    summary: Summary | None = None
    rotary: bool = False

    @property
    def standardised(self) -> int:
        """How many of its numbers are standardised: the last ones."""
        return self.inputs - self.plain

    @property
    def attention_pass(self) -> bool:
        """Whether it needs the attention of every query to every key, which costs as much as attention itself."""
        return self.observer is not None

    @property
    def bytes_per_key(self) -> int:
        """Bytes that are kept beside each key, in float32."""
        return 0 if self.observer is None else 4 * self.observer.width


def visible(view: View) -> Tensor:
    """The tokens that the newest query saw: [B, H, T], bool. Others may be in the cache a little longer, or not."""
    near = torch.ones_like(view.recent.positions, dtype=torch.bool)
    if view.recent.window is not None:
        near = view.ages < view.recent.window
    return near if view.recent.exists is None else near & view.recent.exists


def first_tokens(view: View) -> Tensor:
    """The first four tokens of each sequence: [B, H, T], bool."""
    return view.recent.positions < SINKS


def observed(view: View) -> Tensor:
    """Queries of each sequence that were observed so far, whole hops: [B, 1, 1]."""
    return (view.seen - view.seen % HOP)[:, None, None]
