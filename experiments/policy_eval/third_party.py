"""What kvpress's presses do with one prompt, at the sizes that memx's policies had there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ...namm.policies.base import Rule
from ...namm.policies.fixed import FixedScores
from ...namm.policies.panel import PolicyBatch, PolicySlots, keep_all
from ..config.eviction.policy_eval import EvalConfig
from ..eviction.answers import Prompt, branched, read
from ..eviction.kvpress_kvzip import press_scores
from ..eviction.kvpress_presses import measure_presses
from ..eviction.measurements import CacheSize, Measurements, measure_answers
from .cache_use import cache_use
from .own_size import sizes
from .rows import Key

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def measure_third_party(
    config: EvalConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompt: Prompt,
    measured: Sequence[Measurements],
    known: Mapping[Key, Measurements],
) -> list[Measurements]:
    """Measure the presses of an evaluation.

    Args:
        config: The evaluation.
        model: The base model.
        tokenizer: Its tokenizer.
        prompt: The prompt.
        measured: What memx's policies did with it.
        known: What was measured in an earlier evaluation, and is taken over.

    Returns:
        The measurements; none if the evaluation has no presses.
    """
    at = sizes(config, prompt, measured)
    writer = tokenizer if config.write else None
    if (found := _known(config.presses, at, known)) is None:
        found = measure_presses(model, prompt, config.presses, at, writer)
    for name in config.ceiling_presses:
        if (more := _known([name], at, known)) is None:
            scores = press_scores(model, tokenizer, prompt.context)
            more = _by_scores(name, scores, model, prompt, at, writer)
        found = found + more
    return found


@torch.no_grad()
def _by_scores(
    press: str,
    scores: Tensor,
    model: PreTrainedModel,
    prompt: Prompt,
    sizes: Sequence[tuple[float, CacheSize]],
    writer: PreTrainedTokenizerFast | None,
) -> list[Measurements]:
    """Measure a press by its scores [L, H, N] of the context: one threshold for all heads, as the press has it.

    As under memx's policies, the newest tokens, fewer than 16, stay.
    """
    variant = f"kvpress {press}"
    policies = [FixedScores(scores, share, name=variant, rule=Rule(allocation="global")) for share, _ in sizes]
    slots = PolicySlots((policies[0],))
    shared = read(model, prompt.context, slots, length=len(prompt.context))
    measured = []
    for policy, (_, at) in zip(policies, sizes, strict=True):
        cache = branched(shared, PolicyBatch(slots, (policy,)), keep_all(slots), 1, online=False)
        use = cache_use(cache, 0, policy, [0] * len(cache.layers))
        measured += measure_answers(model, prompt, cache, [(variant, use)], at, writer)
    return measured


def _known(
    presses: Sequence[str], at: Sequence[tuple[float, CacheSize]], known: Mapping[Key, Measurements]
) -> list[Measurements] | None:
    """The measurements of presses at each size, if all are known."""
    taken = [known.get(Key(f"kvpress {name}", size)) for _, size in at for name in presses]
    found = [one for one in taken if one is not None]
    return found if len(found) == len(taken) else None
