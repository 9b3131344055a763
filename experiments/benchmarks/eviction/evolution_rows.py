"""What the benchmark of evolution measured -> rows of experiment "bench-evolve".

Rows are of dataset "evolve host=… context=… prompts=… population=… budget=… mode=…", of kind "scorer, way". speedup:
the median over rounds of the time one by one over this way's in the same round. `measured` candidates of `population`
were judged: the time of a generation one by one is that of those, times population over measured. Percents: of the time
of one generation by its parts, see `evolve_speed.time_parts`; host: reading and answers together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ....results.store.rows import Row
from .evolution_timing import ANSWERS, READING
from .rows import rate_row, ratio_row, time_row

if TYPE_CHECKING:
    from .settings import Case, Generations


def row_labels(case: Case) -> dict[str, Any]:
    """What rows of a case share."""
    config, mode = case.config, case.mode
    dataset = f"evolve host={config.host} context={case.context} prompts={case.prompts}"
    dataset += f" population={config.population} budget={case.budget:g} mode={mode}"
    labels = dict(
        context=case.context, prompts=case.prompts, population=config.population, budget=case.budget, mode=mode
    )
    return case.common | {"dataset": dataset} | labels


def generation_rows(scorer: str, generations: Generations, case: Case) -> list[Row]:
    """Times of a generation, candidates a second, speedups, and what the time goes to."""
    rows = []
    *batched, alone = generations.seconds
    for method, seconds in generations.seconds.items():
        measured = generations.measured if method == alone else case.config.population
        common: dict[str, Any] = row_labels(case) | dict(
            kind=f"{scorer}, {method}", scorer=scorer, way=method, measured=measured
        )
        rows.append(time_row(common, "generation_ms", seconds))
        rows.append(rate_row(common, "candidates_per_second", case.config.population, seconds))
        if method in batched:
            rows.append(ratio_row(common, "speedup", generations.seconds[alone], seconds))
        parts = generations.parts[method]
        host = parts[READING] + parts[ANSWERS]
        for part, percent in (*parts.items(), ("host", host)):
            rows.append(Row(**common, metric=f"{part}_percent", value=percent, n=1))
    return rows
