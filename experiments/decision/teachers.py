"""Teachers: policies that see everything, evolved by CMA-ES in the simulator, and their snapshots on the way.

n numbers are in a teacher, P in a state as it sees it, A in an action.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import MemxError
from ...namm.evolution.files import RECORD, load_evolution, save_evolution
from ...namm.evolution.search import Evolution
from ..other_hosts.measured import TRAINING_UNITS
from .simulators import Array
from .tasks import Tasks

if TYPE_CHECKING:
    from ..config.hosts.decision import EpisodesConfig

_SAVE_EVERY = 20  # generations
_SCALED = 20  # episodes of random actions, for the mean and deviation of states
MEDIUM = 0.7  # a snapshot is on the way until its fitness has come so far from random to the best


class Shape(NamedTuple):
    """The sizes of a teacher: P, A, and hidden units; 0 of these is a linear teacher."""

    inputs: int
    actions: int
    hidden: int

    @property
    def numbers(self) -> int:
        """How many numbers it has, n."""
        if not self.hidden:
            return (self.inputs + 1) * self.actions
        return (self.inputs + 1) * self.hidden + (self.hidden + 1) * self.actions


class Scaling(NamedTuple):
    """The mean and deviation of full states under random actions [P]."""

    mean: Array
    deviation: Array


def act(numbers: Array, shape: Shape, scaling: Scaling, full_states: Array) -> Array:
    """The actions of teachers, one for each of B states.

    Args:
        numbers: Those of each teacher [B, n], or of one for all [1, n].
        shape: Their sizes.
        scaling: Of states.
        full_states: What they see [B, P].

    Returns:
        The actions [B, A], from -1 to 1.
    """
    x = (full_states - scaling.mean) / scaling.deviation
    if shape.hidden:
        inner = (shape.inputs + 1) * shape.hidden
        x, numbers = np.tanh(_linear(x, numbers[:, :inner], shape.hidden)), numbers[:, inner:]
    return np.tanh(_linear(x, numbers, shape.actions))


def _linear(x: Array, numbers: Array, outputs: int) -> Array:
    """[B, I] and weights with a bias [B or 1, (I + 1) * O] -> [B, O]."""
    weights = numbers.reshape(len(numbers), x.shape[1] + 1, outputs)
    return (x[:, :, None] * weights[:, :-1]).sum(1) + weights[:, -1]


def find_scaling(tasks: Tasks, seed: int) -> Scaling:
    """Measure the states that random actions lead to."""
    draw, states = np.random.default_rng([seed, 1]), list[Array]()
    tasks.reset(seed, range(TRAINING_UNITS, TRAINING_UNITS + _SCALED))
    while tasks.live.any():
        states.append(tasks.full_states()[tasks.live])
        tasks.act(draw.uniform(-1, 1, (_SCALED, tasks.action_size)))
    found = np.concatenate(states)
    return Scaling(found.mean(0), np.maximum(found.std(0), 1e-3))


def returns_of(tasks: Tasks, numbers: Array, shape: Shape, scaling: Scaling, seed: int, units: Sequence[int]) -> Array:
    """The returns [B] of teachers without noise.

    Args:
        tasks: Where they act.
        numbers: Those of each [B, n], or of one for all [1, n].
        shape: Their sizes.
        scaling: Of states.
        seed: Of the episodes.
        units: The episode of each [B].
    """
    tasks.reset(seed, units)
    total = np.zeros(len(units))
    while tasks.live.any():
        total += tasks.act(act(numbers, shape, scaling, tasks.full_states()))
    return total


class Snapshots(NamedTuple):
    """The mean of the distribution after each generation [G, n], and the mean fitness of its candidates [G]."""

    numbers: NDArray[np.float64]
    fitness: NDArray[np.float64]

    def medium(self, lowest: float) -> NDArray[np.int64]:
        """The generations that are on the way from a fitness, that of random actions, to the best."""
        best = np.maximum.accumulate(self.fitness)
        reached = (best - lowest) / max(best[-1] - lowest, 1e-9) >= MEDIUM
        return np.arange(max(1, int(np.argmax(reached)) + 1))


def evolve_teacher(
    config: EpisodesConfig, tasks: Tasks, shape: Shape, scaling: Scaling, folder: Path, done: Callable[[int], None]
) -> Snapshots:
    """Evolve a teacher, or go on with one that was stopped.

    Args:
        config: How.
        tasks: Where it acts.
        shape: Its sizes.
        scaling: Of states.
        folder: Where the evolution and its snapshots are saved every few generations.
        done: Called with the number of generations after each; may raise to stop, and what is saved stays.

    Returns:
        Its snapshots, the last of which is the best teacher.
    """
    evolution, means = _begin(config, shape, folder)

    def fitness(candidates: Array, generation: int) -> Array:
        first = TRAINING_UNITS + (generation + 1) * config.trials
        units = [*range(first, first + config.trials)] * len(candidates)
        numbers = np.repeat(candidates, config.trials, 0)
        returns = returns_of(tasks, numbers, shape, scaling, config.seed, units)
        return returns.reshape(len(candidates), config.trials).mean(1)

    while evolution.generation < config.generations:
        evolution.step(fitness)
        means.append(evolution.mean)
        if evolution.generation % _SAVE_EVERY == 0 or evolution.generation == config.generations:
            _save(evolution, means, folder)
        done(evolution.generation)
    return Snapshots(np.array(means), np.array([one.mean for one in evolution.history]))


def _begin(config: EpisodesConfig, shape: Shape, folder: Path) -> tuple[Evolution, list[Array]]:
    if (folder / RECORD).is_file():
        try:
            evolution = load_evolution(folder)
            with (folder / f"means-{evolution.generation}.npy").open("rb") as file:
                return evolution, list(np.load(file))
        except (MemxError, OSError, ValueError):
            pass  # it is made anew in a minute
    covariance = "full" if shape.numbers <= 200 else "diagonal"
    begun = Evolution(
        shape.numbers, population=config.population, sigma=config.sigma, seed=config.seed, covariance=covariance
    )
    return begun, []


def _save(evolution: Evolution, means: list[Array], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"means-{evolution.generation}.npy").open("wb") as file:
        np.save(file, np.array(means))
    save_evolution(evolution, folder)
    for old in folder.glob("means-*.npy"):
        if old.name != f"means-{evolution.generation}.npy":
            old.unlink()
