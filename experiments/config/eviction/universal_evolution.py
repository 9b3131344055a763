"""The config of an evolution on a host that reads no text, `memx evolve-namm --host decision:RUN`. No torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ..base import RunName, StrictModel
from .policy_eval import Allocation, NammSource
from .universal_eval import SHARES, TrainedHost


class UniversalEvolveConfig(StrictModel):
    """An evolution of a NAMM on a decision transformer or a video model, from the parameters of another NAMM."""

    command: Literal["evolve-namm"] = Field(
        default="evolve-namm", description="command that the config is for, always evolve-namm"
    )
    name: RunName = Field(default="namm-host", description="first part of the run folder's name")
    host: TrainedHost
    start: NammSource
    zeros: bool = Field(
        default=False, description="start from parameters of zeros; the features and the network stay those of start"
    )
    budgets: tuple[float, ...] = Field(
        default=SHARES, min_length=1, description="budgets that the fitness is the mean over: shares, or tokens above 1"
    )
    allocation: Allocation = Field(default="global", description="how heads share a budget: equal, global or layer_max")
    every: int = Field(default=48, ge=16, multiple_of=16, description="eviction interval in tokens")
    units: int = Field(default=6, ge=1, le=100_000, description="episodes or questions per candidate and budget")
    validation: int = Field(default=32, ge=1, le=100_000, description="episodes or questions that means are chosen on")
    validate_every: int = Field(default=5, ge=1, description="generations between validations of the mean")
    generations: int = Field(default=30, ge=1, le=100_000, description="generations of CMA-ES")
    population: int = Field(default=16, ge=4, le=10_000, description="candidates per generation")
    sigma: float = Field(default=0.1, gt=0, description="first step size of CMA-ES")
    seed: int = Field(default=0, ge=0, lt=2**31, description="random seed of CMA-ES")

    @model_validator(mode="after")
    def _known(self) -> UniversalEvolveConfig:
        for budget in self.budgets:
            if not (0 < budget < 1 or (budget > 1 and budget == int(budget))):
                raise ValueError(f"budgets: {budget:g} is no share below 1 and no number of tokens; use 0.5 or 512")
        if self.allocation == "table":
            raise ValueError("allocation: there is no table of head shares for this host; use equal or global")
        return self
