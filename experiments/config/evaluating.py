"""Config section of what a training run is asked, during and after it. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import StrictModel


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
        description="known: texts to complete after two examples, or memx's own questions (for models of its facts)",
    )
    known_questions: int | None = Field(
        default=200, ge=1, description="of those answered before training, how many are asked again; null: all"
    )
