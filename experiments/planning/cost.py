"""What a dry run says of a run, and of its plan on GPUs. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

PART_NAMES = {"copies": "bf16 copies", "step's reads": "lookups", "grouping": "sparse update", "asking": "evaluation"}
PART_NAMES |= {"host": "offloaded table"}


@dataclass(frozen=True)
class PlanCost:
    """What a run takes on the GPUs of a plan.

    Attributes:
        shard: ranks that share the dense weights.
        table: how table_ranks share a value table; "" without one.
        parts: micro-batches of a step, each of tokens_per_part tokens on one GPU.
        bytes: on one GPU, by what they are for, and "total", the peak; "host" is in host memory instead.
        saved: bytes of a saved state, of all ranks together.
        memory: bytes of one GPU.
        seconds: of a step, by part, and "step", the total.
        hours: None, as are gpu_hours and tokens_per_second, where `problems` say why the run does not fit.
        assumed: what the times rest on, a line each.
        notes: what is worth a change, a line each.
    """

    gpus: int
    gpu: str
    shard: int
    table: str
    table_ranks: int
    host_values: bool
    parts: int
    tokens_per_part: int
    steps: int
    tokens: int
    bytes: Mapping[str, int]
    saved: int
    memory: float
    seconds: Mapping[str, float]
    tokens_per_second: float | None
    hours: float | None
    gpu_hours: float | None
    assumed: list[str]
    problems: list[str]
    notes: list[str]


@dataclass(frozen=True)
class RunCost:
    """What a run costs: exact for the vocabulary of its config, where nothing else is said.

    Attributes:
        facts: None for a corpus, as is unseen_facts.
        memories: all memories with their sizes, where there are several or experts; else empty.
        published_total: published parameters of the same base, kind and slots, if there are any.
        flops_per_token: of a forward pass.
        activation_bytes: of one process, with the copies of weights that autocast keeps.
        value_step: how value tables are stepped, sparse or dense; empty if none is trained.
        value_optimizer: the same with the optimizer's name, for tables.
        tokens_per_step: of full rows of a corpus, or estimated from what a step's documents fill at most.
        training_flops: of all steps, with the text that is mixed in.
        notes: what was noticed in the facts, as the run prints it, and how a pretrained model is trained; a line each.
        plan: None if none was asked for.
    """

    run: str
    folder: str
    facts: int | None
    unseen_facts: int | None
    kind: str
    variant: str
    memory_slots: int
    parameters_total: int
    published_total: float | None
    parameters_active: int
    flops_per_token: int
    weights_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    value_step: str
    steps: int
    tokens_per_step: int
    training_flops: int
    value_optimizer: str = ""
    memories: str = ""
    notes: tuple[str, ...] = ()
    plan: PlanCost | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields by name, as `--json` prints them; without `plan` if there is none."""
        fields = asdict(self)
        if self.plan is None:
            del fields["plan"]
        return fields
