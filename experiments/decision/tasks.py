"""The tasks of a decision transformer: B episodes of an environment, and what of it the model and its teachers see.

S numbers are in a state as the model sees it, P in one as a teacher does, who sees everything; A in an action.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .simulators import Array, Mujocos, Pendulums, Simulator

if TYPE_CHECKING:
    from ..config.hosts.decision import EnvironmentConfig


class Tasks:
    """Plays B episodes at once, step by step.

    Args:
        config: The environment.

    Attributes:
        state_size: Numbers in a state as the model sees it, S.
        full_size: Numbers in a state as a teacher sees it, P.
        action_size: Numbers in an action, A, each from -1 to 1.
        live: Which episodes are not over [B].
        step: Steps so far.
    """

    def __init__(self, config: EnvironmentConfig) -> None:
        self.config = config
        self._velocity, self._physics, self._goal = (what in config.hidden for what in ("velocity", "physics", "goals"))
        pendulum = config.name == "Pendulum-v1"
        self._simulator: Simulator = Pendulums(with_goals=self._goal) if pendulum else Mujocos(config.name)
        self.action_size = self._simulator.action_size
        self.reset(0, [0])
        self.state_size, self.full_size = self.states().shape[1], self.full_states().shape[1]

    def reset(self, seed: int, units: Sequence[int]) -> None:
        """Begin an episode for each unit; the same seed and unit begin the same one."""
        draws = [np.random.default_rng([seed, unit]) for unit in units]
        spread = self.config.spread if self._physics else 0.0
        self._factors = np.array([1 + spread * draw.uniform(-1, 1, 2) for draw in draws])
        self._goals = np.array([draw.uniform(-np.pi, np.pi, self.config.goals) for draw in draws])  # [B, goals]
        self._simulator.reset([int(draw.integers(2**31)) for draw in draws], self._factors)
        self.step, self.live = 0, np.ones(len(units), dtype=bool)

    def act(self, actions: Array) -> Array:
        """Do a step of the episodes that are not over.

        Args:
            actions: [B, A]; what is outside -1 to 1 is clipped.

        Returns:
            The rewards [B]; 0 of those that are over.
        """
        goals = self._goals[:, self._stage] if self._goal else None
        actions, live, total = np.clip(actions, -1, 1).astype(np.float64), self.live, np.zeros(len(actions))
        for _ in range(self.config.repeat):
            rewards, ended = self._simulator.act(actions, live, goals)
            total, live = total + rewards, live & ~ended
        self.step += 1
        self.live = live & (self.step < self.config.steps)
        return total

    @property
    def _stage(self) -> int:
        """Which of the goals counts now."""
        return min(self.step * self.config.goals // self.config.steps, self.config.goals - 1)

    def states(self) -> Array:
        """What the model sees: [B, S]."""
        seen = self._simulator.observed
        if self._velocity:
            seen = seen[:, : -self._simulator.velocities]
        if not self._goal:
            return seen
        batch, shown = len(seen), shows_goals(self.config, self.step)
        stage = np.tile(np.arange(self.config.goals) == self._stage, (batch, 1))
        goals = np.concatenate([np.cos(self._goals), np.sin(self._goals), np.ones((batch, 1))], 1)
        return np.concatenate([seen, stage, goals * shown], 1)

    def full_states(self) -> Array:
        """What a teacher sees: [B, P], all of the environment's state, its physics and the way to the goal."""
        observed = self._simulator.observed
        parts = [observed]
        if self._physics:
            parts.append(self._factors - 1)
        if self._goal:
            away = self._goals[:, self._stage] - np.arctan2(observed[:, 1], observed[:, 0])
            parts.append(np.stack([np.cos(away), np.sin(away)], 1))
        return np.concatenate(parts, 1)


def shows_goals(config: EnvironmentConfig, step: int) -> bool:
    """Whether the model sees the goals in a step of an episode."""
    return "goals" in config.hidden and 0 <= step - config.after < config.shown
