"""Contexts -> a table of head shares: the mean share that each head keeps when the best tokens of all heads are chosen.

The scores may be a policy's own, or any others, such as KVzip's of a second reading of the context. L layers, H heads,
N tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import MemxError
from ..kernels.attention_spectrogram import HOP
from ..transformers_compat import input_device
from .attachment import attach
from .policies.base import Policy, Rule
from .policies.heuristics import Full
from .policies.keep import kept_together
from .policies.panel import PolicyBatch, PolicySlots
from .policies.rule import under_rule
from .policies.shares import HeadShares, total_tokens
from .trial import evaluating

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BUDGETS = (0.0625, 0.125, 0.25, 0.5, 0.75)


def measure_shares(
    model: PreTrainedModel, policy: Policy, contexts: Iterable[Tensor], budgets: Sequence[float] = BUDGETS
) -> HeadShares:
    """Measure how much each head of a model keeps when a policy chooses among the tokens of all layers and heads.

    The policy's own rule and interval are not used: each context is read whole, and then its tokens are chosen once.

    Args:
        model: A decoder that `attach` supports.
        policy: The policy whose scores are compared between heads.
        contexts: Token ids of texts, [N] each, such as prompts of the tasks and lengths that the table is for.
        budgets: Shares of the whole cache, ascending, each in (0, 1).

    Returns:
        The table.

    Raises:
        MemxError: In the cases of `attach`; there are no contexts, the budgets are not ascending in (0, 1], or the
            policy's hop is neither 0 nor 16.

    Example:
        ```python
        import memx

        model, tokenizer = memx.load_model("smollm2")
        contexts = [tokenizer("one two three " * 40, return_tensors="pt").input_ids[0]]
        shares = memx.namm.measure_shares(model, memx.namm.make_policy("knorm", budget=0.5), contexts)
        rule = memx.namm.Rule(budget=0.25, allocation="table", shares=shares)
        ```
    """
    if policy.hop not in (0, HOP):
        hint = "measure the shares of another policy, such as keydiff"
        raise MemxError(f"{policy.name} observes queries {policy.hop} at a time, not {HOP}", hint=hint)
    slots = PolicySlots((policy,))
    rules = [Rule(budget=budget, allocation="global") for budget in budgets]
    mean = _Mean(budgets)
    for ids in contexts:
        with evaluating(model), attach(model, slots) as attached, torch.no_grad():
            cache = attached.new_cache()
            attached.decoder(input_ids=ids[None].to(input_device(model)), past_key_values=cache)
            forks = [
                cache.fork(under_rule(PolicyBatch(slots, (policy,)), rule), continue_with=Full()) for rule in rules
            ]
        mean.add([[[count / len(ids) for count in layer.state.counts[0]] for layer in fork.layers] for fork in forks])
    return mean.result(policy.name)


def shares_of_scores(
    scores: Iterable[Sequence[Tensor] | Tensor],
    budgets: Sequence[float] = BUDGETS,
    *,
    source: str = "",
    reach: Sequence[int | None] = (),
) -> HeadShares:
    """Measure a table of head shares from the scores of some contexts.

    Args:
        scores: Of each context the score of every token, larger means more worth keeping: [L, H, N], or [H, N] for
            each layer.
        budgets: Shares of the whole cache, ascending, each in (0, 1).
        source: What the scores are, in words; a note in the table.
        reach: Of each layer how many of the newest tokens a cache holds, less than N where it has a window. None: all.

    Returns:
        For each budget the share of its tokens that each head keeps, the mean over contexts.

    Raises:
        MemxError: There are no contexts, or the budgets are not ascending in (0, 1].
    """
    mean = _Mean(budgets)
    for context in scores:
        layers = [one[None].to(context[0].device) for one in context]
        heads, tokens = [one.shape[1] for one in layers], layers[0].shape[2]
        totals = [torch.tensor([total_tokens(budget, tokens, heads, reach)]) for budget in budgets]
        exists = [_newest(one, most) for one, most in zip(layers, reach or [None] * len(layers), strict=True)]
        masks = [kept_together(layers, total, exists=exists) for total in totals]
        mean.add([[(mask[0].sum(-1).double() / tokens).tolist() for mask in kept] for kept in masks])
    return mean.result(source or "scores")


def _newest(scores: Tensor, most: int | None) -> Tensor | None:
    """Which of [1, H, N] are the newest so many tokens; None if all are."""
    tokens = scores.shape[2]
    if most is None or most >= tokens:
        return None
    return (torch.arange(tokens, device=scores.device) >= tokens - most).expand(scores.shape)


class _Mean:
    """The mean of tables [L, H] over contexts, at each budget."""

    def __init__(self, budgets: Sequence[float]) -> None:
        self.budgets, self.count = tuple(budgets), 0
        self.sums: list[list[Tensor]] = []

    def add(self, tables: Sequence[Sequence[Sequence[float]]]) -> None:
        """Add the tables of a context, one for each budget."""
        added = [[torch.tensor(layer, dtype=torch.float64) for layer in table] for table in tables]
        if self.sums:
            added = [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(self.sums, added, strict=True)]
        self.sums = added
        self.count += 1

    def result(self, source: str) -> HeadShares:
        """The means. Raises MemxError if nothing was added."""
        if not self.count:
            raise MemxError("no contexts to measure head shares on", hint="give token ids of at least one text")
        tables = tuple(
            tuple(tuple((layer / self.count).clamp(0, 1).tolist()) for layer in table) for table in self.sums
        )
        text = "1 context" if self.count == 1 else f"{self.count} contexts"
        return HeadShares(self.budgets, tables, f"{source}, {text}")
