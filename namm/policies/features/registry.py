"""Features by name, and a list of them as one: names -> what to watch while reading, and the inputs of a scorer.

B sequences, Hq query heads that share H key-value heads, T keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ....errors import MemxError, nearest
from ....kernels.attention_spectrogram import HOP
from ..base import Block, View
from . import attention, expected, keys, spectral
from .feature import BlockObserver, Feature, RowObserver, Summary

FEATURES: dict[str, Feature] = {
    feature.name: feature for feature in (*keys.FEATURES, *attention.FEATURES, *expected.FEATURES, *spectral.FEATURES)
}
"""The features that a NAMM can read, by name; `equation` says what each is."""

PUBLISHED = ("published",)
NO_PASS = (
    "log_age",
    "key_norm",
    "value_norm",
    "keydiff",
    "keydiff_unrotated",
    "recent_max",
    "expected",
    "first_four",
)
"""The nine inputs that need no pass over the attention matrix."""
_ROWS = 128  # rows of attention written out at a time


@dataclass(frozen=True)
class FeatureSet:
    """Features side by side, in the order of their names.

    Args:
        names: Names in `FEATURES`.

    Raises:
        MemxError: No name, an unknown one, or one twice.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names:
            raise MemxError("a NAMM needs at least one feature", hint=f"choose of: {', '.join(FEATURES)}")
        for name in self.names:
            if name not in FEATURES:
                hint = nearest(name, FEATURES) or f"choose of: {', '.join(FEATURES)}"
                raise MemxError(f"unknown feature {name!r}", hint=hint)
        if len(set(self.names)) < len(self.names):
            raise MemxError("a feature is named twice", hint="name each once")

    @property
    def features(self) -> list[Feature]:
        """The features themselves."""
        return [FEATURES[name] for name in self.names]

    @property
    def inputs(self) -> int:
        """Numbers of each token that a scorer reads."""
        return sum(feature.inputs for feature in self.features)

    @property
    def standardised(self) -> Tensor:
        """Which inputs are standardised [inputs], bool."""
        return torch.tensor([n >= feature.plain for feature in self.features for n in range(feature.inputs)])

    @cached_property
    def observers(self) -> dict[RowObserver | BlockObserver, slice]:
        """What is noted beside each key, each once, and where its numbers lie."""
        found, start = {}, 0
        for feature in self.features:
            if (observer := feature.observer) is not None and observer not in found:
                found[observer] = slice(start, start + observer.width)
                start += observer.width
        return found

    @cached_property
    def summaries(self) -> tuple[Summary, ...]:
        """What is noted of each sequence, each once."""
        return tuple(dict.fromkeys(feature.summary for feature in self.features if feature.summary is not None))

    @property
    def observes(self) -> object:
        """What is noted while reading: feature sets of which this is equal note the same."""
        return tuple(self.observers), self.summaries

    @property
    def hop(self) -> int:
        """Queries are observed in multiples of this number; 0: none are."""
        return HOP if self.observers or self.summaries else 0

    @property
    def context(self) -> int:
        """Previous queries that are looked at."""
        contexts = [observer.context for observer in self.observers if isinstance(observer, BlockObserver)]
        return max([0, *contexts, *(feature.queries for feature in self.features)])

    @property
    def width(self) -> int:
        """Numbers that are kept beside each key."""
        return sum(observer.width for observer in self.observers)

    @property
    def half_state(self) -> bool:
        """Whether float16 holds the numbers beside a key: spectra alone, which are at most 16. Sums may exceed it."""
        return all(observer is spectral.SPECTRUM for observer in self.observers)

    @property
    def rotary(self) -> bool:
        """Whether any needs keys or queries before rotary positions."""
        return any(feature.rotary for feature in self.features)

    def observe(self, block: Block) -> Tensor:
        """Update the numbers beside each key with new queries: [B, H, T, width], float32."""
        key = block.attention.key
        state = torch.zeros(*key.shape[:3], self.width, device=key.device)
        if block.state is not None:
            state[:, :, : block.state.shape[2]] = block.state
        rows = {observer: own for observer, own in self.observers.items() if isinstance(observer, RowObserver)}
        for part in block.attention.parts(_ROWS) if rows else ():
            seen, probabilities = part.key.shape[2], part.by_head()
            for observer, own in rows.items():
                state[:, :, :seen, own] = observer.update(state[:, :, :seen, own], part, probabilities)
        for observer, own in self.observers.items():
            if isinstance(observer, BlockObserver):
                mine = None if block.state is None else block.state[..., own]
                state[..., own] = observer.update(replace(block, state=mine))
        return state

    def summary_size(self, width: int) -> int:
        """Numbers that are kept of each sequence and query head of this width."""
        return sum(summary.size(width) for summary in self.summaries)

    def summarise(self, block: Block, summary: Tensor) -> Tensor:
        """Update the numbers of each sequence with new queries: [B, Hq, numbers]."""
        parts = summary.split([one.size(block.attention.query.shape[3]) for one in self.summaries], -1)
        return torch.cat([one.update(block, own) for one, own in zip(self.summaries, parts, strict=True)], -1)

    def read(self, view: View) -> Tensor:
        """The inputs of each token, not standardised: [B, H, T, inputs], float32."""
        parts = []
        for feature in self.features:
            own = slice(0) if feature.observer is None else self.observers[feature.observer]
            numbers = feature.read(view, view.state[..., own]).float()
            parts.append(numbers.expand(*view.key.shape[:3], feature.inputs))
        return torch.cat(parts, -1)
