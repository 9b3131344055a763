"""What several processes cannot train: config and their number -> the reasons, each with a way out. No torch here."""

from __future__ import annotations

from typing import NamedTuple

from ...errors import MemxError
from ..config.training import TrainConfig


class Refusal(NamedTuple):
    """Why a config cannot be trained by several processes.

    hint: what a run should change. planned: what a plan should change, where that is said in other words.
    """

    reason: str
    hint: str
    planned: str = ""


def refusals(config: TrainConfig) -> list[Refusal]:
    """Everything about a config that forbids more than one process, whatever their number.

    Args:
        config: of one run.

    Returns:
        The reasons, in the order in which they are reported; empty for a config that several processes can train.
    """
    found, finetune, training = [], config.finetune, config.training
    if finetune.train in ("lora", "slots"):
        reason = f"finetune.train {finetune.train} supports only one process"
        found.append(Refusal(reason, "run it without torchrun", "plan one GPU"))
    if training.value_optimizer == "dense" and any(part.slots for part in config.memory.parts):
        reason = "training.value_optimizer dense supports only one process"
        found.append(Refusal(reason, "set it to sparse, or run without torchrun", "set it to sparse"))
    if any(part.kind == "peer" for part in config.memory.parts) and config.parallel.table != "replicated":
        found.append(Refusal("PEER tables cannot be sharded", "set parallel.table=replicated"))
    units = any(part.kind == "ultramem" and part.whole_tables for part in config.memory.parts)
    if units and config.parallel.table != "replicated":
        found.append(Refusal("tables of units (memory.units) cannot be sharded", "set parallel.table=replicated"))
    return found


def check_parallelism(config: TrainConfig, ranks: int) -> None:
    """Check that so many processes can train a config.

    Args:
        config: of one run.
        ranks: processes, of all machines together.

    Raises:
        MemxError: a mesh cannot be cut into the parts that the config asks for, or several processes cannot train it.
    """
    for name, share in (("shard", config.parallel.shard), ("table_ranks", config.parallel.table_ranks)):
        if share is not None and ranks % share:
            raise MemxError(
                f"parallel.{name} {share} is not a divisor of the {ranks} processes",
                hint=f"set it to a divisor of {ranks}",
            )
    found = refusals(config)
    if config.parallel.host_values and config.parallel.prefetch > 1:
        # a run refuses this for any batch; a plan only where as many micro-batches would run ahead
        reason = f"parallel.prefetch {config.parallel.prefetch} is above 1, the limit for several processes"
        found.append(Refusal(reason, "set parallel.prefetch to 0 or 1"))
    for refusal in found[:1]:
        raise MemxError(refusal.reason, hint=refusal.hint)
