"""Config sections of finetuning: the pretrained model, ordinary text next to the facts, questions. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import StrictModel


class FinetuneConfig(StrictModel):
    """Finetuning: the pretrained model to start from and which of its weights are trained."""

    source: str | None = Field(
        default=None,
        description="pretrained model: smollm2, a folder or a hub name (Llama family); null: train from scratch",
    )
    train: Literal["all", "memory", "slots", "lora"] = Field(
        default="all",
        description="weights to train: all, memory (memory layers), slots (each step's top value rows) or lora",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="dtype of the frozen weights, float32 or bfloat16 (half the memory)"
    )
    spread: bool = Field(
        default=True, description="fit the queries of a new memory to the model's hidden states (whitening)"
    )
    rows: int = Field(default=500, ge=1, description="slots: value rows trained in each step, ranked by rows_by")
    rows_by: Literal["tfidf", "kl"] = Field(
        default="tfidf", description="slots: score of a row, tfidf or kl (share of the divergence from ordinary text)"
    )
    slots_optimizer: Literal["sgd", "adam"] = Field(
        default="sgd", description="slots: optimizer of the chosen value rows, sgd or adam"
    )
    reference: int = Field(
        default=64,
        ge=1,
        le=1_000_000,
        description="slots: batches of text from which the rows of common knowledge are counted",
    )
    rank: int = Field(default=16, ge=1, le=100_000, description="LoRA: rank r; alpha is 2 r")
    targets: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="LoRA: names of the linear layers to adapt",
    )
    parts: int | None = Field(
        default=None,
        ge=2,
        le=10_000,
        description="continual learning: parts of the facts, learned one after another; null: all at once",
    )


class TextConfig(StrictModel):
    """Ordinary text: measures the held-out loss before and after training, and can be mixed into training (replay)."""

    source: str | None = Field(
        default=None,
        description="python-docs, python-source, facts (memx's own), .txt or .jsonl files, several by commas; or null",
    )
    block: int = Field(default=256, ge=8, le=10_000_000, description="length of a text block in tokens")
    blocks: int = Field(
        default=40, ge=2, le=1_000_000, description="number of held-out blocks used to measure the loss"
    )
    held_out: float = Field(default=0.2, gt=0, lt=1, description="share of the documents held out from training")
    mix: int = Field(
        default=0, ge=0, le=1_000_000, description="text blocks added to each training step (replay); 0: none"
    )
    seed: int | None = Field(
        default=None, ge=0, lt=2**31, description="random seed for the held-out documents and blocks; null: data.seed"
    )


class EvaluationConfig(StrictModel):
    """Evaluation: how many questions are answered during and after training."""

    every: int | None = Field(default=200, ge=1, description="steps between evaluations; null: only at the end")
    questions: int = Field(default=200, ge=1, description="questions per split in evaluations during training")
    final_questions: int | None = Field(
        default=2000, ge=1, description="questions per split in the final evaluation; null: all"
    )
    batch: int = Field(default=256, ge=1, le=1_000_000, description="questions answered per batch")
    max_answer: int = Field(
        default=24,
        ge=1,
        le=10_000,
        description="longest generated answer in tokens; at least the longest trained answer, at most data.sequence",
    )
    known: tuple[str, ...] = Field(
        default=(),
        description="questions asked before training: fact tables (countries, elements, others) or .jsonl files",
    )
    known_as: Literal["completions", "questions"] = Field(
        default="completions",
        description="known: as completions of a text after two examples, or questions (for models of memx's facts)",
    )
    known_questions: int | None = Field(
        default=200, ge=1, description="of those answered before training, how many are asked again; null: all"
    )


def check_parts(finetune: FinetuneConfig, known: bool, steps: int, on_facts: bool) -> None:
    """Raise ValueError if facts cannot be learned in parts as asked.

    Args:
        finetune: With the parts.
        known: Whether questions on general knowledge are asked before training.
        steps: Of training, of all parts.
        on_facts: Whether facts are trained on.
    """
    if finetune.source is None and (finetune.parts or known):
        key = "finetune.parts" if finetune.parts else "evaluation.known"
        raise ValueError(f"{key} needs a pretrained model; add --init-from MODEL")
    if finetune.parts and not on_facts:
        raise ValueError("finetune.parts splits facts, and this run trains on none; set it to null")
    if finetune.parts and steps % finetune.parts:
        raise ValueError(
            f"training.steps {steps} is no multiple of finetune.parts {finetune.parts}; "
            "give each part the same number of steps"
        )


def check_finetuning(finetune: FinetuneConfig, text: TextConfig, value_dtype: str) -> None:
    """Raise ValueError for sections that do not go together, in words of a config; value_dtype: of the tables."""
    if finetune.dtype == "bfloat16" and finetune.train not in ("memory", "slots"):
        raise ValueError(
            f"finetune.dtype bfloat16 loses small updates with finetune.train {finetune.train}; "
            "train the memory only, or use float32"
        )
    if finetune.train == "slots" and text.source is None:
        raise ValueError("finetune.train slots needs text to find the common rows; use --set text.source=python-docs")
    if finetune.train == "slots" and value_dtype != "float32":
        raise ValueError("finetune.train slots needs a float32 value table; set training.value_dtype to float32")
    if finetune.train == "slots" and text.mix:
        raise ValueError("text.mix is not supported with finetune.train slots; set it to 0")
