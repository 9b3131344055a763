"""The config of `memx train video`: clips, questions, the video model and its training. Frozen, and free of torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .base import RunName, StrictModel

KINDS = ("first", "last", "after", "count", "shown", "when", "list")
"""Kinds of question about a clip."""


class ClipConfig(StrictModel):
    """Clips: pictures of digits that hold still, move and change, and frames of other things between them."""

    frames: int = Field(default=48, ge=2, le=1024, description="frames of a clip")
    size: int = Field(default=32, ge=16, le=256, description="height and width of a frame in pixels")
    fewest: int = Field(default=2, ge=1, le=10, description="fewest different digits in a clip")
    most: int = Field(default=5, ge=1, le=10, description="most different digits in a clip")
    distractors: float = Field(
        default=0.5, ge=0, le=1, description="how often frames of other things come before a digit, and at the end"
    )
    questions: int = Field(default=10, ge=1, le=100, description="questions of a clip while training")

    @model_validator(mode="after")
    def _fits(self) -> ClipConfig:
        if self.fewest > self.most:
            raise ValueError(f"fewest {self.fewest} is above most {self.most}; lower clips.fewest")
        return self


class VideoModelConfig(StrictModel):
    """The video model: a CLIP-style vision tower, a pooling of its patches, and a Llama decoder."""

    width: int = Field(default=128, ge=8, description="width of the decoder")
    layers: int = Field(default=4, ge=1, description="layers of the decoder")
    heads: int = Field(default=4, ge=1, description="query heads of the decoder")
    kv_heads: int = Field(default=2, ge=1, description="key-value heads of the decoder")
    feed_forward: int = Field(default=384, ge=8, description="inner width of the decoder's feed-forward layers")
    patch: int = Field(default=8, ge=1, description="height and width of a patch of the vision tower in pixels")
    pool: int = Field(default=2, ge=1, description="patches a side that are averaged into one token")
    vision_width: int = Field(default=64, ge=8, description="width of the vision tower")
    vision_layers: int = Field(default=2, ge=1, description="layers of the vision tower")
    vision_heads: int = Field(default=4, ge=1, description="heads of the vision tower")

    @model_validator(mode="after")
    def _fits(self) -> VideoModelConfig:
        for whole, part in (("width", "heads"), ("heads", "kv_heads"), ("vision_width", "vision_heads")):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(f"{whole} {getattr(self, whole)} is no multiple of {part} {getattr(self, part)}")
        if self.width // self.heads % 2:
            raise ValueError(f"width {self.width} over heads {self.heads} is odd; rotary positions need an even number")
        return self


class VideoTrainingConfig(StrictModel):
    """Training: steps, batch size, learning rate, and the lengths of clips on the way."""

    steps: int = Field(default=2000, ge=1, description="number of training steps")
    batch: int = Field(default=16, ge=1, description="clips of a step; shorter clips come as so many more")
    lr: float = Field(default=1e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(default=0.05, ge=0, description="weight decay of matrices")
    warmup: int = Field(default=50, ge=0, description="linear warm-up in steps")
    final_lr: float = Field(default=0.05, ge=0, le=1, description="final learning rate as a share of the peak")
    clip: float = Field(default=1.0, gt=0, description="maximum gradient norm")
    lengths: dict[str, float] = Field(
        default={"4": 0.2, "12": 0.2},
        description="frames of clips -> share of the steps that have them, in this order; the rest have all frames",
    )
    device: str = Field(default="auto", description="device to train on: auto, cpu, cuda or cuda:N")
    threads: int | None = Field(
        default=None, ge=1, le=4096, description="CPU threads; null: the machine's cores divided by --jobs"
    )
    checkpoint_every: int = Field(default=200, ge=1, description="steps between checkpoints for --resume")
    log_every: int = Field(default=20, ge=1, description="steps between lines of metrics.jsonl")


class VideoConfig(StrictModel):
    """A whole run of `memx train video`."""

    trains: Literal["video"] = Field(default="video", description="what is trained: video, a video model")
    name: RunName = Field(default="video", description="first part of the run folder's name")
    about: str = Field(default="", description="one-line summary, shown by `memx presets`")
    seed: int = Field(default=0, ge=0, lt=2**31, description="random seed for weight initialisation and clips")
    clips: ClipConfig = ClipConfig()
    model: VideoModelConfig = VideoModelConfig()
    training: VideoTrainingConfig = VideoTrainingConfig()
