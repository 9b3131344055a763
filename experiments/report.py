"""What a finished training run says: answers -> rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..memory_layers.sizes import model_sizes
from ..results.rows import Row
from ..results.store import commit
from .config import TrainConfig
from .evaluate import Answer, estimates, majority_estimate
from .metrics import Estimate

if TYPE_CHECKING:
    import torch
    from torch import nn


def result_rows(
    config: TrainConfig,
    run: str,
    model: nn.Module,
    device: torch.device,
    answers: Mapping[str, Sequence[Answer]],
    majority: Mapping[str, str],
) -> list[Row]:
    """Rows for each tier (`dataset`: seen, rephrased, unseen) and each relation in it (`seen/airport_country`)."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
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
    rows: list[Row] = []
    for tier, asked in answers.items():
        for metric, estimate in _with_majority(asked, majority).items():
            rows.append(_row(common, tier, metric, estimate))
        for relation in sorted({answer.question.relation for answer in asked}):
            of_relation = [answer for answer in asked if answer.question.relation == relation]
            for metric, estimate in _with_majority(of_relation, majority).items():
                rows.append(_row(common, f"{tier}/{relation}", metric, estimate))
    return rows


def _with_majority(answers: Sequence[Answer], majority: Mapping[str, str]) -> dict[str, Estimate]:
    questions = [answer.question for answer in answers]
    return {**estimates(answers), "majority_exact_match": majority_estimate(questions, majority)}


def _row(common: Mapping, dataset: str, metric: str, estimate: Estimate) -> Row:
    return Row(**common, dataset=dataset, metric=metric, **estimate._asdict())
