"""The config of `memx train video`: clips, questions, the video model and its training. Frozen, and free of torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ..base import RunName, StrictModel
from .recipe import HostTrainingConfig

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

    width: int = Field(default=96, ge=8, description="width of the decoder")
    layers: int = Field(default=4, ge=1, description="layers of the decoder")
    heads: int = Field(default=4, ge=1, description="query heads of the decoder")
    kv_heads: int = Field(default=2, ge=1, description="key-value heads of the decoder")
    feed_forward: int = Field(default=192, ge=8, description="inner width of the decoder's feed-forward layers")
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


class VideoTrainingConfig(HostTrainingConfig):
    """Training: AdamW with linear warm-up and a cosine, on single frames, then on longer and longer clips."""

    steps: int = Field(default=1600, ge=1, le=10_000_000, description="training steps")
    batch: int = Field(default=8, ge=1, le=100_000, description="clips per step")
    frames: int = Field(default=96, ge=1, le=100_000, description="single frames per step, at first")
    lr: float = Field(default=3e-3, gt=0, description="peak learning rate")
    warmup: int = Field(default=30, ge=0, description="linear warm-up in steps")
    single: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="share of the steps, at first, in which the vision tower alone names the digit of a frame",
    )
    short: float = Field(default=0.4, ge=0, le=1, description="share of the steps, after those, that see short clips")
    short_frames: int = Field(default=8, ge=2, description="frames of a short clip")
    short_batch: int = Field(default=24, ge=1, le=100_000, description="short clips per step")
    naming: float = Field(
        default=1.0, ge=0, description="weight of the loss of naming the digit of each frame, added to that of answers"
    )

    @model_validator(mode="after")
    def _parts(self) -> VideoTrainingConfig:
        if self.single + self.short > 1:
            raise ValueError("single and short add up to more than 1; lower one of them")
        return self


class VideoEvaluationConfig(StrictModel):
    """Evaluation: questions about clips that are not trained on, here and in memx eval-namm --host."""

    units: int = Field(default=350, ge=1, le=1_000_000, description="questions, each about another clip")
    at_once: int = Field(default=50, ge=1, le=100_000, description="questions per batch")
    every: int = Field(default=48, ge=16, multiple_of=16, description="tokens between evictions, or pieces of a clip")
    mode: Literal["online", "post_hoc"] = Field(
        default="post_hoc", description="evict while the clip is read (online), or once after it, before the question"
    )


class VideoConfig(StrictModel):
    """A whole training run of a video model."""

    trains: Literal["video"] = Field(default="video", description="kind of model, always video")
    name: RunName = Field(default="video", description="first part of the run folder's name")
    about: str = Field(default="", description="one line on what this is")
    seed: int = Field(default=0, ge=0, lt=2**31, description="random seed for weight initialisation and clips")
    clips: ClipConfig = ClipConfig()
    model: VideoModelConfig = VideoModelConfig()
    training: VideoTrainingConfig = VideoTrainingConfig()
    evaluation: VideoEvaluationConfig = VideoEvaluationConfig()

    @model_validator(mode="after")
    def _whole_frames(self) -> VideoConfig:
        size, patch, pool = self.clips.size, self.model.patch, self.model.pool
        if size % (patch * pool):
            raise ValueError(f"clips.size {size} is no multiple of model.patch {patch} times model.pool {pool}")
        return self
