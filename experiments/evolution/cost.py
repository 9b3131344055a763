"""What an evolution would cost, before anything is loaded: the host on the meta device, bytes, FLOPs, expected time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ...errors import MemxError
from ...namm.policies.network import Namm
from ...namm.saved.card import AND
from ..base_models.load import load_tokenizer
from ..base_models.rope import rope_words
from ..config.base import run_name
from ..config.eviction.evolution import EvolveConfig
from ..eviction.base_model import check_prompt_length, describe_base_model, host_source
from ..eviction.tasks import ENOUGH, check_all_fit
from ..models.host_shape import Shape, host_shape
from ..runtime.devices import pick_device
from .expected_time import expected_time
from .space import search_space
from .start import empty_namm

_ANSWER = {"log_likelihood": 48, "score": 64}  # tokens of a question with its answer


@dataclass(frozen=True)
class EvolutionCost:
    """What an evolution would cost; the fields are the keys of `--json`."""

    folder: str  # of the run
    host: str  # the base model
    host_parameters: int
    dtype: str  # of the base model's weights
    rope: str | None  # rotary scaling of the base model in words
    namm_parameters: int
    evolved: int  # numbers that CMA-ES draws for a candidate
    rule: str  # budget or threshold
    every: int  # tokens between evictions
    mode: str
    length: int  # tokens of a prompt, at most
    population: int
    generations: int  # of all stages
    drawn: str  # prompts of a generation, by stage
    train_prompts: int
    validation_prompts: int
    test_prompts: int
    bytes_per_token: int  # of keys, values and what a NAMM notes, in one cache
    context_bytes: int  # of all contexts that are held at once, with what scorers read of them
    batch_bytes: int  # of the caches of candidates that answer at once
    prefills: int  # contexts that are read
    prefill_tokens: int  # of each context, read once for all candidates
    read_online: int  # tokens of a prompt that each candidate reads by itself
    answers: int  # of candidates
    flops: dict[str, float]  # by what they go to
    hours: float  # roughly, of all that is still to do
    base_model_hours: float  # of these, to train the base model of a preset
    assumption: str  # the speeds that the hours rest on


# fields that several base models add up
_SUMMED = (
    *("host_parameters", "train_prompts", "validation_prompts", "test_prompts", "context_bytes", "prefills", "answers"),
    *("hours", "base_model_hours"),
)


@dataclass(frozen=True)
class _Counts:
    """Prompts and answers of a whole evolution."""

    generations: int
    drawn: list[int]  # of a generation, by stage
    train: int
    validation: int
    test: int
    reads: int  # contexts that are read
    answers: int  # of candidates and of means


def evolution_cost(config: EvolveConfig, runs: Path) -> EvolutionCost:
    """The cost of a config: counts are exact but for early stops, bytes and FLOPs of prompts of full length.

    Under a threshold, which may keep everything, candidates are counted as if they did. Raises MemxError for a base
    model that cannot be described, or prompts that do not fit in their length.
    """
    of_each = [_of_host(config.model_copy(update={"host": host, "more_hosts": ()}), runs) for host in config.hosts]
    flops = {name: sum(one.flops[name] for one in of_each) for name in of_each[0].flops}
    summed = {name: sum(getattr(one, name) for one in of_each) for name in _SUMMED}
    return replace(
        of_each[0],
        folder=str(runs / run_name(config)),
        host=AND.join(one.host for one in of_each),
        rope=next((one.rope for one in of_each if one.rope), None),
        drawn="/".join(str(int(count) * len(of_each)) for count in of_each[0].drawn.split("/")),
        bytes_per_token=max(one.bytes_per_token for one in of_each),
        batch_bytes=max(one.batch_bytes for one in of_each),
        flops=flops,
        **summed,
    )


def _of_host(config: EvolveConfig, runs: Path) -> EvolutionCost:
    """The cost of an evolution on one base model."""
    described = describe_base_model(config.host)
    check_prompt_length(config.host, described, config.tasks.length, "tasks.length")
    _check_fit(config, runs)
    namm_shape = empty_namm(config.namm, described=described.get_text_config())
    tasks, evolution, fitness, namm = config.tasks, config.evolution, config.fitness, config.namm
    shape, counts = host_shape(described, fitness.context_dtype or config.host.dtype, namm_shape.width), _counts(config)
    kept = namm.budget if namm.rule == "budget" else 1.0
    flops = _flops(config, shape, counts, kept, namm_shape)
    batches = -(-counts.answers // min(evolution.population, fitness.at_once)) + counts.reads
    time = expected_time(config, runs, _device(config), sum(flops.values()), batches * shape.layers * _runs(config))
    held = max(counts.train + counts.validation, counts.test) if fitness.remember else 1
    at_once = min(evolution.population, fitness.at_once)
    return EvolutionCost(
        folder=str(runs / run_name(config)),
        host=config.host.name or f"preset {config.host.preset}",
        host_parameters=shape.parameters,
        dtype=config.host.dtype,
        rope=rope_words(described, tasks.length),
        namm_parameters=namm_shape.parameter_count,
        evolved=search_space(evolution.space, namm_shape).size,
        rule=_rule(config),
        every=namm.every,
        mode=fitness.mode,
        length=tasks.length,
        population=evolution.population,
        generations=counts.generations,
        drawn="/".join(map(str, counts.drawn)),
        train_prompts=counts.train,
        validation_prompts=counts.validation,
        test_prompts=counts.test,
        bytes_per_token=shape.token_bytes,
        context_bytes=held * context_bytes(config, shape, namm_shape),
        batch_bytes=_batch_bytes(config, shape, at_once, kept),
        prefills=counts.reads,
        prefill_tokens=_shared(config),
        read_online=tasks.length - _shared(config),
        answers=counts.answers,
        flops=flops,
        hours=time.hours,
        base_model_hours=time.base_model,
        assumption=time.assumption,
    )


def context_bytes(config: EvolveConfig, shape: Shape, namm: Namm) -> int:
    """Bytes of one context that was read.

    Args:
        config: The evolution; a prompt is as long as it says.
        shape: The base model's.
        namm: Its features say which queries are kept, and how many numbers a scorer reads of each token under masks.

    Returns:
        The bytes of its keys, values and bookkeeping, with as many waiting queries as there can be.
    """
    features, size = namm.feature_set, getattr(torch, config.host.dtype).itemsize
    read = 4 * features.inputs * shape.layers * shape.kv_heads if config.fitness.sharing == "masks" else 0
    queries = (features.context + features.hop) * shape.head_dim * size + 4 * features.context
    of_head = queries + 4 * features.summary_size(shape.head_dim)
    return _shared(config) * (shape.token_bytes + read) + shape.layers * shape.heads * of_head


def _check_fit(config: EvolveConfig, runs: Path) -> None:
    """Raise MemxError for families that do not fit in short prompts; a model that is not there is not looked at."""
    if config.tasks.length >= ENOUGH:
        return
    try:
        tokenizer = load_tokenizer(host_source(config.host, runs))
    except MemxError:
        return
    check_all_fit(config, tokenizer)


def _counts(config: EvolveConfig) -> _Counts:
    tasks, evolution, stages = config.tasks, config.evolution, config.stages
    generations = [stage.generations or 0 for stage in stages]
    drawn = [tasks.per_generation * len(stage.tasks) for stage in stages]
    validated = [tasks.validation_prompts * len(tasks.validation or stage.tasks) for stage in stages]
    validations = [1 + -(-count // evolution.validate_every) for count in generations]
    evaluated, each = sum(map(int.__mul__, drawn, generations)), len(config.budgets)
    tested = tasks.test_prompts * len(tasks.validation or stages[-1].tasks)
    means = each * (sum(map(int.__mul__, validated, validations)) + 2 * (validated[-1] + tested))
    train, validation = len(tasks.train) * tasks.pool, len(config.validated_on) * tasks.validation_prompts
    reads = min(train, evaluated) + validation + tested if config.fitness.remember else evaluated + means
    answers = evolution.population * evaluated + means
    return _Counts(sum(generations), drawn, train, validation, tested, reads, answers)


def _runs(config: EvolveConfig) -> int:
    """How often a candidate evicts on one prompt."""
    return max(config.tasks.length // config.namm.every, 1) if config.fitness.mode == "online" else 1


def _rule(config: EvolveConfig) -> str:
    """The rule in words."""
    namm = config.namm
    if namm.rule == "threshold":
        return f"threshold {namm.threshold:g}"
    budgets = " and ".join(f"{budget:g}" for budget in config.fitness.budgets or (namm.budget,))
    return f"budget {budgets}" + ("" if namm.allocation == "equal" else f", allocation {namm.allocation}")


def _batch_bytes(config: EvolveConfig, shape: Shape, at_once: int, kept: float) -> int:
    """Of the caches of candidates that answer at once: copies of what they keep, or a mask of the context for each."""
    if config.fitness.sharing == "copies":
        return int(at_once * kept * config.tasks.length * shape.token_bytes)
    after = _ANSWER[config.fitness.kind] * 2 * shape.head_dim * shape.size
    return at_once * shape.layers * shape.kv_heads * (config.tasks.length + after)


def _flops(config: EvolveConfig, shape: Shape, counts: _Counts, kept: float, namm: Namm) -> dict[str, float]:
    """By what they go to: contexts read, fit, scores of candidates, answers of candidates and of the full cache."""
    length, every, answers = config.tasks.length, config.namm.every, counts.answers
    held = length if config.fitness.sharing == "masks" else int(kept * length)
    answer = shape.forward(_ANSWER[config.fitness.kind], held)
    context = counts.reads * shape.forward(_shared(config))
    if config.fitness.mode == "online":
        context += answers * shape.forward(max(length - every, 0), held // 2)
    pairs = 4 * 32 * length * length / 2 if config.namm.scorer == "bam" else 0
    weights = 2 * namm.parameter_count * length
    scores = answers * _runs(config) * shape.layers * shape.kv_heads * (weights + pairs)
    prompts = counts.train + counts.validation + counts.test
    fitted = {}
    if config.evolution.start == "fit":
        texts = len(config.tasks.train) * config.fit.prompts
        steps = 3 * 8 * config.fit.steps * shape.kv_heads * (weights + pairs)  # eight layers, forward and backward
        fitted["fit"] = texts * (2 * shape.forward(length) + shape.forward(length, length)) + steps
    if config.namm.allocation == "table":
        texts = len(config.tasks.train) * config.calibration
        fitted["head shares"] = texts * (shape.forward(length) + shape.forward(length, length))
    return {"context": context, **fitted, "choice": scores, "answers": (answers + prompts) * answer}


def _shared(config: EvolveConfig) -> int:
    """Tokens of a prompt that are read once for all candidates."""
    length = config.tasks.length
    return length if config.fitness.mode == "post_hoc" else min(config.namm.every, length)


def _device(config: EvolveConfig) -> str:
    """cpu or cuda; one that is not here may be counted with."""
    name = config.host.device
    return "cuda" if name.startswith("cuda") else pick_device(name, "host.device").type
