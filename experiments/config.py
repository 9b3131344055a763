"""The config of a training run: what a preset or a YAML file may say. Frozen, and free of torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..memory_layers.config import MemoryConfig, ModelConfig

_STRICT = ConfigDict(frozen=True, extra="forbid")


class DataConfig(BaseModel):
    """Which facts, how they are rendered, and how they are packed."""

    model_config = _STRICT

    facts: tuple[str, ...] = Field(
        default=("airports", "elements", "countries"),
        min_length=1,
        description="tables (airports, elements, countries, biographies) and paths of .csv, .jsonl, .parquet files",
    )
    relations: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="keep these relations only; none: all"
    )
    limit: int | None = Field(default=None, ge=10, description="keep at most this many facts, drawn by seed; none: all")
    biographies: int = Field(default=1000, ge=1, description="people, where facts names biographies")
    unseen: float = Field(default=0.05, ge=0, lt=1, description="share of entities that no training text mentions")
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="draws the split into tiers, the biographies and the limit"
    )
    skip_bad_rows: bool = Field(default=False, description="leave out the bad rows of a user's file, with a report")
    vocabulary: int = Field(default=2048, ge=259, description="entries of the byte-level BPE tokenizer")
    sequence: int = Field(default=64, ge=8, description="tokens per packed row; at most model.context")
    loss_on: Literal["answers", "all"] = Field(default="answers", description="tokens that the loss counts")


class TrainingConfig(BaseModel):
    """Steps, optimiser, schedule, precision."""

    model_config = _STRICT

    steps: int = Field(default=1000, ge=1)
    batch: int = Field(default=512, ge=1, description="documents per step, over all accumulated parts")
    accumulate: int = Field(default=1, ge=1, description="parts a step is computed in, to save memory")
    lr: float = Field(default=3e-3, gt=0, description="peak learning rate of everything but the value table")
    value_lr: float = Field(default=1e-2, gt=0, description="peak learning rate of the value table")
    weight_decay: float = Field(default=0.1, ge=0, description="of matrices; never of the value table, keys or norms")
    betas: tuple[float, float] = Field(default=(0.9, 0.95))
    clip: float | None = Field(
        default=1.0, gt=0, description="largest gradient norm; the value table has its own; none: off"
    )
    schedule: Literal["cosine", "wsd"] = Field(default="cosine", description="cosine, or warm-up, stable, decay")
    warmup: int = Field(default=50, ge=0, description="steps of linear warm-up")
    decay: float = Field(default=0.2, gt=0, le=1, description="wsd: share of the steps that decay")
    final_lr: float = Field(default=0.1, ge=0, le=1, description="last learning rate as a share of the peak")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="bfloat16 is autocast; auto: on CUDA"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    threads: int | None = Field(default=None, ge=1, description="CPU threads; none: the machine's cores over the jobs")
    checkpoint_every: int = Field(default=200, ge=1, description="steps between states that --resume can start from")
    log_every: int = Field(default=20, ge=1, description="steps between lines of metrics.jsonl")

    @field_validator("betas")
    @classmethod
    def _below_one(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas {betas} are not in 0..1")
        return betas

    @model_validator(mode="after")
    def _parts_of_a_batch(self) -> TrainingConfig:
        if self.accumulate > self.batch:
            raise ValueError(f"accumulate {self.accumulate} is more than batch {self.batch}")
        return self


class EvaluationConfig(BaseModel):
    """Questions asked on the way and at the end."""

    model_config = _STRICT

    every: int | None = Field(default=200, ge=1, description="steps between evaluations; none: only at the end")
    questions: int = Field(default=200, ge=1, description="per set, on the way")
    final_questions: int | None = Field(default=2000, ge=1, description="per set, at the end; none: all")
    batch: int = Field(default=256, ge=1, description="questions answered at once")
    max_answer: int = Field(default=24, ge=1, description="longest answer in tokens, if no taught one is longer")


class TrainConfig(BaseModel):
    """A whole training run, or a sweep of runs."""

    model_config = _STRICT

    name: str = Field(
        default="run",
        max_length=80,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$",
        description="first part of the run folder's name",
    )
    about: str = Field(default="", description="one line, shown by `memx presets`")
    experiment: str = Field(default="", description="the sweep that a run is a point of; set by memx")
    seed: int = Field(default=0, ge=0, lt=2**31, description="draws initial weights and the order of the documents")
    model: ModelConfig = ModelConfig()
    memory: MemoryConfig = MemoryConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    sweep: dict[str, tuple[Any, ...]] = Field(
        default={}, description="dotted key -> values; one run for each combination"
    )

    @model_validator(mode="after")
    def _fits(self) -> TrainConfig:
        if self.data.sequence > self.model.context:
            raise ValueError(f"data.sequence {self.data.sequence} is longer than model.context {self.model.context}")
        if self.memory.key_width is None and self.memory.slots and self.model.width % 4:
            raise ValueError(f"memory.key_width has no default for model.width {self.model.width}; set an even one")
        empty = [key for key, values in self.sweep.items() if not values]
        if empty:
            raise ValueError(f"sweep.{empty[0]} has no values")
        outside = [i for i in self.memory.placed_layers(self.model.layers) if not 0 <= i < self.model.layers]
        if outside:
            raise ValueError(f"memory.layers {outside} are outside the model's blocks 0..{self.model.layers - 1}")
        return self
