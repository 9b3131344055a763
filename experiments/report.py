"""What a finished training run says: answers -> rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..memory_layers.sizes import model_sizes
from ..results.rows import Row
from ..results.store import commit
from .config import TrainConfig
from .data.questions import Guesser
from .data.record import Fact
from .evaluate import Answer, estimates, guess_estimates, make_guessers
from .metrics import Estimate

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def result_rows(
    config: TrainConfig,
    run: str,
    model: PreTrainedModel,
    device: torch.device,
    answers: Mapping[str, Sequence[Answer]],
    trained: Sequence[Fact],
) -> list[Row]:
    """Rows for each tier (`dataset`: seen, rephrased, unseen) and each relation in it (`seen/airport_country`)."""
    vocabulary = model.config.vocab_size
    sizes = model_sizes(config.model, config.memory, vocabulary)
    total = sum(parameter.numel() for parameter in model.parameters())
    common = dict(
        run=run,
        experiment=config.experiment or run,
        kind=config.memory.kind,
        model=f"llama-{config.model.layers}x{config.model.width}",
        memory_slots=config.memory.slots,
        parameters_total=total,
        parameters_active=sizes.parameters_active,
        flops=sizes.flops,
        device=str(device),
        seed=config.seed,
        commit=commit(),
    )
    guessers = make_guessers(trained)
    rows: list[Row] = []
    for tier, asked in answers.items():
        for metric, estimate in _with_guesses(asked, guessers).items():
            rows.append(_row(common, tier, metric, estimate))
        for relation in sorted({answer.question.relation for answer in asked}):
            of_relation = [answer for answer in asked if answer.question.relation == relation]
            for metric, estimate in _with_guesses(of_relation, guessers).items():
                rows.append(_row(common, f"{tier}/{relation}", metric, estimate))
    return rows


def _with_guesses(answers: Sequence[Answer], guessers: Mapping[str, Guesser]) -> dict[str, Estimate]:
    return {**estimates(answers), **guess_estimates([answer.question for answer in answers], guessers)}


def _row(common: Mapping, dataset: str, metric: str, estimate: Estimate) -> Row:
    return Row(**common, dataset=dataset, metric=metric, **estimate._asdict())
