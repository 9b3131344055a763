"""The model card of an evolved NAMM: its config, and the rows of its evaluation if they are known -> a `Card`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...namm.saved.card import Card, Score
from ...results.store.rows import Row
from ..config.base import to_yaml
from ..config.eviction.evolution import EvolveConfig

_ANSWER, _DIFFERENCE = "answer", "difference"  # variants of rows
_MEASURES = {
    "relative_log_likelihood": "likelihood of the correct answer, full cache = 1",
    "relative_score": "score, relative to the full cache",
    "kept": "% of the cache kept",
    "fitness": "fitness",
}


def evolution_card(config: EvolveConfig, rows: Iterable[Row] = ()) -> Card:
    """What the card of an evolution's NAMM says.

    Args:
        config: The evolution.
        rows: Rows on the chosen NAMM; none while the evolution runs.

    Returns:
        The card, the same for the same config and rows.
    """
    return Card(
        command="memx evolve-namm config.yaml",
        config=to_yaml(config),
        seeds=(config.seed,),
        scores=tuple(_scores(rows, of_size=config.namm.rule == "threshold")),
    )


def _scores(rows: Iterable[Row], *, of_size: bool) -> Iterator[Score]:
    """The scores of the chosen NAMM, and how much its fitness is above that of the initial parameters.

    of_size: whether the size of the cache is the NAMM's own choice: what it keeps, and its price, are then told too.
    """
    for row in rows:
        measure = _MEASURES.get(row.metric)
        if measure is None or row.variant not in (_ANSWER, _DIFFERENCE):
            continue
        if not of_size and (row.metric == "kept" or (row.metric, row.variant) == ("fitness", _ANSWER)):
            continue
        if row.variant == _DIFFERENCE:
            if row.metric != "fitness":
                continue
            measure = "fitness, minus that of the initial parameters"
        split, _, part = row.dataset.partition("/")
        yield Score(f"{split} prompts: {part}", measure, row.value, row.low, row.high, row.n)
