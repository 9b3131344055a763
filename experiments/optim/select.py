"""The optimiser of a run: its tables stepped densely or sparsely by what a batch reads; says which."""

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
from .value_optimizer import Rows

if TYPE_CHECKING:
    from ...memory_layers.llama import MemoryLlamaForCausalLM


def make_optimizer(
    config: TrainConfig,
    model: MemoryLlamaForCausalLM,
    tokens: int,
    rare: Rows | None,
    report: Report,
    begun: str = "",
) -> Optimizer:
    """Make the optimiser of a run whose steps see so many tokens. rare: chooses the rows that a step may train.

    begun: how a run that goes on has stepped its tables, and must go on to, whatever `auto` would choose now. Raises
    MemxError for a dense step of tables that lie over several ranks.
    """
    training = config.training
    if begun in ("sparse", "dense") and training.value_optimizer == "auto":
        training = training.model_copy(update={"value_optimizer": begun})
    if begun == "dense" and any(table.shard is not None for table in tables_of(model)):
        raise MemxError(
            "the run began with the dense value step, in one process",
            hint="go on without torchrun, or start anew with --force",
        )
    sizes = model_sizes(*model_and_memory(config, model), model.config.vocab_size)
    reads = tokens * sizes.slots_read
    sgd = rare is not None and config.finetune.slots_optimizer == "sgd"
    optimizer = Optimizer(model, training, reads=reads, seed=config.seed, sgd=sgd, keep=rare)
    if optimizer.value_step:
        rows = sum(table.shape[0] for table in tables_of(model))
        how = f"{optimizer.value_step} value step"
        if model.device.type == "cpu" and library() is None:
            how += ", without compiled loops"
        report(Note(f"{how}: a step reads {reads:,} of {rows:,} rows"))
    return optimizer
