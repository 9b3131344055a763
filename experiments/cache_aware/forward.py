"""A prompt -> logits of its answer from what a policy leaves of the context, at several budgets, with gradients.

The context is read once and whole, as the policies watch. Each then chooses once what it keeps, from numbers without
gradients, and the question and answer are read once for each budget. They attend to the kept tokens alone, which is
what they would meet in the real cache: the masks of `namm/cache/masked.py` hide what was evicted. Gradients reach the
model through the question, the answer and the keys and values of the kept tokens, never through the choice.

P budgets, A answer tokens, L layers, H key-value heads, N tokens of context, V tokens in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...namm.cache.cache import EvictingCache
from ...namm.cache.masked import MaskedCache, masked
from ...namm.policies.base import Policy
from ...namm.policies.heuristics import Full
from ...namm.policies.panel import PolicyBatch, PolicySlots
from ...transformers_compat import input_device
from ..config.eviction.training import TrainEvictionConfig
from ..eviction.answers import Prompt, read
from ..eviction.policy import EvictConfig, build_policy
from ..models.generation import forward

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def budget_policies(config: TrainEvictionConfig, host: str, seed: int) -> list[Policy]:
    """Make the policy of each budget.

    Args:
        config: What evicts, and how much it keeps.
        host: The name of the pretrained model.
        seed: Random seed of a policy that draws.

    Returns:
        The policies [P]; that of a budget of 1 keeps everything.

    Raises:
        MemxError: There is no such policy or NAMM.
    """

    def make(budget: float) -> Policy:
        return build_policy(EvictConfig("", host, config.policy, config.namm, budget=budget, seed=seed))

    return [make(budget) if budget < 1 else Full() for budget in config.budgets]


def answer_logits(
    model: PreTrainedModel, prompt: Prompt, policies: Sequence[Policy], *, through_context: bool = True
) -> Tensor:
    """Compute the logits of a prompt's answer under each policy.

    Args:
        model: A decoder that `attach` supports.
        prompt: The prompt, of which the context is evicted once, after all of it was read.
        policies: What each answer is read under [P].
        through_context: Whether gradients reach the model through the context's keys and values too.

    Returns:
        Logits [P, A, V], each from the tokens before it.

    Raises:
        MemxError: In the cases of `attach`.
    """
    slots = PolicySlots(tuple(policy for policy in policies if not isinstance(policy, Full)))
    with nullcontext() if through_context else torch.no_grad():
        shared = read(model, prompt.context, slots, length=len(prompt.context))
    cache = MaskedCache(shared, kept_by_each(shared, slots, policies))
    ids = prompt.rest[:-1].to(input_device(model)).expand(len(policies), -1)
    with masked(model, cache):
        return forward(model, ids, cache, len(prompt.context), prompt.answer).logits


@torch.no_grad()
def kept_by_each(shared: EvictingCache, slots: PolicySlots, policies: Sequence[Policy]) -> list[Tensor]:
    """Let each policy choose what it keeps of a context.

    Args:
        shared: One sequence, read under the slots.
        slots: What notes the numbers that the policies read.
        policies: The policies [P].

    Returns:
        Of each layer [L] the tokens that each policy keeps [P, H, N], bool.
    """
    chosen = [shared.choices(PolicyBatch(slots, (policy,))) for policy in policies]
    return [torch.cat(of_layer) for of_layer in zip(*chosen, strict=True)]
