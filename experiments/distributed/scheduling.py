"""Units of work that need their prompt's context, and the contexts that ranks hold -> the units of each rank.

The host reads a context once on each rank that works on its prompt, so that a prompt's units stay together unless a
rank would be idle meanwhile. Free of torch; the outcome depends on nothing but the arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple


class Unit(NamedTuple):
    """Candidates `first` to `last` on the prompt at a place of those evaluated."""

    place: int
    first: int
    last: int


Share = list[Unit]


def schedule(work: Mapping[Unit, int], reading: Sequence[int], held: Sequence[AbstractSet[int]]) -> list[Share]:
    """Share out units of work over ranks, so that the last rank is done early.

    Whole prompts go to the rank that would be done with them first, the longest before others; then single units go
    from the busiest rank to the idlest for as long as that brings the end nearer (longest processing time first, with
    moves: Graham, "Bounds on Multiprocessing Timing Anomalies", 1969).

    Args:
        work: of each unit, in tokens.
        reading: of each place's context, in tokens; a rank pays it once.
        held: for each rank the places whose context it has read.

    Returns:
        The units of each rank, sorted.
    """

    def load(rank: int, share: Sequence[Unit]) -> int:
        places = {unit.place for unit in share} - held[rank]
        return sum(work[unit] for unit in share) + sum(reading[place] for place in places)

    prompts: dict[int, Share] = {}
    for unit in work:
        prompts.setdefault(unit.place, []).append(unit)
    shares: list[Share] = [[] for _ in held]
    ranks, busy = range(len(held)), [0] * len(held)
    longest = sorted(prompts.values(), key=lambda units: -sum(work[unit] for unit in units) - reading[units[0].place])
    for units in longest:
        ends = [busy[rank] + load(rank, units) for rank in ranks]
        rank = ends.index(min(ends))
        shares[rank] += units
        busy[rank] = ends[rank]
    while len(ranks) > 1:
        most, least = busy.index(max(busy)), busy.index(min(busy))
        moves = []
        for unit in shares[most]:
            remaining = [other for other in shares[most] if other != unit]
            after = load(most, remaining), load(least, [*shares[least], unit])
            moves.append((max(after), after, unit))
        if not moves or min(moves)[0] >= busy[most]:
            break
        _, (busy[most], busy[least]), unit = min(moves)
        shares[most].remove(unit)
        shares[least].append(unit)
    return [sorted(share) for share in shares]
