"""The config of an evolution of a NAMM: the keys of a `memx evolve-namm` preset or YAML file. Free of torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ....errors import shown
from ..base import RunName, StrictModel
from .host import HostConfig
from .namm import NammConfig as NammConfig
from .tasks import UNSCORED, TasksConfig

SearchSpace = Literal["all", "heads"]


class FitnessConfig(StrictModel):
    """Fitness of a candidate: quality of the answers relative to the full cache, minus a cache penalty."""

    kind: Literal["log_likelihood", "score"] = Field(
        default="log_likelihood",
        description="log_likelihood of the correct answer, or the task score of greedy answers",
    )
    mode: Literal["post_hoc", "online"] = Field(
        default="post_hoc", description="evict once after reading the context (post_hoc), or while reading it (online)"
    )
    cap: float | None = Field(
        default=None, gt=0, description="largest value of one answer, where the full cache scores 1; null: no limit"
    )
    price: float = Field(
        default=0.0, ge=0, description="cache penalty: price of a full cache, charged on the share kept; 0: none"
    )
    target: float | None = Field(
        default=None, gt=0, le=1, description="cache target: share of the cache that is not penalised; null: use price"
    )
    weight: float = Field(default=1.0, ge=0, description="cache target: penalty weight of the share above it")
    least_base: float = Field(
        default=0.1, gt=0, le=1, description="score: smallest full-cache score that task scores are divided by"
    )
    at_once: int = Field(default=32, ge=1, le=100_000, description="candidates per batch")
    remember: bool = Field(default=True, description="read each context once and reuse its cache (takes memory)")
    sharing: Literal["copies", "masks"] = Field(
        default="copies",
        description="post_hoc: candidates evict from copies of the context, or by masks on one that all share (faster)",
    )
    context_dtype: Literal["float16", "bfloat16"] | None = Field(
        default=None,
        description="sharing masks: dtype that cached keys and values of contexts have; null: the base model's",
    )
    budgets: tuple[float, ...] = Field(
        default=(), description="cache shares that generations use by turns; empty: namm.budget alone"
    )

    @model_validator(mode="after")
    def _known_budgets(self) -> FitnessConfig:
        if any(not 0 < budget <= 1 for budget in self.budgets) or len(set(self.budgets)) < len(self.budgets):
            raise ValueError("budgets must be different shares in (0, 1], such as [0.125, 0.25]")
        if self.sharing == "masks" and self.mode == "online":
            raise ValueError("sharing masks needs mode post_hoc; use sharing copies")
        if self.sharing == "copies" and self.context_dtype is not None:
            raise ValueError("context_dtype needs sharing masks; set context_dtype to null, or sharing to masks")
        return self

    @model_validator(mode="after")
    def _one_price(self) -> FitnessConfig:
        if self.price and self.target is not None:
            raise ValueError("price and target exclude each other; set one of them")
        return self


class Stage(StrictModel):
    """One stage of an evolution: its tasks and number of generations."""

    tasks: tuple[str, ...] = Field(min_length=1, description="families of this stage, a subset of tasks.train")
    generations: int | None = Field(
        default=None, ge=1, le=10_000_000, description="generations of this stage; null: evolution.generations"
    )


class FitConfig(StrictModel):
    """Fit: training of the scorer on KVzip's scores by gradient, before an evolution that starts from it."""

    prompts: int = Field(default=3, ge=1, description="training prompts per family whose contexts are fitted")
    steps: int = Field(default=400, ge=1, le=1_000_000, description="steps of Adam")
    rate: float = Field(default=0.01, gt=0, le=10, description="initial learning rate, lowered to 0 along a cosine")


class EvolutionConfig(StrictModel):
    """Evolution: the CMA-ES search, its population, step size and stopping rule."""

    start: Literal["zeros", "random", "fit"] = Field(
        default="zeros",
        description="initial parameters: zeros, random weights as torch draws them, or fit (see the section fit)",
    )
    space: SearchSpace = Field(
        default="all",
        description="what is evolved: all parameters, or heads (factors of inputs, last layer and head biases)",
    )
    population: int = Field(default=32, ge=4, le=100_000, description="candidates per generation")
    sigma: float = Field(
        default=0.065,
        gt=0,
        allow_inf_nan=False,
        description="initial step size of CMA-ES; space heads: a multiple of the step of each number, 0.3 to 1",
    )
    sigma_end: float | None = Field(
        default=None,
        gt=0,
        description="bound of the step size, falls from sigma to this along a cosine in each stage; null: none",
    )
    covariance: Literal["diagonal", "full"] = Field(
        default="diagonal", description="covariance matrix of CMA-ES, diagonal or full"
    )
    generations: int = Field(
        default=100, ge=0, le=10_000_000, description="generations per stage; 0: the initial parameters alone"
    )
    validate_every: int = Field(default=10, ge=1, description="generations between validations of the mean")
    patience: int | None = Field(
        default=None, ge=1, description="stop after this many validations without improvement; null: never"
    )
    stages: tuple[Stage, ...] = Field(
        default=(), description="stages run one after another; empty: one stage on tasks.train"
    )


class EvolveConfig(StrictModel):
    """A whole evolution of a NAMM."""

    command: Literal["evolve-namm"] = Field(
        default="evolve-namm", description="command that the config is for, always evolve-namm"
    )
    name: RunName = Field(default="namm", description="first part of the run folder's name")
    about: str = Field(default="", description="one-line summary, shown by `memx presets`")
    seed: int = Field(default=0, ge=0, lt=2**31, description="random seed for prompts and candidates")
    host: HostConfig = HostConfig(name="smollm2")
    more_hosts: tuple[HostConfig, ...] = Field(
        default=(), description="further base models to evolve on; each has its own prompts, as many as host"
    )
    namm: NammConfig = NammConfig()
    tasks: TasksConfig = TasksConfig()
    fitness: FitnessConfig = FitnessConfig()
    evolution: EvolutionConfig = EvolutionConfig()
    fit: FitConfig = FitConfig()
    calibration: int = Field(
        default=4,
        ge=1,
        description="training prompts per family used to normalise the NAMM's input features, and for allocation table",
    )

    @property
    def hosts(self) -> tuple[HostConfig, ...]:
        """All base models."""
        return (self.host, *self.more_hosts)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in force, each with its number of generations."""
        given = self.evolution.stages or (Stage(tasks=self.tasks.train),)
        usual = self.evolution.generations
        return tuple(one if one.generations else one.model_copy(update={"generations": usual}) for one in given)

    @property
    def validated_on(self) -> tuple[str, ...]:
        """Every family that is validated on."""
        return self.tasks.validation or self.tasks.train

    @property
    def budgets(self) -> tuple[float | None, ...]:
        """Shares of the cache that candidates are evaluated at; (None,) for what the NAMM's own rule keeps."""
        return self.fitness.budgets or (None,)

    @model_validator(mode="after")
    def _different_hosts(self) -> EvolveConfig:
        models = [(host.name, host.preset) for host in self.hosts]
        if len(set(models)) < len(models):
            raise ValueError("more_hosts names a base model twice; name each once")
        for number, host in enumerate(self.more_hosts):
            for key in ("device", "threads"):
                if getattr(host, key) != getattr(self.host, key):
                    raise ValueError(
                        f"more_hosts.{number}.{key} is {shown(getattr(host, key))}, but host.{key} is "
                        f"{shown(getattr(self.host, key))}; set them to the same"
                    )
        if self.more_hosts and self.namm.allocation == "table":
            raise ValueError("a table of head shares is of one base model; set namm.allocation to global")
        if self.more_hosts and (self.namm.head_bias or self.namm.head_embedding):
            raise ValueError(
                "more_hosts needs a NAMM without numbers for each head; set namm.head_bias to false and "
                "namm.head_embedding to 0"
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> EvolveConfig:
        for index, stage in enumerate(self.evolution.stages):
            for task in stage.tasks:
                if task not in self.tasks.train:
                    raise ValueError(f"evolution.stages.{index}: {task} is not in tasks.train; add it there")
        if self.fitness.kind == "score":
            for task in (*self.tasks.train, *self.tasks.validation):
                if task in UNSCORED:
                    raise ValueError(f"fitness.kind score: task {task} has no score; remove it, or use log_likelihood")
        if self.fitness.budgets and self.namm.rule != "budget":
            raise ValueError("fitness.budgets needs namm.rule budget; set it, or empty fitness.budgets")
        if self.namm.allocation != "equal" and self.namm.rule != "budget":
            raise ValueError("namm.allocation shares out a budget; set namm.rule to budget")
        if self.evolution.space == "heads" and self.evolution.start == "zeros":
            raise ValueError(
                "evolution.space heads adjusts initial weights, not zeros; set evolution.start to fit or random"
            )
        if (end := self.evolution.sigma_end) is not None and end > self.evolution.sigma:
            raise ValueError(f"evolution.sigma_end {end:g} is above evolution.sigma; lower it")
        if self.evolution.start == "fit" and self.fit.prompts > self.tasks.pool:
            raise ValueError(f"fit.prompts {self.fit.prompts} is above tasks.pool {self.tasks.pool}; lower it")
        if not self.evolution.generations and self.evolution.start != "fit":
            raise ValueError("evolution.generations 0 keeps the initial parameters; set evolution.start to fit")
        if self.calibration > self.tasks.pool:
            raise ValueError(
                f"calibration {self.calibration} is above tasks.pool {self.tasks.pool}; lower it, or raise tasks.pool"
            )
        return self
