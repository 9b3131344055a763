"""One budget of sparse parameters, split between the memories of a model by shares -> slots and experts of each.

Sparse parameters are those that a token does not use: rows of tables, and experts beyond those it is routed to.
No torch here. Source of the question: Engram (arXiv 2601.07372), section 3, "sparsity allocation".
"""

from __future__ import annotations

from math import isqrt

from ...errors import MemxError
from ...memory_layers.config import MemoryConfig, ModelConfig, OneMemory
from ...memory_layers.sizes import layer_cost, part_sizes

_CLOSE = 0.1  # share of a budget that memories may be off by: experts come whole, and tables of product keys as squares


def apply_shares(memory: MemoryConfig, model: ModelConfig, *, close: bool = True) -> MemoryConfig:
    """Give each memory of a model its part of `memory.sparse`.

    Experts come whole, so tables then take what is left, in proportion to their shares. A memory whose share is 0 is
    left out, and so are experts of which none is beyond those that a token uses; the feed-forward then stays.

    Args:
        memory: The memories. Those without `share` split what the others leave evenly.
        model: Shape of the base model.
        close: Whether a budget that cannot be met is refused; a search for a size tries some that cannot.

    Returns:
        The memories with slots and experts in place of `sparse`; as they are without it.

    Raises:
        MemxError: The shares exceed 1, leave a part of the budget to nobody, or cannot be met.
    """
    if memory.sparse is None:
        return memory
    if memory.kind == "dense" or memory.sparse == 0:
        return MemoryConfig(kind="dense")
    shares = _shares(memory.parts)
    sized: list[OneMemory | None] = [None] * len(shares)
    left, of_tables = memory.sparse, 0.0
    for place, (part, share) in enumerate(zip(memory.parts, shares, strict=True)):
        if part.kind != "moe":
            of_tables += share
            continue
        more = _experts(part, model, memory.sparse * share)
        left -= more * _expert(part, model)
        if more:
            sized[place] = part.model_copy(update={"experts": part.experts_per_token + more // _layers(part, model)})
    for place, (part, share) in enumerate(zip(memory.parts, shares, strict=True)):
        if part.kind != "moe" and share:
            sized[place] = part.model_copy(update={"slots": _slots(part, model, left * share / of_tables)})
    by_kind = {part.kind: 0.0 for part in memory.parts}
    for part, share in zip(memory.parts, shares, strict=True):
        by_kind[part.kind] = round(by_kind[part.kind] + share, 6)
    kept = [part.model_dump(exclude={"also", "sparse", "shares", "share"}) for part in sized if part is not None]
    first = kept[0] if kept else {"kind": "dense"}
    split = MemoryConfig.model_validate({**first, "also": kept[1:], "shares": by_kind})
    if close:
        _check_spent(split, model, memory.sparse)
    return split


def listed(memory: MemoryConfig) -> str:
    """All memories of a model with their slots or experts, as "engram 62,500 slots (25%), moe 11 experts (75%)".

    Args:
        memory: The memories; shares of a budget are those of kinds, and are written where a kind has one memory.
    """
    texts = []
    for part in memory.parts:
        size = f"{part.experts:,} experts" if part.kind == "moe" else f"{part.slots:,} slots"
        alone = sum(other.kind == part.kind for other in memory.parts) == 1
        share = f" ({100 * memory.shares[part.kind]:g}%)" if alone and part.kind in memory.shares else ""
        texts.append(f"{part.kind} {size}{share}")
    return ", ".join(texts)


def _check_spent(memory: MemoryConfig, model: ModelConfig, budget: int) -> None:
    """Raise MemxError if the memories have far more or fewer sparse parameters than the budget."""
    spent = 0
    for part in memory.parts:
        if part.kind == "moe":
            spent += (part.experts - part.experts_per_token) * _layers(part, model) * _expert(part, model)
        elif part.kind != "dense":
            spent += part_sizes(model, part).table
    if abs(spent - budget) > _CLOSE * budget:
        exact = spent > budget and not any(part.kind == "engram" for part in memory.parts)  # whose parts are primes
        ways = [f"a budget of {spent:,}" if exact else "a larger budget" if spent > budget else "another budget"]
        ways += ["smaller experts (expert_width)"] if any(part.kind == "moe" for part in memory.parts) else []
        raise MemxError(
            f"memory.sparse {budget:,} cannot be split by these shares: the nearest is {spent:,}",
            hint=f"use other shares, {' or '.join(ways)}",
        )


def _shares(parts: tuple[OneMemory, ...]) -> list[float]:
    given = sum(part.share or 0.0 for part in parts)
    open_ones = sum(part.share is None for part in parts)
    if given > 1 + 1e-9 or (not open_ones and given < 1 - 1e-9):
        raise MemxError(
            f"memory.share: the shares of all memories add up to {given:g}, not to 1",
            hint="leave the share of one memory out; it gets what the others leave",
        )
    rest = max(0.0, 1 - given) / max(1, open_ones)
    return [rest if part.share is None else part.share for part in parts]


def _layers(part: OneMemory, model: ModelConfig) -> int:
    return len(part.placed_layers(model.layers))


def _expert(part: OneMemory, model: ModelConfig) -> int:
    """Parameters of one expert, with its row of the router."""
    return 3 * model.width * (part.expert_width or model.feed_forward_width) + model.width


def _experts(part: OneMemory, model: ModelConfig, budget: float) -> int:
    """Experts of all layers beyond those that a token uses: the same number in each layer."""
    layers = _layers(part, model)
    return round(budget / (_expert(part, model) * layers)) * layers


def _slots(part: OneMemory, model: ModelConfig, budget: float) -> int:
    """Slots of one table: what the budget pays for in all tables together, a square number for product keys."""
    cost, layers = layer_cost(model, part), _layers(part, model)
    tables = 1 if part.one_table else layers
    slots = round(budget * part.lookups / (tables * cost.read))
    if part.kind == "engram":
        return max(part.lookups * 2, slots)
    root = max(part.kept, isqrt(max(slots, 1)))
    return min((root**2, (root + 1) ** 2), key=lambda square: abs(square - slots))
