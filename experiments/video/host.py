"""A trained video model as a host on which eviction policies are compared: a question is a unit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...namm.cache.cache import EvictingCache
from ...namm.policies.base import Policy
from ...results.store.runs import Run, run_config
from ..config.base import validate
from ..config.hosts.video import VideoConfig
from ..other_hosts.kept import bytes_of_sequence, kept_by_kind, kept_of_layers
from ..other_hosts.measured import Count, Measured
from .data import Asked, asked
from .model import load_model
from .reading import answers, embed, evicted, keeping, read

if TYPE_CHECKING:
    from transformers import LlavaNextVideoForConditionalGeneration

_BATCHES, _READINGS = 16, 24  # batches whose embedded clips are kept, and how many caches of them


class VideoHost:
    """A video model that answers questions from a cache of its clip.

    Args:
        model: The model, in eval mode.
        config: The run's.
        mode: "post_hoc": policies evict once, after the clip and before the question. "online": every few tokens.

    Attributes:
        Those of `PolicyHost`.
    """

    kind, unit = "video", "questions"
    metrics = ("correct", "log_likelihood")
    modes = ("post_hoc", "online")

    def __init__(self, model: LlavaNextVideoForConditionalGeneration, config: VideoConfig, mode: str) -> None:
        self.model, self.config, self.mode = model, config, mode
        self.name = f"LlavaNextVideo {config.model.layers}x{config.model.width}"
        self.seed, self.every = config.seed, config.evaluation.every
        self.parameters = sum(weight.numel() for weight in model.parameters())
        self.device = str(model.device)
        self._clips = lru_cache(_BATCHES)(self._embedded)
        self._readings: OrderedDict[Any, EvictingCache] = OrderedDict()

    def measure(
        self, policy: Policy | None, units: Sequence[int], check: Callable[[], None] = lambda: None
    ) -> list[Measured]:
        """Ask questions under a policy; see `PolicyHost.measure`."""
        questions, embedded = self._clips(tuple(units))
        check()
        cache = self._read(tuple(units), embedded, policy)
        found = []
        for row, (one, answer) in enumerate(zip(questions, answers(self.model, cache, questions), strict=True)):
            scores = {"correct": 100.0 * answer.correct, "log_likelihood": answer.log_likelihood}
            found.append(_measured(one, scores, cache, row))
        return found

    def _read(self, units: tuple[int, ...], embedded: Tensor, policy: Policy | None) -> Any:
        """The cache when questions begin. Policies that note the same share one reading, from which each evicts."""
        if policy is None or self.mode == "online":
            return read(self.model, embedded, policy)
        noted = policy.hop, policy.context, policy.width
        key = units, noted, getattr(policy, "observes", type(policy)) if any(noted) else None
        if key not in self._readings:
            self._readings[key] = read(self.model, embedded, keeping(policy))
            if len(self._readings) > _READINGS:
                self._readings.popitem(last=False)
        self._readings.move_to_end(key)
        return evicted(self._readings[key], policy)

    def _embedded(self, units: tuple[int, ...]) -> tuple[list[Asked], Tensor]:
        questions = [asked(self.config, number) for number in units]
        return questions, embed(self.model, questions)


def _measured(one: Asked, scores: dict[str, float], cache: object, row: int) -> Measured:
    """With what the cache held of the clip when the question began."""
    if isinstance(cache, EvictingCache):
        layers = kept_of_layers(cache, row)
        kinds = kept_by_kind(cache, row, one.kinds)
        return Measured(one.number, scores, float(np.mean(layers)), bytes_of_sequence(cache, row), layers, kinds)
    plain = cache.layers  # type: ignore[attr-defined]
    kinds = {}
    for kind, of_kind in one.kinds.items():
        count = int(of_kind.sum()) * plain[0].keys.shape[1]
        kinds[kind] = [Count(count, count)] * len(plain)
    held = sum(layer.keys[row].nbytes + layer.values[row].nbytes for layer in plain)
    return Measured(one.number, scores, 1.0, held, [1.0] * len(plain), kinds)


def load_host(folder: Path, device: str) -> VideoHost:
    """Load the host of a finished run of `memx train video`.

    Args:
        folder: The run's folder.
        device: Where it computes.

    Returns:
        The host.

    Raises:
        MemxError: The folder holds no such run, or its weights are damaged.
    """
    config = validate(run_config(Run(folder)), VideoConfig)
    model: Any = load_model(folder)
    model = model.to(torch.device(device))
    return VideoHost(model, config, config.evaluation.mode)
