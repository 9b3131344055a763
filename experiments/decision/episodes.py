"""The episodes that a decision transformer learns from: teachers of several qualities with noise, and random actions.

E episodes of at most T steps; S numbers in a state, A in an action. They lie in a folder that all seeds of a setting
share: its name has a checksum of all that they depend on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ...errors import MemxError
from ...files import write_atomically
from ...json_text import BadJson, parse_json
from ...results.store.claims import owned
from ..config.base import tree_hash
from ..other_hosts.measured import TRAINING_UNITS
from .tasks import Tasks
from .teachers import Scaling, Shape, Snapshots, act, evolve_teacher, find_scaling, returns_of

if TYPE_CHECKING:
    from ..config.hosts.decision import DecisionConfig

RANDOM, MEDIUM, EXPERT = 0, 1, 2  # the quality of an episode
_ARRAYS, _ABOUT = "episodes.safetensors", "episodes.json"
_JUDGED = 100  # episodes that the returns of random actions and of the best teacher are means of
_RECORDED = 10 * TRAINING_UNITS  # units of the episodes to learn from
_AT_ONCE = 100  # episodes that are played side by side
_VERSION = 1  # of how episodes are made; another one makes another folder


@dataclass(frozen=True)
class Episodes:
    """What was recorded, and the best teacher.

    Attributes:
        states: [E, T, S], float32; zeros after the end of an episode.
        actions: [E, T, A], from -1 to 1.
        rewards: [E, T].
        lengths: Steps of each episode [E].
        quality: `RANDOM`, `MEDIUM` or `EXPERT` [E].
        random_return: Mean return of random actions.
        expert_return: Mean return of the best teacher without noise.
        teacher: The best teacher's numbers, with its sizes and the scaling of states.
    """

    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    lengths: NDArray[np.int64]
    quality: NDArray[np.int64]
    random_return: float
    expert_return: float
    teacher: tuple[NDArray[np.float64], Shape, Scaling]

    @property
    def returns(self) -> NDArray[np.float64]:
        """The return of each episode [E]."""
        return self.rewards.sum(1, dtype=np.float64)

    def normalised(self, raw: float) -> float:
        """A return in percent of the way from random actions to the best teacher."""
        return 100 * (raw - self.random_return) / (self.expert_return - self.random_return)


def episodes_folder(config: DecisionConfig, runs: Path) -> Path:
    """Where the episodes of a config are: `RUNS/data/decision-<checksum>`."""
    tree = {"environment": config.environment.model_dump(mode="json"), "version": _VERSION}
    tree["episodes"] = config.episodes.model_dump(mode="json")
    return runs / "data" / f"decision-{tree_hash(tree)}"


def find_episodes(config: DecisionConfig, runs: Path, done: Callable[[int], None]) -> Episodes:
    """Read the episodes of a config, or make them.

    Args:
        config: The config.
        runs: The folder of runs.
        done: Called with the number of generations of the teachers' evolution; may raise to stop.

    Returns:
        The episodes.

    Raises:
        MemxError: Another process makes them now, the disk is full, or a file is damaged.
    """
    folder = episodes_folder(config, runs)
    busy = MemxError(f"another process makes the episodes in {folder}", hint="wait until it has, then try again")
    with owned(folder, busy, wait=600.0):
        if not (folder / _ABOUT).is_file():
            _make(config, folder, done)
    return read_episodes(folder)


def read_episodes(folder: Path) -> Episodes:
    """Read episodes that were made. Raises MemxError if a file is not there or damaged."""
    hint = f"delete {folder}, and run the same command again"
    try:
        about = parse_json((folder / _ABOUT).read_bytes())
        arrays = load_file(folder / _ARRAYS)
        shape = Shape(*about["shape"])
        scaling = Scaling(arrays.pop("scaling_mean"), arrays.pop("scaling_deviation"))
        teacher = arrays.pop("teacher"), shape, scaling
        return Episodes(**arrays, teacher=teacher, **{k: about[k] for k in ("random_return", "expert_return")})
    except (OSError, SafetensorError, BadJson, KeyError, TypeError, ValueError) as error:
        raise MemxError(f"cannot read the episodes in {folder}: {' '.join(str(error).split())}", hint=hint) from None


def _make(config: DecisionConfig, folder: Path, done: Callable[[int], None]) -> None:
    tasks, own = Tasks(config.environment), config.episodes
    shape = Shape(tasks.full_size, tasks.action_size, own.hidden_width)
    scaling = find_scaling(tasks, own.seed)
    snapshots = evolve_teacher(own, tasks, shape, scaling, folder / "evolution", done)
    best = snapshots.numbers[-1]
    judged = range(TRAINING_UNITS - _JUDGED, TRAINING_UNITS)
    expert = float(returns_of(tasks, best[None], shape, scaling, own.seed, judged).mean())
    chance = _random_return(tasks, own.seed, judged)
    if expert <= chance:
        raise MemxError(
            f"the evolved teacher has a return of {expert:.1f}, random actions {chance:.1f}",
            hint="set more episodes.generations",
        )
    recorded = _record(config, tasks, shape, scaling, snapshots, chance)
    arrays = {**recorded, "teacher": best, "scaling_mean": scaling.mean, "scaling_deviation": scaling.deviation}
    write_atomically(folder / _ARRAYS, save({name: np.ascontiguousarray(one) for name, one in arrays.items()}))
    returns = recorded["rewards"].sum(1, dtype=np.float64)
    by_quality = {
        name: float(returns[recorded["quality"] == number].mean())
        for name, number in (("random", RANDOM), ("medium", MEDIUM), ("expert", EXPERT))
        if (recorded["quality"] == number).any()
    }
    about = {"shape": list(shape), "random_return": chance, "expert_return": expert, "returns": by_quality}
    write_atomically(folder / _ABOUT, json.dumps(about, indent=2) + "\n")


def _random_return(tasks: Tasks, seed: int, units: range) -> float:
    draw, total = np.random.default_rng([seed, 2]), 0.0
    tasks.reset(seed, units)
    while tasks.live.any():
        total += float(tasks.act(draw.uniform(-1, 1, (len(units), tasks.action_size))).sum())
    return total / len(units)


def _record(
    config: DecisionConfig, tasks: Tasks, shape: Shape, scaling: Scaling, snapshots: Snapshots, chance: float
) -> Mapping[str, NDArray[Any]]:
    """Play the episodes to learn from."""
    own, steps = config.episodes, config.environment.steps
    draw = np.random.default_rng([own.seed, 3])
    randoms, mediums = round(own.random * own.count), round(own.medium * own.count)
    quality = np.repeat([RANDOM, MEDIUM, EXPERT], [randoms, mediums, own.count - randoms - mediums])
    chosen = np.where(quality == MEDIUM, draw.choice(snapshots.medium(chance), own.count), -1)
    parts = []
    for start in range(0, own.count, _AT_ONCE):
        part = slice(start, min(start + _AT_ONCE, own.count))
        teachers, random = snapshots.numbers[chosen[part]], quality[part, None] == RANDOM
        count = len(teachers)
        states = np.zeros((count, steps, tasks.state_size), dtype=np.float32)
        actions = np.zeros((count, steps, tasks.action_size), dtype=np.float32)
        rewards, lengths = np.zeros((count, steps), dtype=np.float32), np.zeros(count, dtype=np.int64)
        tasks.reset(own.seed, range(_RECORDED + part.start, _RECORDED + part.stop))
        while tasks.live.any():
            step, live = tasks.step, tasks.live
            noise = own.noise * draw.standard_normal((count, tasks.action_size))
            action = np.clip(act(teachers, shape, scaling, tasks.full_states()) + noise, -1, 1)
            action = np.where(random, draw.uniform(-1, 1, action.shape), action)
            states[live, step], actions[live, step] = tasks.states()[live], action[live]
            rewards[:, step] = tasks.act(action)
            lengths += live
        parts.append({"states": states, "actions": actions, "rewards": rewards, "lengths": lengths})
    return {"quality": quality, **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}}
