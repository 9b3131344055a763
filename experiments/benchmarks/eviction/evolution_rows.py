"""What the benchmark of evolution measured -> rows of experiment "bench-evolve".

Rows are of dataset "evolve host=… context=… prompts=… population=… budget=… mode=…", of kind "scorer, way". speedup:
the median over rounds of the time one by one over this way's in the same round. `measured` candidates of `population`
were judged: the time of a generation one by one is that of those, times population over measured. Percents: of the time
of one generation by its parts, see `evolve_speed.time_parts`; host: reading and answers together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ....results.store.rows import Row
from .evolution_timing import ANSWERS, READING
from .rows import rate_row, ratio_row, time_row

if TYPE_CHECKING:
    from .correctness import Verdict
    from .evolution import Case, Generations


def settings(case: Case) -> dict[str, Any]:
    """What rows of a case share."""
    order, mode = case.order, case.mode
    dataset = f"evolve host={order.host} context={case.context} prompts={case.prompts}"
    dataset += f" population={order.population} budget={case.budget:g} mode={mode}"
    facts = dict(context=case.context, prompts=case.prompts, population=order.population, budget=case.budget, mode=mode)
    return case.common | {"dataset": dataset} | facts


def verdict_rows(verdicts: Sequence[Verdict], case: Case) -> list[Row]:
    """Whether each scorer's candidates are worth the same either way: 1 or 0."""
    common = settings(case) | {"n": 1, "metric": "correct"}
    return [Row(**common, kind=verdict.name, value=float(not verdict.wrong), **verdict.facts()) for verdict in verdicts]


def generation_rows(scorer: str, found: Generations, case: Case) -> list[Row]:
    """Times of a generation, candidates a second, speedups, and what the time goes to."""
    rows = []
    *batched, alone = found.seconds
    for way, seconds in found.seconds.items():
        measured = found.measured if way == alone else case.order.population
        common: dict[str, Any] = settings(case) | dict(
            kind=f"{scorer}, {way}", scorer=scorer, way=way, measured=measured
        )
        rows.append(time_row(common, "generation_ms", seconds))
        rows.append(rate_row(common, "candidates_per_second", case.order.population, seconds))
        if way in batched:
            rows.append(ratio_row(common, "speedup", found.seconds[alone], seconds))
        parts = found.parts[way]
        host = parts[READING] + parts[ANSWERS]
        for part, percent in (*parts.items(), ("host", host)):
            rows.append(Row(**common, metric=f"{part}_percent", value=percent, n=1))
    return rows
