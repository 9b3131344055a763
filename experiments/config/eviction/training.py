"""The config section of cache-aware finetuning: a policy that evicts while the model trains. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ..base import StrictModel
from .tasks import TRAINING_TASKS, check_task


class TrainEvictionConfig(StrictModel):
    """Cache-aware finetuning: a policy evicts from prompts, and the model learns to answer from what is left."""

    namm: str | None = Field(
        default=None, description="NAMM that evicts: universal, another name or a folder; null: none"
    )
    policy: str | None = Field(default=None, description="policy that evicts in place of a NAMM, such as snapkv")
    budgets: tuple[float, ...] = Field(
        default=(1.0, 0.5, 0.25, 0.125),
        min_length=1,
        description="shares of the cache from which each prompt is answered; 1 is the full cache",
    )
    objective: Literal["answers", "distill"] = Field(
        default="distill",
        description="loss: the answer's likelihood, or distance to the start model's full cache (distill)",
    )
    through_context: bool = Field(
        default=True, description="train also through the keys and values that the context leaves in the cache"
    )
    tasks: tuple[str, ...] = Field(
        default=TRAINING_TASKS, min_length=1, description=f"families to train on: {', '.join(TRAINING_TASKS)}"
    )
    length: int = Field(default=512, ge=64, le=10_000_000, description="maximum prompt length in tokens")
    prompts: int = Field(default=32, ge=1, le=1_000_000, description="training prompts per family")
    validation: int = Field(
        default=4, ge=0, le=10_000, description="validation prompts per family, asked before and after; 0: none"
    )

    @property
    def active(self) -> bool:
        """Whether a policy evicts at all."""
        return self.namm is not None or self.policy is not None

    @field_validator("budgets")
    @classmethod
    def _shares(cls, budgets: tuple[float, ...]) -> tuple[float, ...]:
        for budget in budgets:
            if not 0 < budget <= 1:
                raise ValueError(f"budget {budget:g} is not a share of the cache; use e.g. 0.25")
        if len(set(budgets)) < len(budgets):
            raise ValueError("budgets has the same share twice; list each once")
        return budgets

    @model_validator(mode="after")
    def _known(self) -> TrainEvictionConfig:
        for task in self.tasks:
            check_task(task)
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError("tasks names a family twice; list each once")
        if self.namm is not None and self.policy is not None:
            raise ValueError("eviction.namm and eviction.policy exclude each other; set one of them")
        return self


def check_eviction(
    eviction: TrainEvictionConfig, *, source: str | None, train: str, corpus: bool, parts: int, text: bool
) -> None:
    """Raise ValueError for a run that cannot be trained under a policy.

    Args:
        eviction: The section.
        source: The pretrained model.
        train: Which of its weights are trained.
        corpus: Whether the run trains on a corpus.
        parts: Micro-batches of a step.
        text: Whether the loss on ordinary text is measured.
    """
    if not eviction.active:
        return
    if source is None:
        raise ValueError("eviction needs a pretrained model; add --init-from MODEL")
    if corpus:
        raise ValueError("eviction trains on prompts of its own; leave out the corpus")
    if train == "slots":
        raise ValueError("eviction is not supported with finetune.train slots; set it to lora, memory or all")
    if not (text or eviction.validation):
        raise ValueError(
            "eviction.validation 0 without text leaves nothing to measure; set it to 1, or set text.source"
        )
    if parts > 1:
        raise ValueError("with eviction each prompt is a micro-batch of its own; set training.accumulate to 1")
