"""The config of an evaluation of NAMMs: made from run folders by `memx eval-namm`, or read from YAML. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ....errors import closest, nearest, shown
from ....namm.plugins import is_plugin
from ....results.namm.rows import ALLOCATED, CEILING_PRESSES, CEILINGS, NAMM, PER_HEAD, PRESSES, THRESHOLD
from ..base import RunName, StrictModel
from .host import HostConfig
from .tasks import (
    BENCHMARK_TASKS,
    BENCHMARKS,
    HELD_OUT_TASKS,
    LONGBENCH,
    NAMED_TASKS,
    RULER,
    RULER_OF_FILES,
    RULER_TASKS,
    TRAINING_TASKS,
    is_longbench,
    with_all_of_ruler,
)

# those of `namm.POLICIES` but full, whose file imports torch; a test holds the two together
BASELINES = (
    "random", "recency", "streamingllm", "h2o", "knorm", "tova", "snapkv", "keydiff", "expected_attention",
)  # fmt: skip
# as of namm, which imports torch; a test compares them
Allocation = Literal["equal", "global", "table", "layer_max"]
Grouping = Literal["layer_max", "per_head"]
EAGER = ("ObservedAttentionPress",)  # those that read probabilities, which fused attention never writes
BUDGETS = (0.75, 0.5, 0.25, 0.125)


def is_known(task: str) -> bool:
    """Whether there are prompts of a family; LongBench's are known where they are."""
    of_ruler = [RULER + name for name in (*RULER_TASKS, *RULER_OF_FILES)]
    return task in (*TRAINING_TASKS, *HELD_OUT_TASKS, *NAMED_TASKS, *of_ruler, *BENCHMARK_TASKS) or is_longbench(task)


def _other_task(task: str, known: Sequence[str]) -> str:
    """What to use in place of a task that there is not."""
    named = [RULER + one for one in (*RULER_TASKS, *RULER_OF_FILES)] + [*BENCHMARK_TASKS]
    benchmark, slash, name = task.partition("/")
    if (names := BENCHMARKS.get(benchmark + slash)) is not None:
        match = closest(name, names)
        return f"did you mean '{benchmark}/{match}'?" if match else f"{benchmark} has {', '.join(names)}"
    benchmarks = ", ".join(f"{name}NAME" for name in (RULER, LONGBENCH, *BENCHMARKS))
    return nearest(task, named) or nearest(task, known) or f"use {', '.join(known)}, {benchmarks}"


class NammSource(StrictModel):
    """A saved NAMM: its folder or name, checksum, label and origin."""

    folder: str = Field(description="folder of the saved NAMM, name of one that memx ships, or hub name")
    sha256: str = Field(description="checksum of its namm.safetensors; a different file is refused")
    settings: str = Field(
        default="", description="checksum of the settings that decide what it keeps; empty in older versions"
    )
    label: str = Field(default=NAMM, pattern=rf"^{NAMM}( .+)?$", description="name in tables: namm, or namm and a name")
    seed: int = Field(default=0, description="random seed of its evolution")
    evolved_on: str = Field(default="", description="base model that it was evolved on")
    budget: float | None = Field(
        default=None, gt=0, description="its budget, a share or above 1 tokens; null: it has a threshold"
    )
    grouping: Grouping | None = Field(
        default=None, description="how heads of a layer share its threshold; null: it has a budget, or an older version"
    )


class EvalConfig(StrictModel):
    """A whole evaluation of NAMMs against other policies."""

    command: Literal["eval-namm"] = Field(
        default="eval-namm", description="command that the config is for, always eval-namm"
    )
    name: RunName = Field(default="eval", description="first part of the run folder's name")
    namms: tuple[NammSource, ...] = Field(min_length=1, description="NAMMs to evaluate")
    host: HostConfig
    tasks: tuple[str, ...] = Field(
        min_length=1,
        description="task families: memx's, ruler (all), or BENCHMARK/NAME, such as ruler/vt or longbench/qasper",
    )
    trained: tuple[str, ...] = Field(default=(), description="families that a NAMM was trained or validated on")
    length: int = Field(default=1024, ge=64, le=10_000_000, description="maximum prompt length in tokens")
    prompts: int = Field(default=16, ge=1, le=1_000_000, description="prompts per family")
    split: Literal["train", "validation", "test"] = Field(
        default="test", description="split of the prompts: train, validation or test"
    )
    source: str | None = Field(
        default=None, description="folder of the files of LongBench and other benchmarks; null: the Hugging Face hub"
    )
    mode: Literal["post_hoc", "online"] = Field(
        default="post_hoc", description="evict once after reading the context (post_hoc), or while reading it (online)"
    )
    question: Literal["after", "before"] = Field(
        default="after",
        description="read the question after eviction (after), or with the context, so that policies see it (before)",
    )
    every: int = Field(default=512, ge=16, multiple_of=16, description="online: eviction interval in tokens")
    budgets: tuple[float, ...] = Field(
        default=BUDGETS,
        description="budgets: shares, or above 1 tokens of each head; those of NAMMs are added",
    )
    allocations: tuple[Allocation, ...] = Field(
        default=("equal",),
        min_length=1,
        description="how heads share a budget, each with every policy: equal, global, table or layer_max",
    )
    allocations_of: dict[str, tuple[Allocation, ...]] = Field(
        default={},
        description="allocations of some policies instead, such as {kvzip: [global]}; namm: all NAMMs, or one's label",
    )
    head_shares: str | None = Field(
        default=None,
        description="file of a table of head shares; null: that of a NAMM, or one measured with KVzip's scores",
    )
    share_prompts: int = Field(
        default=2,
        ge=1,
        le=10_000,
        description="prompts per family of the split train that a table or threshold is measured on",
    )
    online_thresholds: bool = Field(
        default=False,
        description="online: NAMMs also under a threshold calibrated on the same prompts to keep each budget",
    )
    protect_first: int | None = Field(
        default=None, ge=0, description="first tokens that every policy keeps, within the budget; null: as a NAMM says"
    )
    protect_newest: int | None = Field(
        default=None, ge=0, description="newest tokens that every policy keeps, within the budget; null: as a NAMM says"
    )
    policies: tuple[str, ...] = Field(
        default=BASELINES,
        description="policies: memx's, kvzip, which reads the context twice, or FILE.py:CLASS; full always included",
    )
    policy_sources: dict[str, str] = Field(
        default={}, description="checksums of own policies' files; a different file makes another evaluation"
    )
    peers: bool = Field(default=False, description="also evaluate the third-party implementations of kvpress")
    write: bool = Field(default=False, description="also generate greedy answers, scored by each task's metric")
    answer_tokens: int | None = Field(
        default=None, ge=1, le=100_000, description="longest written answer in tokens; null: as each task says"
    )
    reuse: str | None = Field(
        default=None,
        description="folder of a finished evaluation whose measurements of the same prompts are taken over; null: none",
    )
    before: str | None = Field(
        default=None, description="folder of a finished evaluation of the model before it was trained; null: none"
    )
    documents: int = Field(
        default=4,
        ge=0,
        le=1_000_000,
        description="documents of prose and of code, to count which kinds of tokens are evicted",
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="random seed for prompts, random eviction and bootstrap")
    resamples: int = Field(default=2000, ge=100, le=1_000_000, description="bootstrap resamples of the 95% intervals")
    at_once: int = Field(default=16, ge=1, le=100_000, description="policies per batch")

    @property
    def shares(self) -> tuple[float, ...]:
        """All budgets in force, those of the NAMMs among them, the largest first."""
        own = [one.budget for one in self.namms if one.budget is not None]
        return tuple(sorted({*self.budgets, *own}, reverse=True))

    @property
    def all_allocations(self) -> tuple[Allocation, ...]:
        """Every allocation that some policy has, in the order of the config."""
        several = (self.allocations, *self.allocations_of.values())
        return tuple(dict.fromkeys(one for given in several for one in given))

    def allocations_for(self, variant: str) -> tuple[Allocation, ...]:
        """The allocations of a policy, or of a NAMM by its label.

        Args:
            variant: Its name.
        """
        several = self.allocations if variant in self.policies else self.allocations_of.get(NAMM, self.allocations)
        return self.allocations_of.get(variant, several)

    @property
    def presses(self) -> tuple[str, ...]:
        """kvpress's presses that are evaluated, beside the policies that do as they do.

        Its random one repeats memx's, and draws from torch's global generator, so that no run could go on alike.
        """
        return tuple(n for n, own in PRESSES.items() if self.peers and own in self.policies and own != "random")

    @property
    def ceiling_presses(self) -> tuple[str, ...]:
        """kvpress's presses that read the context twice, beside the policies that do as they do."""
        return tuple(name for name, own in CEILING_PRESSES.items() if self.peers and own in self.policies)

    @field_validator("tasks")
    @classmethod
    def _all_of_ruler(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        return with_all_of_ruler(tasks)

    @model_validator(mode="after")
    def _known(self) -> EvalConfig:
        for task in self.tasks:
            if not is_known(task):
                known = (*TRAINING_TASKS, *HELD_OUT_TASKS, *NAMED_TASKS, "ruler")
                raise ValueError(f"no task {task!r}; {_other_task(task, known)}")
        for name in self.policies:
            if name not in (*BASELINES, *CEILINGS) and not is_plugin(name):
                known = (*BASELINES, *CEILINGS)
                hint = nearest(name, known) or f"use {', '.join(known)} or FILE.py:CLASS (full is always included)"
                raise ValueError(f"no policy {name!r}; {hint}")
        for budget in self.budgets:
            if not (0 < budget < 1 or (budget > 1 and budget == int(budget))):
                raise ValueError(f"budgets: {budget:g} is no share below 1 and no number of tokens; use 0.5 or 512")
        for name in ("tasks", "policies", "budgets", "allocations"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise ValueError(f"{name} has an entry twice; remove one")
        return self

    @model_validator(mode="after")
    def _known_allocations(self) -> EvalConfig:
        known = (NAMM, *self.policies, *(one.label for one in self.namms))
        for name, given in self.allocations_of.items():
            if name not in known:
                raise ValueError(f"allocations_of: {shown(name)} is not evaluated; use {', '.join(known)}")
            if not given or len(set(given)) < len(given):
                raise ValueError(f"allocations_of.{name} is empty or has an entry twice; change it")
        return self

    @model_validator(mode="after")
    def _fits(self) -> EvalConfig:
        labels, suffixes = [one.label for one in self.namms], ("", PER_HEAD, THRESHOLD, *ALLOCATED.values())
        if len({label + suffix for label in labels for suffix in suffixes}) < len(suffixes) * len(labels):
            raise ValueError("two NAMMs have the same label; give each a different one")
        if self.peers and self.mode == "online":
            raise ValueError("kvpress evicts only once, after the context; set mode to post_hoc")
        if self.peers and self.length < 128:
            raise ValueError(f"kvpress needs contexts of 65 tokens, but length is {self.length}; set length to 128")
        if self.question == "before" and self.mode == "online":
            raise ValueError("question before is for eviction after the context was read; set mode to post_hoc")
        if self.online_thresholds and self.mode != "online":
            raise ValueError("online_thresholds are for eviction while reading; set mode to online")
        if self.online_thresholds and any(budget > 1 for budget in self.shares):
            raise ValueError("online_thresholds keep shares, not numbers of tokens; use budgets such as 0.5")
        if self.mode == "online" and (ceilings := [name for name in self.policies if name in CEILINGS]):
            raise ValueError(f"{ceilings[0]} reads the whole context before it evicts; set mode to post_hoc")
        if self.mode == "online" and "snapkv" in self.policies and self.every < 32:
            raise ValueError("snapkv observes the last 32 queries; set every to 32 or more")
        return self
