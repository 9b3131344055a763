"""The fit of a scorer to KVzip's scores by gradient: a base model's contexts -> parameters to use or to evolve.

The base model is frozen: it reads each context, which gives the scorer's inputs, then reads it once more as a
repetition, which gives KVzip's scores; both are kept. The target is the logarithm of the score, standardised over all
contexts.

L layers, H key-value heads, N tokens of a context, n parameters, i inputs of the scorer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import cos, pi
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import MemxError
from ...namm.cache.cache import EvictingCache
from ...namm.evolution.population import ObserveOnly
from ...namm.policies.base import Policy, View
from ...namm.policies.features.feature import visible
from ...namm.policies.network import Namm
from ..config.eviction.evolution import FitConfig
from ..eviction.answers import read
from ..eviction.kvzip import kvzip_scores
from .candidates import Keep

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

FLOOR = 1e-5  # added to a score before its logarithm
_LAYERS = 8  # layers of contexts in one step


@dataclass(frozen=True)
class Example:
    """One layer of one context: what the scorer reads [1, H, N, i], and the standardised target [1, H, N]."""

    layer: int
    inputs: Tensor
    target: Tensor


def fit_examples(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    namm: Namm,
    contexts: Sequence[Tensor],
    check: Callable[[], None] = lambda: None,
) -> list[Example]:
    """Read contexts for a fit.

    Args:
        model: The base model.
        tokenizer: Its tokenizer.
        namm: What is fitted.
        contexts: Token ids [N] each.
        check: Called before each context; what it raises ends the reading.

    Returns:
        An example for each layer of each context.

    Raises:
        MemxError: A context is too short, or all scores are the same.
    """
    found = []
    for context in contexts:
        check()
        with torch.no_grad():
            cache = read(model, context, Keep(namm=namm))
            again = partial(_going_on, cache, namm)
            target = (FLOOR + kvzip_scores(model, tokenizer, context, after_context=again)).log()
        for layer, (inputs, positions) in scorer_inputs(cache, namm).items():
            places = positions[0].long().to(target.device)  # layers may lie on several
            found.append(Example(layer, inputs.to(target.device), target[layer].gather(-1, places)[None]))
    flat = torch.cat([example.target.flatten() for example in found])
    deviation = flat.std()
    if not deviation > 0:
        raise MemxError("KVzip's scores of all tokens are the same", hint="use a trained model, and longer prompts")
    return [Example(one.layer, one.inputs, (one.target - flat.mean()) / deviation) for one in found]


@torch.no_grad()
def scorer_inputs(cache: EvictingCache, namm: Namm) -> dict[int, tuple[Tensor, Tensor]]:
    """Of each layer what a NAMM reads of the context in a cache [1, H, N, i], and the tokens' positions [1, H, N].

    The newest tokens, fewer than the NAMM's hop, are left out, and so are those out of a layer's window.
    """
    recorder = _Recorder(namm=namm)
    cache.choices(recorder)
    return recorder.found


def _going_on(cache: EvictingCache, namm: Namm, policy: Policy) -> EvictingCache:
    """A cache of the same context that goes on under another policy."""
    return cache.fork(Keep(namm=namm), continue_with=policy)


def fit(namm: Namm, examples: Sequence[Example], start: Tensor, config: FitConfig, seed: int) -> Tensor:
    """Fit a scorer by Adam, with least squares between scores and targets.

    Args:
        namm: The NAMM, of which everything but the parameters is used.
        examples: Those of `fit_examples`.
        start: Initial parameters [n].
        config: Steps and learning rate.
        seed: Draws the layers of each step.

    Returns:
        The parameters [n], float32, on the CPU. The same seed gives the same ones on the same machine and threads.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = start.to(examples[0].inputs.device, torch.float32).clone().requires_grad_()
    optimiser = torch.optim.Adam([parameters], lr=config.rate)
    for step in range(config.steps):
        optimiser.param_groups[0]["lr"] = config.rate * (1 + cos(pi * step / config.steps)) / 2
        chosen = torch.randint(len(examples), (_LAYERS,), generator=generator).tolist()
        optimiser.zero_grad()
        loss = torch.stack([_loss(namm, parameters, examples[number]) for number in chosen]).mean()
        loss.backward()
        optimiser.step()
    return parameters.detach().cpu()


def explained(namm: Namm, parameters: Tensor, examples: Sequence[Example]) -> float:
    """The share of the targets' variance that scores explain: 1 less the mean squared error."""
    with torch.no_grad():
        return 1 - float(torch.stack([_loss(namm, parameters, example) for example in examples]).mean())


def _loss(namm: Namm, parameters: Tensor, example: Example) -> Tensor:
    scores = namm.score(parameters, example.inputs, layer=example.layer)
    return (scores - example.target.float()).square().mean()


@dataclass(frozen=True)
class _Recorder(ObserveOnly):
    """Keeps everything, and notes what a NAMM reads of each layer when it is asked to choose."""

    found: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def scores(self, view: View) -> Tensor:
        """All alike."""
        near = visible(view)[0, 0]  # the same for all heads, which hold everything
        self.found[view.layer] = self.namm.tokens(view)[:, :, near], view.recent.positions[:, :, near]
        return torch.zeros(view.key.shape[:3], device=view.key.device)
