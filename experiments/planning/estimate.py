"""What a run would cost, before it starts: the model built on the meta device, bytes, FLOPs, steps, folder, GPUs."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...memory_layers.config import MemoryConfig, ModelConfig
from ...memory_layers.llama import MemoryLlamaForCausalLM, tables_of
from ...memory_layers.llama_config import MemoryLlamaConfig
from ...memory_layers.sizes import Sizes, layer_cost, model_sizes, part_sizes
from ...results.published import published_total
from ..base_models.load import host_config, load_tokenizer
from ..config.points import Point
from ..config.shares import listed
from ..config.training import TrainConfig
from ..data.fact_tokens import built_in_fit, check_lengths, possibly_long, train_on_facts
from ..data.facts.phrasings import Wording
from ..data.facts.questions import FactSplit, build_split
from ..data.facts.record import Fact
from ..models.build import llama_config
from ..models.describe import host_memory_config, host_model_config
from ..models.pretrained import check_start, choose_trainable, with_memory
from ..optim.optimizer import steps_sparsely
from ..runtime.devices import pick_device, use_bfloat16
from .activations import copied_weights
from .cost import RunCost
from .finetuning_notes import finetuning_notes
from .gpu_memory import Described, Table, Weight
from .mesh import Plan, row_tokens
from .plan import planned

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def cost_of(point: Point, runs: Path, plan: Plan | None = None) -> RunCost:
    """What one run costs. Its facts are loaded and checked, a corpus is not; no weight takes memory.

    Args:
        point: the run's name and config.
        runs: the folder of all runs.
        plan: GPUs to plan the run on; none for its cost alone.

    Returns:
        The cost, with what the run takes on those GPUs.

    Raises:
        MemxError: the config cannot be trained, or the plan cannot be.
    """
    config = point.config
    check_start(config)
    split, notes = build_split(config) if config.on_facts else (None, [])
    if split is not None:
        _check_lengths(config, split)
    model = _described(config, plan)
    training, sizes, tables = config.training, model.sizes, model.tables
    table = tables[0] if tables else None
    tokens = training.batch * row_tokens(config)
    # each prompt is a micro-batch of its own
    at_once = row_tokens(config) if config.eviction.active else tokens // training.accumulate
    mixed = config.text.mix * config.text.block if config.text.source else 0
    trained = sum(prod(weight.shape) for weight in model.weights if weight.trained)
    held = sum(prod(weight.shape) for weight in model.weights) - trained
    halved = 2 * held if config.finetune.dtype == "bfloat16" else 0
    copies = 2 * copied_weights(model.base, model.memory, model.vocabulary) if model.half else 0
    return RunCost(
        run=point.name,
        folder=str(runs / point.name),
        facts=len(split.trained) if split else None,
        unseen_facts=len(split.unseen) if split else None,
        kind=model.memory.kind,
        variant=config.variant,
        memory_slots=model.memory.slots,
        memories=listed(model.memory) if model.memory.also or model.memory.kind == "moe" else "",
        parameters_total=model.parameters,
        published_total=published_total(model.base.name, model.memory.kind, model.memory.slots),
        parameters_active=sizes.parameters_active,
        flops_per_token=sizes.flops,
        weights_bytes=sizes.weight_bytes(4, table.size if table else 4) - halved,
        optimizer_bytes=8 * trained + sum(one.whole_state for one in tables),
        activation_bytes=model.activations(at_once) + copies,
        value_step=table.step if table else "",
        value_optimizer=f"{table.step} {'SGD' if _by_sgd(config) else 'AdamW'}" if table and table.step else "",
        steps=training.steps,
        tokens_per_step=tokens,
        training_flops=3 * sizes.flops * (tokens + mixed) * training.steps,
        notes=(*notes, *finetuning_notes(config)),
        plan=planned(model, config, plan, lambda changed: _changed(model, changed, plan)) if plan else None,
    )


def _check_lengths(config: TrainConfig, split: FactSplit) -> None:
    """Raise MemxError if a fact does not fit, as the run would; a tokenizer is made only where one might not."""
    sequence, source = config.data.sequence, config.finetune.source
    if built_in_fit(config) or not possibly_long(split, sequence):
        return
    if source is None:
        facts = tuple(split.trained)
        tokenizer, context = _tokenizer(facts, split.seed, config.data.vocabulary, split.wording), config.model.context
    else:
        tokenizer, context = load_tokenizer(source), host_config(source).max_position_embeddings
    check_lengths(split, tokenizer, sequence, context)


@lru_cache(maxsize=1)  # the points of a sweep share it
def _tokenizer(facts: tuple[Fact, ...], seed: int, vocabulary: int, wording: Wording) -> PreTrainedTokenizerFast:
    return train_on_facts(FactSplit([*facts], [], seed, wording), vocabulary)


def _described(config: TrainConfig, plan: Plan | None) -> Described:
    """The model of a config, or of its pretrained start, whose weights stay unread; computing here, or on a plan."""
    base, memory, llama = _shapes(config)
    with torch.device("meta"):
        model = MemoryLlamaForCausalLM(llama)
    choose_trainable(model, config.finetune.train)
    vocabulary: Any = llama.vocab_size
    sizes = model_sizes(base, memory, vocabulary)
    of_tables = {id(table.weight) for table in tables_of(model)}
    weights = [
        Weight(tuple(parameter.shape), parameter.requires_grad, _block(name))
        for name, parameter in model.named_parameters()
        if id(parameter) not in of_tables
    ]
    device = torch.device("cuda") if plan else pick_device(config.training.device)
    return Described(
        base=base,
        memory=memory,
        vocabulary=vocabulary,
        sizes=sizes,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        weights=weights,
        tables=_tables(config, base, memory, sizes, plan),
        half=use_bfloat16(config.training.precision, device),
        answers_only=config.data.loss_on == "answers" and not config.corpus.sources,
    )


def _changed(model: Described, config: TrainConfig, plan: Plan) -> Described:
    """A described model with other settings of training, which change its table alone."""
    return replace(model, tables=_tables(config, model.base, model.memory, model.sizes, plan))


def _shapes(config: TrainConfig) -> tuple[ModelConfig, MemoryConfig, MemoryLlamaConfig]:
    """Shape, memory and transformers config."""
    source = config.finetune.source
    if source is None:
        return config.model, config.memory, llama_config(config, config.data.vocabulary)
    host = host_config(source)
    base = host_model_config(host, source.rstrip("/").rpartition("/")[2])
    if getattr(host, "memory_layers", None):
        assert isinstance(host, MemoryLlamaConfig)
        return base, host_memory_config(host), host
    return base, config.memory, with_memory(host, config.memory)


def _by_sgd(config: TrainConfig) -> bool:
    """Whether value tables are stepped by SGD rather than AdamW."""
    return config.finetune.train == "slots" and config.finetune.slots_optimizer == "sgd"


def _tables(
    config: TrainConfig, base: ModelConfig, memory: MemoryConfig, sizes: Sizes, plan: Plan | None
) -> tuple[Table, ...]:
    """The value tables of each memory, how a step treats them, and what it keeps of each element and each row.

    Over several processes, or in CPU memory, tables are only stepped sparsely.
    """
    parts = [(part, part_sizes(base, part), layer_cost(base, part)) for part in memory.parts]
    parts = [(part, whole, layer) for part, whole, layer in parts if whole.table]
    rows = sum(whole.table // layer.row_width for _, whole, layer in parts)
    shared = (plan is not None and plan.gpus > 1) or config.parallel.host_values
    training, finetune = config.training, config.finetune
    lookups = training.batch * row_tokens(config) * sizes.slots_read
    sparse = shared or finetune.train == "slots" or steps_sparsely(rows, training, lookups)
    step = "" if finetune.train == "lora" else "sparse" if sparse else "dense"
    element, row = (8, 0) if step == "dense" else (0, 0)
    if step == "sparse" and not _by_sgd(config):
        moment, full = 2 if training.value_moments == "bfloat16" else 4, training.value_second_moment == "full"
        masters = training.value_dtype == "bfloat16" and training.value_rounding == "masters"
        element = moment * (2 if full else 1) + (4 if masters else 0)
        row = 8 + (0 if full else 4)  # when it was touched, twice; its second moment
    return tuple(
        Table(
            rows=whole.table // layer.row_width,
            width=layer.row_width,
            step=step,
            layers=len(part.placed_layers(base.layers)),
            kept=layer.rows,
            size=2 if training.value_dtype == "bfloat16" else 4,
            element_state=element,
            row_state=row,
            bags=layer.rows if part.kind == "engram" else part.virtual_tables,
        )
        for part, whole, layer in parts
    )


def _block(name: str) -> str:
    """The block that a parameter belongs to, "" for those outside all."""
    found = re.match(r"model\.layers\.\d+\.", name)
    return found[0] if found else ""
