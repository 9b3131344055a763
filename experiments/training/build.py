"""Config, facts and run folder -> a `Trainer` that is ready to fit. The order of the steps matters; each says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ...results.store.runs import Run
from ..checkpoints.checkpoint import make_checkpointer
from ..checkpoints.states import begun_value_step
from ..config.training import TrainConfig
from ..data.fact_tokens import check_lengths
from ..data.facts.questions import FactSplit
from ..distributed.parallel import make_parallelism
from ..distributed.process_group import World, local_device
from ..models.assemble import assemble_model
from ..models.pretrained import add_lora
from ..models.slot_usage import SlotUsage
from ..models.whitening import whiten_queries
from ..optim.run_optimizer import make_optimizer
from ..optim.sparse_finetuning import TrainableRows
from ..runtime.devices import autocast_for, pick_device
from ..runtime.events import Note, Phase, Report
from ..runtime.malloc import keep_freed_memory
from ..runtime.signals import StopRequest
from .data import TrainingData, make_data
from .evaluation import CachedAnswers, Evaluator
from .loop import Trainer
from .loss import answer_loss
from .step import TrainStep

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ...memory_layers.llama import MemoryLlamaForCausalLM


class Prompted(Protocol):
    """What trains a model on prompts whose cache a policy evicts; `cache_aware.build` has it."""

    @property
    def data(self) -> TrainingData:
        """The prompts."""
        ...

    def prepare(
        self, model: MemoryLlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
    ) -> tuple[Callable[[MemoryLlamaForCausalLM, Any], Tensor], CachedAnswers]:
        """The loss of a prompt, and what answers the validation prompts; called once, with the start model."""
        ...


def build_trainer(
    config: TrainConfig,
    split: FactSplit,
    run: Run,
    report: Report,
    stop: StopRequest,
    threads: int,
    world: World,
    prompted: Prompted | None = None,
) -> Trainer:
    """Put together what a run trains with, on this process.

    Args:
        config: of the run.
        split: its facts; empty for a corpus.
        run: its claimed folder.
        report: gets an event before what takes long, and after each step.
        stop: whether somebody asked to stop.
        threads: of torch, on this process; world: the processes that share the run.
        prompted: what trains on prompts whose cache a policy evicts, if the config says so.

    Raises:
        MemxError: the model, the data or the processes do not fit the config.
    """
    torch.set_num_threads(threads)  # first: sums over threads depend on it, and so do the bits of everything below
    device = local_device(world, pick_device(config.training.device))
    if device.type == "cpu":
        keep_freed_memory()
    parallelism = make_parallelism(config, world, device)
    assert config.eviction.active == (prompted is not None), "cache_aware.build is called for such a config"
    data = prompted.data if prompted else make_data(config, split, run, parallelism, report)
    # the tokenizer of a new model comes from the data, that of a pretrained one with the model; data are read with it
    model, tokenizer, new_memory = assemble_model(config, data.new_tokenizer, device, parallelism, report)
    lora = add_lora(model, config) if config.finetune.train == "lora" else None
    if split.trained:
        check_lengths(split, tokenizer, config.data.sequence, model.config.max_position_embeddings)
    batches = data.open(tokenizer)
    # the model is the pretrained one still: LoRA adapters and memories begin without effect
    loss, cached = prompted.prepare(model, tokenizer) if prompted else (answer_loss, None)
    evaluator = Evaluator(config, split, tokenizer, lambda text: report(Note(text)), synced=world.joined, cached=cached)
    if new_memory and config.finetune.spread:
        # before FSDP cuts the model, and also where a saved state is restored later: slots are counted with these below
        _fit_queries(config, model, data, evaluator, device, report)
    with autocast_for(config.training.precision, device):
        parallelism.shard_dense(model, device)
    # after it: the optimizer holds the parameters that sharding has put in place of the old ones
    rows, value_step = _trainable_rows(config, model, evaluator, device, report), begun_value_step(run.folder / "state")
    optimizer = make_optimizer(config, model, data.tokens_per_step(), rows, report, value_step)
    usage = SlotUsage(model)  # last: what was read so far counts as no use
    return Trainer(
        config=config,
        split=split,
        run=run,
        report=report,
        stop=stop,
        device=device,
        parallelism=parallelism,
        data=data,
        batches=batches,
        model=model,
        lora=lora,
        evaluator=evaluator,
        optimizer=optimizer,
        usage=usage,
        train_step=TrainStep(config, model, usage, evaluator.text, device, data, parallelism, loss),
        checkpointer=make_checkpointer(run.folder / "state", model, tokenizer, optimizer, usage, parallelism),
    )


def _fit_queries(
    config: TrainConfig,
    model: MemoryLlamaForCausalLM,
    data: TrainingData,
    evaluator: Evaluator,
    device: torch.device,
    report: Report,
) -> None:
    """Fit a new memory's queries to the model's hidden states of ordinary text, or of the facts without it."""
    report(Phase("fitting the memory's queries to the model"))
    text = evaluator.common_text()
    tokens, counted = data.first_tokens() if text is None else (text, None)
    with autocast_for(config.training.precision, device):
        whiten_queries(model.model, tokens, counted)


def _trainable_rows(
    config: TrainConfig, model: MemoryLlamaForCausalLM, evaluator: Evaluator, device: torch.device, report: Report
) -> TrainableRows | None:
    """For `finetune.train=slots`, what chooses the rows that a step may train."""
    if config.finetune.train != "slots":
        return None
    assert evaluator.text is not None
    report(Phase("finding the common memory rows in the text"))
    with autocast_for(config.training.precision, device):
        return TrainableRows(model, config.finetune, evaluator.text.training)
