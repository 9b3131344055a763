"""The config of an evolution of a NAMM: what a preset or a YAML file of `memx evolve-namm` may say. Free of torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .base import RunName, StrictModel
from .tasks import TRAINING_TASKS, UNSCORED, is_longbench

_HOP = 16  # of the spectrogram


def check_task(task: str) -> None:
    """Raise ValueError for a family that is unknown or kept for evaluation; LongBench's are known where they are."""
    if task in TRAINING_TASKS or is_longbench(task):
        return
    raise ValueError(
        f"{task!r} is no task to evolve on; use {', '.join(TRAINING_TASKS)} or longbench/NAME: others stay unseen"
    )


class HostConfig(StrictModel):
    """The model whose cache is evicted; exactly one of name and preset says which."""

    name: str | None = Field(default=None, description="smollm2, gemma3-270m, a folder or a hub name of a model")
    preset: str | None = Field(
        default=None, description="or a preset of `memx train`, trained first if its run is not there"
    )
    shape: str | None = Field(
        default=None, description="a preset of `memx train` of the same shape, for --dry-run where the hub is not"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(default="float32", description="what it computes in")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    threads: int | None = Field(default=None, ge=1, description="CPU threads; none: the machine's cores")

    @model_validator(mode="after")
    def _one_host(self) -> HostConfig:
        if (self.name is None) == (self.preset is None):
            raise ValueError("name a host or a preset of `memx train`, one of them; --set host.preset=null")
        return self


class NammConfig(StrictModel):
    """What of a NAMM is not evolved."""

    scorer: Literal["bam", "mlp"] = Field(default="bam", description="attention over newer tokens, or an MLP")
    hidden: tuple[int, ...] = Field(default=(), description="mlp: widths of its hidden layers")
    strict: bool = Field(default=False, description="bam: a token's attention leaves itself out")
    every: int = Field(default=512, ge=_HOP, multiple_of=_HOP, description="tokens between runs, a multiple of 16")
    rule: Literal["threshold", "budget"] = Field(
        default="threshold", description="keep what scores at least threshold, or the best, that share of all tokens"
    )
    threshold: float = Field(default=0.0, allow_inf_nan=False)
    budget: float = Field(default=0.5, gt=0, le=1)
    grouping: Literal["layer_max", "per_head"] = Field(
        default="layer_max", description="threshold: heads of a layer keep as many as the most generous, or not"
    )

    @model_validator(mode="after")
    def _hidden_is_of_an_mlp(self) -> NammConfig:
        if self.hidden and self.scorer != "mlp":
            raise ValueError("hidden layers are an MLP's; set scorer to mlp")
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"hidden {list(self.hidden)} holds a width below 1")
        return self


class TasksConfig(StrictModel):
    """What is evolved and validated on: families of tasks, memx's own or LongBench's."""

    train: tuple[str, ...] = Field(
        default=("key_values", "needles"), min_length=1, description=f"{', '.join(TRAINING_TASKS)} or longbench/NAME"
    )
    length: int = Field(default=1024, ge=64, description="the most tokens of a prompt")
    pool: int = Field(default=16, ge=1, description="training prompts there are of each family")
    per_generation: int = Field(default=2, ge=1, description="of these, those drawn for each generation")
    validation: tuple[str, ...] = Field(default=(), description="families validated on; none: those of the stage")
    validation_prompts: int = Field(default=8, ge=1, description="validation prompts of each family")
    test_prompts: int = Field(
        default=16, ge=0, description="prompts of each that neither trained nor chose the answer, judged at the end"
    )
    source: str | None = Field(default=None, description="folder of LongBench's .jsonl files; none: the hub")

    @model_validator(mode="after")
    def _known(self) -> TasksConfig:
        for task in (*self.train, *self.validation):
            check_task(task)
        if self.per_generation > self.pool:
            raise ValueError(f"per_generation {self.per_generation} is more than the pool of {self.pool}")
        return self


class FitnessConfig(StrictModel):
    """What a candidate is worth: how well the host answers, less what its cache costs."""

    kind: Literal["log_likelihood", "score"] = Field(
        default="log_likelihood", description="of the gold answer, or the task's score of greedy answers"
    )
    mode: Literal["post_hoc", "online"] = Field(
        default="post_hoc", description="one choice when the context has been read, or evicting while reading"
    )
    cap: float | None = Field(
        default=None, gt=0, description="the most that an answer may be worth, the full cache's being 1; none: no limit"
    )
    price: float = Field(default=0.0, ge=0, description="of the whole cache: taken off in proportion to what is kept")
    target: float | None = Field(default=None, gt=0, le=1, description="or a share of the cache that may be kept free")
    weight: float = Field(default=1.0, ge=0, description="and the price of the whole cache beyond it")
    least_base: float = Field(
        default=0.1, gt=0, le=1, description="score: what scores are divided by where the full cache scores less"
    )
    at_once: int = Field(default=32, ge=1, description="candidates in one batch")
    remember: bool = Field(default=True, description="read each context once and keep its cache")

    @model_validator(mode="after")
    def _one_price(self) -> FitnessConfig:
        if self.price and self.target is not None:
            raise ValueError("price and target both charge for the cache; set one of them")
        return self


class Stage(StrictModel):
    """Tasks, and how long they are evolved on."""

    tasks: tuple[str, ...] = Field(min_length=1)
    generations: int | None = Field(default=None, ge=1, description="none: evolution.generations")


class EvolutionConfig(StrictModel):
    """CMA-ES."""

    population: int = Field(default=32, ge=4, description="candidates of a generation")
    sigma: float = Field(default=0.065, gt=0, allow_inf_nan=False, description="first step size")
    covariance: Literal["diagonal", "full"] = "diagonal"
    generations: int = Field(default=100, ge=1, description="of each stage")
    validate_every: int = Field(default=10, ge=1, description="generations between validations of the mean")
    patience: int | None = Field(default=None, ge=1, description="stop after so many that brought nothing better")
    stages: tuple[Stage, ...] = Field(default=(), description="one after another; none: one, of tasks.train")


class EvolveConfig(StrictModel):
    """A whole evolution."""

    command: Literal["evolve-namm"] = "evolve-namm"
    name: RunName = Field(default="namm", description="first part of the run folder's name")
    about: str = Field(default="", description="one line, shown by `memx presets`")
    seed: int = Field(default=0, ge=0, lt=2**31, description="draws prompts and candidates")
    host: HostConfig = HostConfig(name="smollm2")
    namm: NammConfig = NammConfig()
    tasks: TasksConfig = TasksConfig()
    fitness: FitnessConfig = FitnessConfig()
    evolution: EvolutionConfig = EvolutionConfig()
    calibration: int = Field(default=4, ge=1, description="training prompts of each family that features are scaled by")

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in force, each with its number of generations."""
        given = self.evolution.stages or (Stage(tasks=self.tasks.train),)
        usual = self.evolution.generations
        return tuple(Stage(tasks=one.tasks, generations=one.generations or usual) for one in given)

    @property
    def validated_on(self) -> tuple[str, ...]:
        """Every family that is validated on."""
        return self.tasks.validation or self.tasks.train

    @model_validator(mode="after")
    def _fits(self) -> EvolveConfig:
        for index, stage in enumerate(self.evolution.stages):
            for task in stage.tasks:
                if task not in self.tasks.train:
                    raise ValueError(f"evolution.stages.{index}: {task} is not among tasks.train; add it there")
        if self.fitness.kind == "score":
            for task in (*self.tasks.train, *self.tasks.validation):
                if task in UNSCORED:
                    raise ValueError(f"fitness.kind score: {task} has no score; leave it out, or use log_likelihood")
        if self.calibration > self.tasks.pool:
            raise ValueError(f"calibration {self.calibration} is more than the tasks.pool of {self.tasks.pool}")
        return self
