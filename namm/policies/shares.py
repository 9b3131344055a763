"""How much of the cache each head of a model gets: a table of shares, measured once, used at any budget.

Some heads need most of their tokens and others next to none, and which they are is a property of the model more than
of the text. Source: Feng et al. 2024, "Ada-KV" (arXiv 2407.11550), for budgets by head; Yu et al. 2025, "EvolKV" (arXiv
2509.08315), for fixed ones. L layers, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import floor, fsum, isfinite
from typing import Any

from ...errors import MemxError

Table = tuple[tuple[float, ...], ...]  # [L, H]
_LEAST = 1e-6  # of a head without a share, so that a budget can be met whatever the table says
_STEPS = 60  # halvings of the factor in `HeadShares.rooms`


@dataclass(frozen=True)
class HeadShares:
    """A table of head shares for one or more budgets.

    Args:
        budgets: Budgets at which shares were measured, ascending, each in (0, 1]: share of the whole cache.
        tables: For each budget the share of its tokens that each head keeps, in [0, 1]: [budgets, L, H].
        source: What the shares were measured with, in words.

    Raises:
        MemxError: Budgets are not ascending in (0, 1], the tables differ in shape, or a share is outside [0, 1].

    Example:
        ```python
        from memx.namm import HeadShares, Rule

        shares = HeadShares((0.25,), (((0.4, 0.1), (0.3, 0.2)),))  # two layers of two heads
        Rule(budget=0.25, allocation="table", shares=shares)
        ```
    """

    budgets: tuple[float, ...]
    tables: tuple[Table, ...]
    source: str = ""

    def __post_init__(self) -> None:
        hint = "measure a table with memx.namm.measure_shares"
        ascending = all(a < b for a, b in pairwise(self.budgets))
        if not self.budgets or not ascending or not all(0 < budget <= 1 for budget in self.budgets):
            raise MemxError("the budgets of a table of head shares must be ascending and in (0, 1]", hint=hint)
        if len(self.tables) != len(self.budgets) or len({tuple(map(len, table)) for table in self.tables}) != 1:
            raise MemxError("a table of head shares needs one share per layer and head for each budget", hint=hint)
        flat = [share for table in self.tables for layer in table for share in layer]
        if not flat or not all(isfinite(share) and 0 <= share <= 1 for share in flat):
            raise MemxError("a head's share of its tokens must be in [0, 1]", hint=hint)

    @property
    def heads(self) -> list[int]:
        """Number of heads of each layer: [L]."""
        return [len(layer) for layer in self.tables[0]]

    def at(self, budget: float) -> Table:
        """The shares at a budget: [L, H].

        Between two measured budgets each share is interpolated linearly; none is kept at 0, and all at 1.

        Args:
            budget: Share of the whole cache, in (0, 1].

        Returns:
            A share of its tokens for each head.
        """
        zero, one = (tuple(tuple(value for _ in layer) for layer in self.tables[0]) for value in (0.0, 1.0))
        points = [(0.0, zero), *zip(self.budgets, self.tables, strict=True)]
        points += [(1.0, one)] * (self.budgets[-1] < 1)
        (low, less), (high, more) = next(pair for pair in pairwise(points) if budget <= pair[1][0])
        part = (budget - low) / (high - low)
        return tuple(
            tuple(a + part * (b - a) for a, b in zip(*layers, strict=True)) for layers in zip(less, more, strict=True)
        )

    def rooms(self, budget: float, tokens: int, reach: Sequence[int | None] = (), least: int = 1) -> list[list[int]]:
        """Number of tokens that each head may keep; in all as many as heads with equal shares would hold.

        Args:
            budget: Share of the whole cache, in (0, 1], or above 1 the mean tokens of a head.
            tokens: Number of tokens of the sequence so far, N.
            reach: Most tokens that a head of each layer can hold [L], less than N where it has a window. None: all.
            least: Tokens that every head keeps in any case.

        Returns:
            Tokens per layer and head [L, H]; the sum is that of `total_tokens`, if `least` allows it.
        """
        return [list(layer) for layer in _rooms(self, budget, tokens, tuple(reach), least)]

    def tree(self) -> dict[str, Any]:
        """The table as plain data for JSON; `from_tree` reads it."""
        tables = [[list(layer) for layer in table] for table in self.tables]
        return {"budgets": list(self.budgets), "tables": tables, "source": self.source}

    @classmethod
    def from_tree(cls, tree: Any) -> HeadShares:
        """Read what `tree` wrote. Raises MemxError for anything else."""
        try:
            assert isinstance(tree, Mapping)
            tables = tuple(tuple(tuple(map(float, layer)) for layer in table) for table in tree["tables"])
            return cls(tuple(map(float, tree["budgets"])), tables, str(tree.get("source", "")))
        except (AssertionError, KeyError, TypeError, ValueError):
            raise MemxError(
                "this is not a table of head shares", hint="it has budgets, and tables[budget][layer][head]"
            ) from None


def allowed(budget: float, tokens: int) -> Fraction:
    """Count the tokens that a budget leaves of a sequence, not rounded.

    Args:
        budget: A share of all tokens, in (0, 1], or above 1 a number of tokens.
        tokens: Number of tokens of the sequence so far.

    Returns:
        The number, at most `tokens`.
    """
    exact = Fraction(str(budget))  # as it is written: 0.42 of 38,400 is 16,128, in floats one less
    return min(exact, Fraction(tokens)) if budget > 1 else exact * tokens


def total_tokens(budget: float, tokens: int, heads: Sequence[int], reach: Sequence[int | None] = ()) -> int:
    """Count the pairs of keys and values of all heads together under a budget: room x L x H, rounded down.

    Args:
        budget: Share of the whole cache, in (0, 1], or above 1 the mean tokens of a head.
        tokens: Number of tokens of the sequence so far, N.
        heads: Number of heads of each layer [L].
        reach: Most tokens that a head of each layer can hold [L], less than N where it has a window. None: all.

    Returns:
        The number of pairs, at least one for each head.
    """
    room, total = allowed(budget, tokens), Fraction(0)
    for number, most in zip(heads, _reach(heads, tokens, reach), strict=True):
        total += number * min(room, most)
    return max(sum(heads), floor(total))


def _reach(heads: Sequence[int], tokens: int, reach: Sequence[int | None]) -> list[int]:
    return [tokens if most is None else min(tokens, most) for most in reach or [None] * len(heads)]


@lru_cache(maxsize=1024)
def _rooms(
    shares: HeadShares, budget: float, tokens: int, reach: tuple[int | None, ...], least: int
) -> tuple[tuple[int, ...], ...]:
    """`HeadShares.rooms`: shares times one factor, cut at what a head must keep and can hold, so that the sum fits."""
    heads = shares.heads
    most = _reach(heads, tokens, reach)
    caps = [cap for number, cap in zip(heads, most, strict=True) for _ in range(number)]
    floors = [min(least, cap) for cap in caps]
    share = float(allowed(budget, tokens) / tokens)
    wanted = [max(own, _LEAST) * tokens for layer in shares.at(share) for own in layer]
    total = min(total_tokens(budget, tokens, heads, reach), sum(caps))

    def cut(factor: float) -> list[float]:
        return [min(max(factor * want, low), cap) for want, low, cap in zip(wanted, floors, caps, strict=True)]

    low, high = 0.0, 1.0 / _LEAST
    for _ in range(_STEPS):
        middle = (low * high) ** 0.5 if low else high / 4
        low, high = (middle, high) if fsum(cut(middle)) <= total else (low, middle)
    exact = cut(low)
    counts = [floor(room) for room in exact]
    # what rounding down left goes to the largest remainders
    left = total - sum(counts)
    order = sorted(range(len(counts)), key=lambda head: (counts[head] - exact[head], head))
    while left > 0:
        open_heads = [head for head in order if counts[head] < caps[head]][:left]
        for head in open_heads:
            counts[head] += 1
        left -= len(open_heads)
    flat = iter(counts)
    return tuple(tuple(next(flat) for _ in range(number)) for number in heads)
