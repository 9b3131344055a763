"""The size of the cache that a NAMM chooses itself, as a budget that other policies can be given."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from ...namm.policies.shares import allowed
from ..config.eviction.policy_eval import EvalConfig
from ..eviction.answers import Prompt
from ..eviction.measurements import CacheSize, Measurements

_ROUNDING = 1e-6  # tokens


def own_budget(config: EvalConfig, share: float, tokens: int, most: Sequence[float] = (1.0,)) -> float:
    """Find the budget under which layers together hold a share of a context when it is read.

    Args:
        config: The evaluation.
        share: The share of the context, 0 to 1.
        tokens: Its length.
        most: The share that each layer can hold, less than 1 where it has a window.

    Returns:
        The budget of every layer, to the nearest token.
    """
    every = config.every
    seen = tokens // every * every if config.mode == "online" else tokens
    if not seen:
        return 1.0
    # layers with a window hold less than the others, so the same count for all must be searched for
    room = min(range(1, tokens + 1), key=lambda n: abs(fmean(min(n / tokens, top) for top in most) - share))
    # online the tokens after the last eviction are all held, and the budget is of those before it; a little more, so
    # that rounding down gives this count whatever the division leaves, of one head and of all together
    return min(1.0, (max(room - (tokens - seen), 1) + _ROUNDING) / seen)


def sizes(config: EvalConfig, prompt: Prompt, measured: Sequence[Measurements]) -> list[tuple[float, CacheSize]]:
    """List the sizes at which policies were measured, for implementations that run after them.

    Args:
        config: The evaluation.
        prompt: The prompt.
        measured: What `PolicyEvaluator.evaluate` gave for it.

    Returns:
        The share of the cache at each size, and the size as the tables name it for a policy that is no NAMM.
    """
    length = len(prompt.context)
    found = [
        # a little more than a number of tokens, so that rounding down gives it
        (budget if budget <= 1 else min(1.0, (float(allowed(budget, length)) + _ROUNDING) / length), CacheSize(budget))
        for budget in config.shares
    ]
    for entry in measured:
        if entry.at.size == "own" and not entry.at.beside:
            share = own_budget(config, entry.cache.held, length, measured[0].cache.layers)
            found.append((share, CacheSize(None, "own", entry.variant)))
    return found
