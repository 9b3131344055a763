"""The config of a training run: the keys of a preset or a YAML file. Frozen, and free of torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ...errors import MemxError
from ...memory_layers.config import PRODUCT_KEYS, MemoryConfig, ModelConfig
from ...memory_layers.slots import check_rank
from .base import RunName, StrictModel
from .eviction.training import TrainEvictionConfig, check_eviction
from .facts import DataConfig as DataConfig
from .finetuning import EvaluationConfig, FinetuneConfig, TextConfig, check_finetuning, check_parts
from .scale import CorpusConfig, ParallelConfig
from .varying import Sweep, Variants, check_varied


class TrainingConfig(StrictModel):
    """Training: steps, batch size, optimizer, learning-rate schedule and precision."""

    steps: int = Field(default=1000, ge=1, description="number of training steps (optimizer updates), of all parts")
    batch: int = Field(
        default=512,
        ge=1,
        le=10_000_000,
        description="global batch size per step: documents of facts, or rows of a corpus",
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        le=10_000_000,
        description="gradient accumulation: micro-batches per step; more take less memory",
    )
    lr: float = Field(default=3e-3, gt=0, description="peak learning rate of all weights except the value table")
    value_lr: float = Field(default=1e-2, gt=0, description="peak learning rate of the value table")
    value_optimizer: Literal["auto", "dense", "sparse"] = Field(
        default="auto",
        description="value table optimizer: dense, sparse (updates only the rows a step reads) or auto (cheaper)",
    )
    value_second_moment: Literal["full", "row"] = Field(
        default="full", description="sparse optimizer: Adam's second moment per element (full) or per row"
    )
    value_moments: Literal["float32", "bfloat16"] = Field(
        default="float32", description="sparse optimizer: dtype of Adam's moments, float32 or bfloat16"
    )
    value_dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="dtype of the value table, float32 or bfloat16 (needs the sparse optimizer)"
    )
    value_rounding: Literal["stochastic", "masters"] = Field(
        default="stochastic",
        description="bfloat16 value table: stochastic rounding, or masters (float32 master weights)",
    )
    weight_decay: float = Field(
        default=0.1, ge=0, description="weight decay of matrices; not applied to the value table, keys or norms"
    )
    betas: tuple[float, float] = Field(default=(0.9, 0.95), description="Adam's beta1 and beta2")
    clip: float | None = Field(
        default=1.0, gt=0, description="maximum gradient norm, applied to the value table separately; null: no clipping"
    )
    schedule: Literal["cosine", "wsd"] = Field(
        default="cosine", description="learning-rate schedule: cosine, or wsd (warm-up, stable, decay)"
    )
    value_schedule: Literal["same", "linear"] = Field(
        default="same", description="learning-rate schedule of the value table: same as schedule, or linear decay"
    )
    warmup: int = Field(default=50, ge=0, description="linear warm-up in steps")
    decay: float = Field(default=0.2, gt=0, le=1, description="wsd: share of the steps that decay the learning rate")
    final_lr: float = Field(default=0.1, ge=0, le=1, description="final learning rate as a share of the peak")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="precision: float32, bfloat16 (autocast), or auto (bfloat16 on CUDA, else float32)"
    )
    device: str = Field(default="auto", description="device to train on: auto, cpu, cuda or cuda:N")
    threads: int | None = Field(
        default=None, ge=1, le=4096, description="CPU threads per run; null: the machine's cores divided by --jobs"
    )
    checkpoint_every: int = Field(
        default=200, ge=1, description="steps between checkpoints that --resume can continue from"
    )
    keep_state: bool | None = Field(
        default=None,
        description="keep a finished run's last optimizer state, so that --resume can add steps; null: up to 500 MB",
    )
    log_every: int = Field(default=20, ge=1, description="steps between lines of metrics.jsonl")

    @field_validator("betas")
    @classmethod
    def _below_one(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas {betas} must be at least 0 and below 1")
        return betas

    @model_validator(mode="after")
    def _parts_of_a_batch(self) -> TrainingConfig:
        if self.accumulate > self.batch:
            raise ValueError(f"accumulate {self.accumulate} is above batch {self.batch}; lower accumulate")
        if self.value_dtype == "bfloat16" and self.value_optimizer == "dense":
            raise ValueError(
                "value_dtype bfloat16 loses small updates with the dense optimizer; set value_optimizer to sparse"
            )
        return self


class MatchConfig(StrictModel):
    """Matching: resizes the models of a sweep to equal FLOPs or parameters, for a fair comparison."""

    by: Literal["none", "flops", "parameters"] = Field(
        default="none",
        description="flops: match the FLOPs per token of the dense base; parameters: those of the first run; none: off",
    )
    times: float = Field(default=1.0, gt=0, description="factor on the target, e.g. 2 for twice the FLOPs")
    resize: Literal["feed_forward", "width"] = Field(
        default="feed_forward",
        description="by flops: resize the feed_forward layers, or first the width of the whole model",
    )


class TrainConfig(StrictModel):
    """A whole training run, or a sweep of runs."""

    name: RunName = Field(default="run", description="first part of the run folder's name")
    about: str = Field(default="", description="one-line summary, shown by `memx presets`")
    experiment: str = Field(default="", description="name of the sweep that a run belongs to; set by memx")
    variant: str = Field(default="", description="name of the run's variant; set by memx")
    seed: int = Field(default=0, ge=0, lt=2**31, description="random seed for weight initialisation and data order")
    model: ModelConfig = ModelConfig()
    memory: MemoryConfig = MemoryConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    text: TextConfig = TextConfig()
    corpus: CorpusConfig = CorpusConfig()
    eviction: TrainEvictionConfig = TrainEvictionConfig()
    parallel: ParallelConfig = ParallelConfig()
    match: MatchConfig = MatchConfig()
    sweep: Sweep = Field(default={}, description="dotted key -> list of values; trains one run per combination")
    variants: Variants = Field(
        default={}, description="name -> dotted keys and values; trains each variant at every point of the sweep"
    )

    @property
    def on_facts(self) -> bool:
        """Whether facts are trained on, and not a corpus or prompts whose cache is evicted."""
        return not self.corpus.sources and not self.eviction.active

    @property
    def part_steps(self) -> int:
        """Training steps of each part of the facts (`finetune.parts`), or of the whole run."""
        return self.training.steps // (self.finetune.parts or 1)

    @model_validator(mode="after")
    def _fits(self) -> TrainConfig:
        check_varied(self.sweep, self.variants)
        check_eviction(
            self.eviction,
            source=self.finetune.source,
            train=self.finetune.train,
            corpus=bool(self.corpus.sources),
            parts=self.training.accumulate,
            text=self.text.source is not None,
        )
        for part in self.memory.parts:
            if part.insertion == "beside" and part.kind in ("peer", "moe"):
                raise ValueError(
                    f"memory.kind {part.kind} can only replace the feed-forward; set memory.insertion to replace"
                )
        if self.finetune.source is not None and self.memory.sparse is not None:
            raise ValueError("memory.sparse is for new models; for a pretrained one set slots and experts")
        if self.finetune.source is None:
            if self.data.sequence > (context := self.model.context):
                raise ValueError(
                    f"data.sequence {self.data.sequence} is longer than model.context {context}; raise model.context"
                )
            self._memory_fits(self.model.width, self.model.layers)
            if self.finetune.train != "all":
                raise ValueError(
                    f"finetune.train {self.finetune.train} needs a pretrained model; add --init-from MODEL"
                )
        elif self.match.by != "none":
            raise ValueError("match.by cannot resize a pretrained model; remove --init-from, or set match.by to none")
        # a run that is matched keeps its factor and says `by: none`, and its own config must load again
        matched = bool(self.experiment) or (self.match.by == "none" and "by" in self.match.model_fields_set)
        if not matched and self.match.by != "flops" and self.match.resize == "width":
            raise ValueError("match.resize width needs match.by flops; set match.by to flops")
        if not (matched or self.variants) and self.match.by == "none" and self.match.times != 1:
            raise ValueError("match.times needs match.by; set match.by to flops or parameters")
        check_finetuning(self.finetune, self.text, self.training.value_dtype)
        check_parts(self.finetune, bool(self.evaluation.known), self.training.steps, self.on_facts)
        return self

    def _memory_fits(self, width: int, blocks: int) -> None:
        replaced: list[int] = []
        for number, part in enumerate(self.memory.parts):
            key = f"memory.also.{number - 1}.layers" if number else "memory.layers"
            if part.key_width is None and part.kind in PRODUCT_KEYS and width % 4:
                raise ValueError(f"memory.key_width has no default for model.width {width}; set it to an even number")
            try:
                placed = part.placed_layers(blocks)
                if part.kind == "ultramem":
                    check_rank(part.rank, part.key_width or width // 2)
            except MemxError as error:
                raise ValueError(f"memory: {error.message}; {error.hint}") from None
            outside = [i for i in placed if not 0 <= i < blocks]
            if outside:
                raise ValueError(
                    f"{key} {outside} are outside the model's blocks 0..{blocks - 1}; choose from 0 to {blocks - 1}"
                )
            replaced += placed if part.insertion == "replace" else ()
        if twice := sorted({block for block in replaced if replaced.count(block) > 1}):
            raise ValueError(f"two memories replace the feed-forward of blocks {twice}; give one of them other layers")
