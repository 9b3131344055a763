"""How models that read no text are trained: a section of their configs. No torch."""

from __future__ import annotations

from pydantic import Field

from ..base import StrictModel


class HostTrainingConfig(StrictModel):
    """Training: AdamW with linear warm-up and a cosine."""

    steps: int = Field(default=2000, ge=1, le=10_000_000, description="training steps")
    batch: int = Field(default=32, ge=1, le=100_000, description="episodes per step")
    lr: float = Field(default=1e-3, gt=0, description="peak learning rate")
    warmup: int = Field(default=100, ge=0, description="linear warm-up in steps")
    final_lr: float = Field(default=0.05, ge=0, le=1, description="final learning rate as a share of the peak")
    weight_decay: float = Field(default=1e-2, ge=0, description="weight decay of matrices")
    clip: float = Field(default=1.0, gt=0, description="maximum gradient norm")
    device: str = Field(default="cpu", description="device to train on: cpu, cuda or cuda:N")
    threads: int | None = Field(
        default=None, ge=1, le=4096, description="CPU threads per run; null: the machine's cores divided by --jobs"
    )
    checkpoint_every: int = Field(default=200, ge=1, description="steps between checkpoints for --resume")
    log_every: int = Field(default=20, ge=1, description="steps between lines of metrics.jsonl")
