"""Config sections of finetuning: the pretrained model, and ordinary text next to the facts. No torch here."""

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
        default=None, description="python-docs, python-source, facts (memx's own), a .txt or .jsonl file; null: no text"
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
