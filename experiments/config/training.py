"""The config of a training run: what a preset or a YAML file may say. Frozen, and free of torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ...errors import MemxError
from ...memory_layers.config import MemoryConfig, ModelConfig
from .base import RunName, StrictModel
from .scale import CorpusConfig, ParallelConfig


class DataConfig(StrictModel):
    """Which facts, how they are rendered, and how they are packed."""

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


class TrainingConfig(StrictModel):
    """Steps, optimiser, schedule, precision."""

    steps: int = Field(default=1000, ge=1)
    batch: int = Field(
        default=512, ge=1, description="documents of facts, or rows of a corpus, per step, over all accumulated parts"
    )
    accumulate: int = Field(default=1, ge=1, description="parts a step is computed in, to save memory")
    lr: float = Field(default=3e-3, gt=0, description="peak learning rate of everything but the value table")
    value_lr: float = Field(default=1e-2, gt=0, description="peak learning rate of the value table")
    value_optimizer: Literal["auto", "dense", "sparse"] = Field(
        default="auto",
        description="sparse steps touched rows only; auto: if a step reads at most as many rows as exist",
    )
    value_second_moment: Literal["full", "row"] = Field(
        default="full", description="sparse: Adam's second moment per element, or one number per row"
    )
    value_moments: Literal["float32", "bfloat16"] = Field(default="float32", description="sparse: dtype of moments")
    value_dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="dtype of the value table; bfloat16 needs the sparse optimizer"
    )
    value_rounding: Literal["stochastic", "masters"] = Field(
        default="stochastic", description="how a bfloat16 table takes small steps: by chance, or with float32 masters"
    )
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
        if self.value_dtype == "bfloat16" and self.value_optimizer == "dense":
            raise ValueError("value_dtype bfloat16 would round small steps away; use value_optimizer sparse")
        return self


class EvaluationConfig(StrictModel):
    """Questions asked on the way and at the end."""

    every: int | None = Field(default=200, ge=1, description="steps between evaluations; none: only at the end")
    questions: int = Field(default=200, ge=1, description="per set, on the way")
    final_questions: int | None = Field(default=2000, ge=1, description="per set, at the end; none: all")
    batch: int = Field(default=256, ge=1, description="questions answered at once")
    max_answer: int = Field(default=24, ge=1, description="longest answer in tokens, if no taught one is longer")


class FinetuneConfig(StrictModel):
    """A pretrained start, and what of it is trained."""

    source: str | None = Field(
        default=None, description="smollm2, a folder, or a hub name of a Llama-family model; none: from scratch"
    )
    train: Literal["all", "memory", "slots", "lora"] = Field(
        default="all", description="all weights, the memory layers, the top value rows of each step, or LoRA"
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="what is not trained is held in; bfloat16 takes half the memory"
    )
    spread: bool = Field(
        default=True, description="fit the queries of a new memory to the model's hidden states, so that slots spread"
    )
    rows: int = Field(default=500, ge=1, description="slots: rows trained in each step, the best by TF-IDF")
    slots_optimizer: Literal["sgd", "adam"] = Field(default="sgd", description="slots: how the chosen rows are stepped")
    reference: int = Field(default=64, ge=1, description="slots: batches of text that say which rows are common")
    rank: int = Field(default=16, ge=1, description="LoRA: rank; its alpha is twice that")
    targets: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="LoRA: modules that it adapts",
    )


class TextConfig(StrictModel):
    """Ordinary text: its loss is measured before and after, and it may be mixed into training."""

    source: str | None = Field(
        default=None, description="python-docs, python-source, or a .txt or .jsonl file; none: no text"
    )
    block: int = Field(default=256, ge=8, description="tokens of a block of text")
    blocks: int = Field(default=40, ge=2, description="held-out blocks whose loss is measured")
    held_out: float = Field(default=0.2, gt=0, lt=1, description="share of the documents kept from training")
    mix: int = Field(default=0, ge=0, description="blocks of text added to each training step")


class MatchConfig(StrictModel):
    """Makes the points of a sweep cost the same, so that a comparison is fair."""

    by: Literal["none", "flops", "parameters"] = Field(
        default="none",
        description="flops: feed-forwards are sized until a token costs what the dense base costs; parameters: "
        "tables, experts or feed-forwards, until the total is that of the first point",
    )
    times: float = Field(default=1.0, gt=0, description="the target is this many times that")
    resize: Literal["feed_forward", "width"] = Field(
        default="feed_forward",
        description="flops: what meets the target. width: that of the whole model comes near it, with as many heads, "
        "and feed-forwards do the rest; the model keeps the name of its base in rows",
    )


class TrainConfig(StrictModel):
    """A whole training run, or a sweep of runs."""

    name: RunName = Field(default="run", description="first part of the run folder's name")
    about: str = Field(default="", description="one line, shown by `memx presets`")
    experiment: str = Field(default="", description="the sweep that a run is a point of; set by memx")
    variant: str = Field(default="", description="the variant that a run is; set by memx")
    seed: int = Field(default=0, ge=0, lt=2**31, description="draws initial weights and the order of the documents")
    model: ModelConfig = ModelConfig()
    memory: MemoryConfig = MemoryConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    text: TextConfig = TextConfig()
    corpus: CorpusConfig = CorpusConfig()
    parallel: ParallelConfig = ParallelConfig()
    match: MatchConfig = MatchConfig()
    sweep: dict[str, tuple[Any, ...]] = Field(
        default={}, description="dotted key -> values; one run for each combination"
    )
    variants: dict[str, dict[str, Any]] = Field(
        default={}, description="name -> dotted keys and values; one run for each, at each point of the sweep"
    )

    @model_validator(mode="after")
    def _fits(self) -> TrainConfig:
        empty = [key for key, values in self.sweep.items() if not values]
        if empty:
            raise ValueError(f"sweep.{empty[0]} has no values")
        if self.memory.insertion == "beside" and self.memory.kind in ("peer", "moe"):
            raise ValueError(f"memory.insertion: {self.memory.kind} only replaces a feed-forward")
        if self.finetune.source is None:
            if self.data.sequence > self.model.context:
                context = self.model.context
                raise ValueError(f"data.sequence {self.data.sequence} is longer than model.context {context}")
            self._memory_fits(self.model.width, self.model.layers)
            if self.finetune.train != "all":
                raise ValueError(f"finetune.train {self.finetune.train} needs a trained model; give --init-from")
        elif self.match.by != "none":
            raise ValueError("match.by: a pretrained start keeps its size; leave out --init-from, or match by none")
        if self.match.resize == "width" and self.match.by != "flops":
            raise ValueError("match.resize width is for match.by flops")
        if self.finetune.dtype == "bfloat16" and self.finetune.train not in ("memory", "slots"):
            raise ValueError(
                f"finetune.dtype bfloat16 would round small steps away with finetune.train {self.finetune.train}; "
                "train the memory alone, or use float32"
            )
        if self.finetune.train == "slots" and self.text.source is None:
            raise ValueError("finetune.train slots needs text to tell common rows; --set text.source=python-docs")
        if self.finetune.train == "slots" and self.training.value_dtype != "float32":
            raise ValueError("finetune.train slots: bfloat16 would round the rows that it must leave as they are")
        if self.finetune.train == "slots" and self.text.mix:
            raise ValueError("text.mix: with finetune.train slots the text tells which rows not to train; set it to 0")
        return self

    def _memory_fits(self, width: int, blocks: int) -> None:
        if self.memory.key_width is None and self.memory.slots and width % 4:
            raise ValueError(f"memory.key_width has no default for model.width {width}; set an even one")
        try:
            placed = self.memory.placed_layers(blocks)
        except MemxError as error:
            raise ValueError(f"memory: {error.message}; {error.hint}") from None
        outside = [i for i in placed if not 0 <= i < blocks]
        if outside:
            raise ValueError(f"memory.layers {outside} are outside the model's blocks 0..{blocks - 1}")
