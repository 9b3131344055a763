"""A run's config and model -> its optimizer, and a note of how value tables are stepped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import MemxError
from ...kernels.native import library
from ...memory_layers.llama import tables_of
from ...memory_layers.sizes import model_sizes
from ..config.training import TrainConfig
from ..models.describe import model_and_memory
from ..runtime.events import Note, Report
from .optimizer import Optimizer
from .value_optimizer import ChooseRows

if TYPE_CHECKING:
    from ...memory_layers.llama import MemoryLlamaForCausalLM


def make_optimizer(
    config: TrainConfig,
    model: MemoryLlamaForCausalLM,
    tokens: int,
    trainable_rows: ChooseRows | None,
    report: Report,
    begun: str = "",
) -> Optimizer:
    """Make the optimizer of a run.

    Args:
        config: of the run.
        model: with what is to be trained marked so, and sharded.
        tokens: that all ranks see in a step.
        trainable_rows: chooses the rows that a step may train; none for all.
        report: gets a note of how tables are stepped, and why.
        begun: how a run that goes on has stepped its tables, sparse or dense, whatever `auto` would choose now: its
            state has no moments for the other.

    Raises:
        MemxError: the run began with a dense step, and its tables are cut over several ranks now.
    """
    training = config.training.model_copy(update={"steps": config.part_steps})  # each part has its own schedule
    if begun in ("sparse", "dense") and training.value_optimizer == "auto":
        training = training.model_copy(update={"value_optimizer": begun})
    if begun == "dense" and any(table.shard is not None for table in tables_of(model)):
        raise MemxError(
            "the run was started with the dense value optimizer, which supports only one process",
            hint="resume without torchrun, or use --force to start over",
        )
    sizes = model_sizes(*model_and_memory(config, model), model.config.vocab_size)
    lookups = tokens * sizes.slots_read
    sgd = trainable_rows is not None and config.finetune.slots_optimizer == "sgd"
    optimizer = Optimizer(model, training, lookups=lookups, seed=config.seed, sgd=sgd, trainable_rows=trainable_rows)
    if optimizer.value_step:
        rows = sum(table.shape[0] for table in tables_of(model))
        how = f"{optimizer.value_step} value optimizer"
        if model.device.type == "cpu" and library() is None:
            how += ", without compiled CPU kernels"
        report(Note(f"{how}: a step reads {lookups:,} rows; the table has {rows:,}"))
    return optimizer
