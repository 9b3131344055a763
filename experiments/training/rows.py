"""What a finished training run says: answers -> rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...memory_layers.llama import count_parameters
from ...memory_layers.sizes import model_sizes
from ...memory_layers.usage import Usage
from ...results.store.environment import commit
from ...results.store.rows import Row
from ..config.training import TrainConfig
from ..data.facts.questions import Guesser
from ..data.facts.record import Fact
from ..metrics.estimates import Estimate
from ..models.describe import model_and_memory
from .continual.evaluation import PartScores
from .continual.rows import known_rows, part_rows
from .fact_qa import Answer, estimates, guess_estimates, make_guessers

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Measured(NamedTuple):
    """What a finished run found out.

    answers: by tier. before: exact match and text loss of a pretrained start. text: NLL per token of ordinary text,
    which `dataset` names. use: of each memory layer over the last window. value_step: sparse or dense; empty if no
    table was trained. cached: the right answers' log-likelihood by budget of the cache. names: answers by tier and by
    the number of tokens in the name of the entity, "1-2", "3-4" or "5+". known: of the questions that a pretrained
    model answered before. parts: scores after each part.
    """

    answers: Mapping[str, Sequence[Answer]]
    before: Mapping[str, Any] = {}
    text: Estimate | None = None
    use: Mapping[str, Usage] = {}
    value_step: str = ""
    dataset: str = ""
    cached: Mapping[str, Estimate] = {}
    names: Mapping[str, Mapping[str, Sequence[Answer]]] = {}
    known: Mapping[str, Estimate] = {}
    parts: Sequence[PartScores] = ()


def result_rows(
    config: TrainConfig,
    run: str,
    model: PreTrainedModel,
    device: torch.device,
    measured: Measured,
    trained: Sequence[Fact],
) -> list[Row]:
    """Rows for each tier (`dataset`: seen, rephrased, unseen), each relation in it (`seen/airport_country`) and each
    length of names (`names/5+/seen`), for ordinary text (`text/NAME`), what was known before (`known`), after each part
    of a continual-learning run (`parts/…`), and the use of each memory layer (`layer 0`)."""
    base, memory = model_and_memory(config, model)
    sizes = model_sizes(base, memory, model.config.vocab_size)
    common = dict(
        run=run,
        experiment=config.experiment or run,
        kind=memory.kind,
        variant=config.variant,
        model=base.title,
        memory_slots=memory.slots,
        parameters_total=count_parameters(model),
        parameters_active=sizes.parameters_active,
        flops=sizes.flops,
        device=str(device),
        seed=config.seed,
        commit=commit(),
        value_step=measured.value_step,
        trained=config.finetune.train,
    )
    if memory.shares:
        common["shares"] = ", ".join(f"{kind} {share:g}" for kind, share in memory.shares.items())
    return [
        *_answer_rows(common, measured.answers, trained),
        *_name_rows(common, measured.names),
        *_before_and_text_rows(common, config, measured),
        *known_rows(common, measured.before.get("known", {}), measured.known),
        *(part_rows(common, measured.before, measured.parts) if measured.parts else []),
        *_cached_rows(common, config, measured),
        *_use_rows(common, measured.use),
    ]


def _answer_rows(common: Mapping, answers: Mapping[str, Sequence[Answer]], trained: Sequence[Fact]) -> list[Row]:
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


def _name_rows(common: Mapping, names: Mapping[str, Mapping[str, Sequence[Answer]]]) -> list[Row]:
    return [
        _row(common, f"names/{length}/{tier}", metric, estimate)
        for tier, groups in names.items()
        for length, answers in groups.items()
        for metric, estimate in estimates(answers).items()
    ]


def _before_and_text_rows(common: Mapping, config: TrainConfig, measured: Measured) -> list[Row]:
    before = measured.before.get("answers", {})
    rows = [_row(common, tier, "exact_match_before", Estimate(*found)) for tier, found in before.items()]
    dataset = measured.dataset or f"text/{config.text.source}"
    if measured.before.get("text"):
        rows.append(_row(common, dataset, "nll_before", Estimate(*measured.before["text"])))
    if measured.text:
        rows.append(_row(common, dataset, "nll", measured.text))
    return rows


def _cached_rows(common: Mapping, config: TrainConfig, measured: Measured) -> list[Row]:
    """Of validation prompts, at each budget of the cache."""
    both = {"log_likelihood_before": measured.before.get("cached", {}), "log_likelihood": measured.cached}
    rows = []
    for metric, by_budget in both.items():
        for budget, estimate in zip(config.eviction.budgets, by_budget.values(), strict=False):
            more = dict(budget=budget, split="validation", mode="post_hoc", length=config.eviction.length)
            rows.append(Row(**common, **more, dataset="cache", metric=metric, **Estimate(*estimate)._asdict()))
    return rows


def _use_rows(common: Mapping, use: Mapping[str, Usage]) -> list[Row]:
    rows = []
    for layer, found in use.items():
        for metric, value in (("slots_used", 100 * found.used), ("usage_kl", found.kl)):
            rows.append(Row(**common, dataset=f"layer {layer}", metric=metric, value=value, n=found.lookups))
    return rows


def _with_guesses(answers: Sequence[Answer], guessers: Mapping[str, Guesser]) -> dict[str, Estimate]:
    return {**estimates(answers), **guess_estimates([answer.question for answer in answers], guessers)}


def _row(common: Mapping, dataset: str, metric: str, estimate: Estimate) -> Row:
    return Row(**common, dataset=dataset, metric=metric, **estimate._asdict())
