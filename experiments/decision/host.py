"""A trained decision transformer as a host on which eviction policies are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from ...errors import MemxError, tensor_file_reason
from ...namm.cache.cache import EvictingCache
from ...namm.policies.base import Policy
from ...results.store.runs import Run, run_config
from ..config.base import validate
from ..config.hosts.decision import DecisionConfig
from ..other_hosts.kept import bytes_of_sequence, kept_by_kind, kept_of_layers
from ..other_hosts.measured import Count, Measured
from ..runtime.devices import pick_device
from .acting import Played, play, tokens_of_kinds
from .episodes import Episodes, episodes_folder, read_episodes
from .model import TOKENS, DecisionTransformer, build_model
from .tasks import Tasks, shows_goals

WEIGHTS = "checkpoint/model.safetensors"
EPISODES = 1_000  # the seed of episodes that are measured; those that are learned from have that of their config


class DecisionHost:
    """See `PolicyHost`.

    Args:
        config: The training run's.
        model: The trained model.
        episodes: What it learned from.
        name: What rows call the model.
    """

    kind, unit = "decision", "episodes"
    metrics = ("return", "normalised")

    def __init__(self, config: DecisionConfig, model: DecisionTransformer, episodes: Episodes, name: str) -> None:
        self.config, self.model, self.episodes, self.name = config, model, episodes, name
        self.seed, self.every = config.seed, config.evaluation.every
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.device = str(model.device)
        self.tasks = Tasks(config.environment)
        lowest, best = episodes.random_return, episodes.expert_return
        self.target = lowest + config.evaluation.target * (best - lowest)

    def measure(
        self, policy: Policy | None, units: Sequence[int], check: Callable[[], None] = lambda: None
    ) -> list[Measured]:
        """See `PolicyHost`."""
        self.model.eval()
        played = play(self.model, self.tasks, self.episodes, policy, units, self.target, EPISODES, check)
        return [self._measured(played, number, unit) for number, unit in enumerate(units)]

    def _measured(self, played: Played, number: int, unit: int) -> Measured:
        raw = float(played.returns[number])
        scores = {"return": raw, "normalised": self.episodes.normalised(raw)}
        cache, kinds = played.cache, self._kinds(played, number)
        if isinstance(cache, EvictingCache):
            layers = kept_of_layers(cache, number)
            held = float(np.mean(layers))
            kept = kept_by_kind(cache, number, kinds)
            return Measured(unit, scores, held, bytes_of_sequence(cache, number), layers, kept)
        layer = cache.layers[0]
        pairs = layer.keys.shape[1]
        sums = {kind: int(of_kind.sum()) * pairs for kind, of_kind in kinds.items()}
        kept = {kind: [Count(count, count)] * len(cache.layers) for kind, count in sums.items()}
        size = sum(one.keys[0].nbytes + one.values[0].nbytes for one in cache.layers)
        return Measured(unit, scores, 1.0, size, [1.0] * len(cache.layers), kept)

    def _kinds(self, played: Played, number: int) -> dict[str, NDArray[np.bool_]]:
        """Which tokens of an episode are of each kind [N], over all tokens that the batch has read.

        Actions are also told apart by their distance to the best teacher's action in the same state: the nearest and
        the farthest third of the episode. What a batch reads after an episode has ended is of no kind.
        """
        longest, length = int(played.lengths.max()), int(played.lengths[number])
        kinds = tokens_of_kinds(longest)
        there = np.arange(TOKENS * longest - 1) < TOKENS * length
        kinds = {kind: of_kind & there for kind, of_kind in kinds.items()}
        places = np.flatnonzero(kinds["action"])
        order = np.argsort(played.distances[number, : len(places)], kind="stable")
        third = len(places) // 3
        for kind, chosen in (("near action", order[:third]), ("far action", order[len(places) - third :])):
            kinds[kind] = np.zeros_like(there)
            kinds[kind][places[chosen]] = True
        shown = np.array([shows_goals(self.config.environment, token // TOKENS) for token in range(len(there))])
        if shown.any():
            kinds["state with goals"] = kinds["state"] & shown
        return kinds


def load_host(folder: Path, device: str) -> DecisionHost:
    """Load the host of a finished run of `memx train decision`.

    Args:
        folder: The run's folder.
        device: Where it acts.

    Returns:
        The host.

    Raises:
        MemxError: A file is missing or damaged.
    """
    config = validate(run_config(Run(folder)), DecisionConfig)
    return make_host(config, folder / WEIGHTS, folder.parent, device)


def make_host(config: DecisionConfig, weights: Path, runs: Path, device: str) -> DecisionHost:
    """Make a host of a config, saved weights and the episodes that lie beside the runs."""
    episodes = read_episodes(episodes_folder(config, runs))
    model = build_model(config, episodes.states.shape[2], episodes.actions.shape[2])
    try:
        model.load_state_dict(load_file(weights))
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise MemxError(
            f"cannot load {weights}: {tensor_file_reason(error)}", hint="train the run again with --force"
        ) from None
    torch.nn.Module.to(model, pick_device(device))
    model.eval()
    hides = "+".join(config.environment.hidden) or "nothing"
    return DecisionHost(config, model, episodes, f"{config.environment.name}, hidden: {hides}")


def untrained(model: DecisionTransformer, episodes: Episodes) -> None:
    """Give a new model the means and deviations of what it is to learn from, in place."""
    there = np.arange(episodes.states.shape[1]) < episodes.lengths[:, None]
    states = episodes.states[there].astype(np.float64)
    model.state_mean.copy_(torch.from_numpy(states.mean(0)))
    model.state_deviation.copy_(torch.from_numpy(np.maximum(states.std(0), 1e-3)))
    model.return_scale.copy_(torch.tensor(max(float(np.abs(episodes.returns).max()), 1e-6)))
