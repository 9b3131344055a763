"""Batches of whole episodes: seed and step -> returns to come, states, actions, and which steps there are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .episodes import Episodes


class Batch(NamedTuple):
    """B episodes of T steps: returns still to come [B, T, 1], states [B, T, S], actions [B, T, A], there [B, T]."""

    returns: Tensor
    states: Tensor
    actions: Tensor
    there: Tensor


class EpisodeBatches:
    """Draws episodes with replacement, the same for a seed and step.

    Args:
        episodes: What is drawn from.
        size: Episodes of a batch, B.
        seed: Of the draw.
        device: Where batches go.
    """

    def __init__(self, episodes: Episodes, size: int, seed: int, device: torch.device) -> None:
        self.episodes, self.size, self.seed, self.device = episodes, size, seed, device
        self._to_come = returns_to_come(episodes.rewards)

    def at(self, step: int) -> Batch:
        """The batch of a step."""
        found = self.episodes
        chosen = np.random.default_rng([self.seed, step]).integers(len(found.lengths), size=self.size)
        longest = int(found.lengths[chosen].max())

        def of(array: NDArray[np.float32]) -> Tensor:
            return torch.from_numpy(array[chosen, :longest]).to(self.device)

        there = np.arange(longest) < found.lengths[chosen, None]
        return Batch(
            of(self._to_come)[..., None], of(found.states), of(found.actions), torch.from_numpy(there).to(self.device)
        )


def returns_to_come(rewards: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sum of the rewards from each step on, its own included: [E, T] -> [E, T]."""
    return rewards[:, ::-1].cumsum(1, dtype=np.float64)[:, ::-1].astype(np.float32)
