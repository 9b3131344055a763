"""Simulators that play B episodes at once: gymnasium's environments, with the physics of each episode.

D numbers are observed of an environment, A in an action.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_LARGEST = 10.0  # of an observed number, as MuJoCo's environments clip speeds
_GRAVITY_WITH_GOALS = 3.0  # the torque of Pendulum-v1 then holds it at any angle
_SPEED_COST, _TORQUE_COST = 0.1, 0.001  # Pendulum-v1's own


class Simulator(Protocol):
    """B episodes of one environment.

    Attributes:
        action_size: Numbers in an action, A.
        velocities: How many of the last observed numbers are velocities.
        observed: [B, D].
    """

    action_size: int
    velocities: int
    observed: Array

    def reset(self, seeds: Sequence[int], factors: Array) -> None:
        """Begin B episodes. factors: of masses, and of lengths or motors [B, 2]; 1 leaves them as they are."""
        ...

    def act(self, actions: Array, live: NDArray[np.bool_], goals: Array | None) -> tuple[Array, NDArray[np.bool_]]:
        """Do a step of the live episodes.

        Args:
            actions: [B, A], from -1 to 1.
            live: Which episodes are not over [B].
            goals: The angles that count now, in radians [B]; None: as the environment has it.

        Returns:
            The rewards [B], 0 of those that are over, and which have ended now [B].
        """
        ...


class Pendulums:
    """Pendulum-v1: gymnasium's own step, whose arithmetic works on the angles and speeds of B pendulums alike.

    Args:
        with_goals: Whether any angle may be a goal, for which gravity is weaker.
    """

    action_size, velocities = 1, 1

    def __init__(self, *, with_goals: bool) -> None:
        self._env: Any = gymnasium.make("Pendulum-v1", disable_env_checker=True).unwrapped
        if with_goals:
            self._env.g = _GRAVITY_WITH_GOALS
        self.observed = np.zeros((1, 3))

    def reset(self, seeds: Sequence[int], factors: Array) -> None:
        """See `Simulator`."""
        states = []
        for seed in seeds:
            self._env.reset(seed=seed)
            states.append(self._env.state)
        self._env.state = np.array(states).T
        self._env.m, self._env.l = factors.T
        self._see()

    def act(self, actions: Array, live: NDArray[np.bool_], goals: Array | None) -> tuple[Array, NDArray[np.bool_]]:
        """See `Simulator`."""
        angles, speeds = self._env.state
        torques = actions[:, 0] * self._env.max_torque
        _, rewards, *_ = self._env.step(torques[None])
        if goals is not None:
            away = (angles - goals + np.pi) % (2 * np.pi) - np.pi
            rewards = -(away**2 + _SPEED_COST * speeds**2 + _TORQUE_COST * torques**2)
        self._see()
        return np.where(live, rewards, 0.0), np.zeros(len(live), dtype=bool)

    def _see(self) -> None:
        angles, speeds = self._env.state
        self.observed = np.stack([np.cos(angles), np.sin(angles), speeds], 1)


class Mujocos:
    """An environment of MuJoCo for each of B episodes.

    Args:
        name: The environment.
    """

    def __init__(self, name: str) -> None:
        mujoco: Any = import_module("mujoco")  # here: Pendulum does without

        mujoco.set_mju_user_warning(lambda text: None)  # else it writes MUJOCO_LOG.TXT where it is called
        self._name, self._envs = name, list[Any]()
        first = self._env(0)
        self.action_size = len(first.action_space.high)
        self.velocities = first.model.nv
        model = first.model
        self._plain = model.body_mass.copy(), model.body_inertia.copy(), model.actuator_gear.copy()
        self.observed = np.zeros((1, len(first.reset(seed=0)[0])))

    def _env(self, number: int) -> Any:
        while len(self._envs) <= number:
            self._envs.append(gymnasium.make(self._name, disable_env_checker=True).unwrapped)
        return self._envs[number]

    def reset(self, seeds: Sequence[int], factors: Array) -> None:
        """See `Simulator`."""
        seen = []
        for number, (seed, (mass, motors)) in enumerate(zip(seeds, factors, strict=True)):
            env = self._env(number)
            model, plain = env.model, self._plain
            model.body_mass[:], model.body_inertia[:] = plain[0] * mass, plain[1] * mass
            model.actuator_gear[:] = plain[2] * motors
            seen.append(env.reset(seed=seed)[0])
        self.observed = np.clip(np.array(seen, dtype=np.float64), -_LARGEST, _LARGEST)

    def act(self, actions: Array, live: NDArray[np.bool_], goals: Array | None) -> tuple[Array, NDArray[np.bool_]]:
        """See `Simulator`."""
        assert goals is None, self._name
        rewards, ended = np.zeros(len(live)), np.zeros(len(live), dtype=bool)
        self.observed = self.observed.copy()  # others may hold what was seen before
        for number in np.flatnonzero(live):
            env = self._envs[number]
            seen, reward, terminated, *_ = env.step(actions[number] * env.action_space.high)
            self.observed[number] = np.clip(seen, -_LARGEST, _LARGEST)
            rewards[number], ended[number] = reward, terminated
        return rewards, ended
