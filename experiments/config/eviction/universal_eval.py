"""The config of an evaluation on a host that reads no text, `memx eval-namm --host decision:RUN`. No torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ....errors import nearest
from ....namm.plugins import is_plugin
from ....results.namm.rows import ALLOCATED
from ..base import RunName, StrictModel
from .policy_eval import BASELINES, Allocation, NammSource

SHARES = (0.75, 0.5, 0.25)


class TrainedHost(StrictModel):
    """Host: a finished run of memx train decision or memx train video, with a checksum of its weights."""

    kind: Literal["decision", "video"] = Field(description="kind of host: decision or video")
    run: str = Field(description="name of the run that trained the host")
    sha256: str = Field(description="checksum of its weights; a different file is refused")
    device: str = Field(default="cpu", description="device to run on: cpu, cuda or cuda:N")
    threads: int | None = Field(default=None, ge=1, le=4096, description="CPU threads; null: the machine's cores")


class UniversalEvalConfig(StrictModel):
    """A whole evaluation of NAMMs and other policies on a decision transformer or a video model."""

    command: Literal["eval-namm"] = Field(
        default="eval-namm", description="command that the config is for, always eval-namm"
    )
    name: RunName = Field(default="eval", description="first part of the run folder's name")
    host: TrainedHost
    namms: tuple[NammSource, ...] = Field(default=(), description="NAMMs to evaluate")
    policies: tuple[str, ...] = Field(
        default=BASELINES, description="policies to compare with: memx's or FILE.py:CLASS; full always included"
    )
    policy_sources: dict[str, str] = Field(
        default={}, description="checksums of own policies' files; a different file makes another evaluation"
    )
    budgets: tuple[float, ...] = Field(default=SHARES, description="budgets: shares, or above 1 tokens of each head")
    allocations: tuple[Allocation, ...] = Field(
        default=("equal", "global"),
        min_length=1,
        description="how heads share a budget, each with every policy: equal, global or layer_max",
    )
    every: int = Field(default=48, ge=16, multiple_of=16, description="eviction interval in tokens")
    mode: Literal["online", "post_hoc"] = Field(
        default="online", description="online: evict at every interval; post_hoc: once, after a clip; not for episodes"
    )
    units: int = Field(default=100, ge=1, le=1_000_000, description="episodes or questions per policy and budget")
    at_once: int = Field(default=50, ge=1, le=100_000, description="episodes or questions per batch")
    protect_first: int | None = Field(
        default=None, ge=0, description="first tokens that every policy keeps, within the budget; null: as a NAMM says"
    )
    protect_newest: int | None = Field(
        default=None, ge=0, description="newest tokens that every policy keeps, within the budget; null: as a NAMM says"
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="random seed of the random policy and of the bootstrap")
    resamples: int = Field(default=2000, ge=100, le=1_000_000, description="bootstrap resamples of the 95% intervals")

    @model_validator(mode="after")
    def _known(self) -> UniversalEvalConfig:
        for name in self.policies:
            if name not in BASELINES and not is_plugin(name):
                hint = nearest(name, BASELINES) or f"use {', '.join(BASELINES)} or FILE.py:CLASS (full always included)"
                raise ValueError(f"no policy {name!r}; {hint}")
        for budget in self.budgets:
            if not (0 < budget < 1 or (budget > 1 and budget == int(budget))):
                raise ValueError(f"budgets: {budget:g} is no share below 1 and no number of tokens; use 0.5 or 512")
        for name in ("policies", "budgets", "allocations"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise ValueError(f"{name} has an entry twice; remove one")
        labels = [one.label + suffix for one in self.namms for suffix in ("", *ALLOCATED.values())]
        if len(set(labels)) < len(labels):
            raise ValueError("two NAMMs have the same label; give each a different one")
        if not self.policies and not self.namms:
            raise ValueError("nothing to evaluate; name a NAMM or a policy")
        if "table" in self.allocations:
            raise ValueError("allocations: there is no table of head shares for this host; use equal or global")
        if "snapkv" in self.policies and self.every < 32:
            raise ValueError("snapkv observes the last 32 queries; set every to 32 or more")
        return self
