"""How large the outputs of layers are at the start: shapes -> expected squares, from which initial scales follow.

All is for inputs of unit variance, as a norm gives them. The numbers come from plain float arithmetic, so that every
process of a run gets the same. No torch here. Source of the idea: UltraMemV2 (arXiv 2508.18756), whose memories start
with the variance of the feed-forward beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import erf, exp, pi, sqrt
from statistics import NormalDist
from typing import Literal

_NORMAL = NormalDist()


@lru_cache(maxsize=64)
def mean_square(function: Callable[[float], float], std: float = 1.0) -> float:
    """The mean of function(g)^2 for g ~ N(0, std), by a sum over 4001 points."""
    step, total = 20 / 4000, 0.0
    for i in range(4001):
        g = -10 + i * step
        total += function(g * std) ** 2 * exp(-g * g / 2)
    return total * step / sqrt(2 * pi)


def silu(x: float) -> float:
    """x * sigmoid(x)."""
    return x / (1 + exp(-x)) if x > -700 else 0.0


def gelu(x: float) -> float:
    """x * (1 + erf(x / sqrt(2))) / 2."""
    return x * (1 + erf(x / sqrt(2))) / 2


def feed_forward_std(width: int, inner: int, initializer_range: float) -> float:
    """The standard deviation of a SwiGLU's outputs at the start.

    Args:
        width: d, the hidden size.
        inner: f, the width between its matrices.
        initializer_range: Standard deviation of the weights of gate and up; the down projection has sqrt(d/f) of it.
    """
    spread = initializer_range * width**0.5
    down = initializer_range * (width / inner) ** 0.5
    return sqrt(inner * down**2 * mean_square(silu, spread) * spread**2)


@lru_cache(maxsize=64)
def squared_weights(
    n: int,
    top_k: int,
    *,
    scores: Literal["softmax", "none"] = "softmax",
    score_std: float = 1.0,
    combined: Literal["sum", "product"] = "sum",
) -> float:
    """The expected sum of a head's k squared weights at the start.

    The scores of either list are taken for n independent normal numbers, at their expected values: the sorted list's
    i-th largest of n is Blom's quantile at (n - i + 5/8) / (n + 1/4).

    Args:
        n: Half-keys in a list.
        top_k: k.
        scores: Whether weights are a softmax over the scores, or the scores.
        score_std: Standard deviation of a half-key's score.
        combined: How a slot's score follows from its two half-keys': product keys add them, Tucker scores multiply.
    """
    best = [score_std * _NORMAL.inv_cdf((n - i + 0.625) / (n + 0.25)) for i in range(1, top_k + 1)]
    pairs = [(a, b) for a in best for b in best]
    found = sorted((a + b if combined == "sum" else a * b for a, b in pairs), reverse=True)[:top_k]
    if scores == "softmax":
        parts = [exp(score - found[0]) for score in found]
        found = [part / sum(parts) for part in parts]
    return sum(weight**2 for weight in found)
