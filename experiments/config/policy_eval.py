"""The config of an evaluation of NAMMs: what `memx eval-namm` makes of run folders, or a YAML file says. No torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ...results.namm.rows import NAMM, PER_HEAD, PRESSES
from .base import RunName, StrictModel
from .evolution import HostConfig
from .tasks import HELD_OUT_TASKS, TRAINING_TASKS, is_longbench

# those of `namm.POLICIES` but full, whose file imports torch; a test holds the two together
BASELINES = ("random", "recency", "streamingllm", "h2o", "knorm", "tova", "snapkv")
EAGER = ("ObservedAttentionPress",)  # those that read probabilities, which fused attention never writes
BUDGETS = (0.75, 0.5, 0.25, 0.125)


def is_known(task: str) -> bool:
    """Whether there are prompts of a family; LongBench's are known where they are."""
    return task in (*TRAINING_TASKS, *HELD_OUT_TASKS) or is_longbench(task)


class NammSource(StrictModel):
    """A saved NAMM: where it lies, the digest of its numbers, what tables call it and how it came to be."""

    folder: str
    sha256: str = Field(description="of its namm.safetensors; another NAMM in that folder is refused")
    label: str = Field(default=NAMM, pattern=rf"^{NAMM}( .+)?$", description="namm, or namm and a name")
    seed: int = Field(default=0, description="of its evolution")
    evolved_on: str = Field(default="", description="the host that it was evolved on")
    budget: float | None = Field(default=None, gt=0, le=1, description="of its own rule; none: a threshold")


class EvalConfig(StrictModel):
    """A whole evaluation."""

    command: Literal["eval-namm"] = "eval-namm"
    name: RunName = Field(default="eval", description="first part of the run folder's name")
    namms: tuple[NammSource, ...] = Field(min_length=1)
    host: HostConfig
    tasks: tuple[str, ...] = Field(min_length=1, description="families of tasks, memx's or longbench/NAME")
    trained: tuple[str, ...] = Field(default=(), description="families that a NAMM was trained or validated on")
    length: int = Field(default=1024, ge=64, description="the most tokens of a prompt")
    prompts: int = Field(default=16, ge=1, description="of each family")
    split: Literal["train", "validation", "test"] = "test"
    source: str | None = Field(default=None, description="folder of LongBench's .jsonl files; none: the hub")
    mode: Literal["post_hoc", "online"] = Field(
        default="post_hoc", description="one choice when the context has been read, or evicting while reading"
    )
    every: int = Field(default=512, ge=16, multiple_of=16, description="online: tokens between runs")
    budgets: tuple[float, ...] = Field(default=BUDGETS, description="shares kept, beside the NAMMs' own sizes")
    policies: tuple[str, ...] = Field(default=BASELINES, description="rivals; the full cache is always there")
    peers: bool = Field(default=False, description="kvpress's presses too")
    write: bool = Field(default=False, description="greedy answers too, scored by the tasks' own metrics")
    documents: int = Field(default=4, ge=0, description="of prose and of code, to see which kinds of token are dropped")
    seed: int = Field(default=0, ge=0, lt=2**31, description="draws prompts, lots and resamples")
    resamples: int = Field(default=2000, ge=100, description="of the bootstrap")
    at_once: int = Field(default=16, ge=1, description="policies that answer in one batch")

    @property
    def shares(self) -> tuple[float, ...]:
        """All budgets in force, those of the NAMMs among them, the largest first."""
        own = [one.budget for one in self.namms if one.budget is not None]
        return tuple(sorted({*self.budgets, *own}, reverse=True))

    @property
    def presses(self) -> tuple[str, ...]:
        """kvpress's presses that are evaluated, beside the policies that do as they do.

        Its random one repeats memx's, and draws from torch's global generator, so that no run could go on alike.
        """
        return tuple(n for n, own in PRESSES.items() if self.peers and own in self.policies and own != "random")

    @model_validator(mode="after")
    def _known(self) -> EvalConfig:
        for task in self.tasks:
            if not is_known(task):
                known = ", ".join((*TRAINING_TASKS, *HELD_OUT_TASKS))
                raise ValueError(f"no task {task!r}; use {known} or longbench/NAME")
        for name in self.policies:
            if name not in BASELINES:
                raise ValueError(f"no policy {name!r}; use {', '.join(BASELINES)}: full is always there")
        for budget in self.budgets:
            if not 0 < budget < 1:
                raise ValueError(f"budget {budget:g} is no share to be kept; use above 0, below 1")
        for name, given in (("tasks", self.tasks), ("policies", self.policies), ("budgets", self.budgets)):
            if len(set(given)) < len(given):
                raise ValueError(f"{name} names one twice")
        return self

    @model_validator(mode="after")
    def _fits(self) -> EvalConfig:
        labels = [one.label for one in self.namms]
        if len({*labels, *(label + PER_HEAD for label in labels)}) < 2 * len(labels):
            raise ValueError("two NAMMs have the same label, or would have; give each its own")
        if self.peers and self.mode == "online":
            raise ValueError("kvpress chooses once, after the context; compare it in mode post_hoc")
        if self.peers and self.length < 128:
            raise ValueError(f"kvpress needs contexts of 65 tokens, and prompts have {self.length}; set length to 128")
        if self.mode == "online" and "snapkv" in self.policies and self.every < 32:
            raise ValueError("snapkv looks at 32 queries; set every to 32 or more")
        return self
