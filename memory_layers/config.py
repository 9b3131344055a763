"""Configs of the model and its memory, free of torch: what `model:` and `memory:` in a YAML file may say."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..errors import MemxError
from .slots import check_top_k, half_keys


class ModelConfig(BaseModel):
    """The Llama 3 style base: its shape, the same for every point of a sweep."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int = Field(default=4, ge=1, description="transformer blocks")
    width: int = Field(default=64, ge=2, description="hidden size d")
    heads: int = Field(default=4, ge=1, description="query heads; width must be a multiple")
    kv_heads: int | None = Field(default=None, ge=1, description="key-value heads; none: as many as query heads")
    feed_forward: int | None = Field(
        default=None, ge=1, description="SwiGLU inner width; none: 8/3 of width, up to a multiple of 8"
    )
    rope_theta: float = Field(default=500_000.0, gt=0, description="rotary base")
    tie_embeddings: bool = Field(default=True, description="one matrix for the input and output embeddings")
    context: int = Field(default=256, ge=8, description="longest sequence in tokens")
    initializer_range: float | None = Field(
        default=None, gt=0, description="std of initial weights; none: 1/sqrt(width)"
    )

    @property
    def feed_forward_width(self) -> int:
        """The SwiGLU inner width in force."""
        return self.feed_forward or -(-8 * self.width // 24) * 8

    @model_validator(mode="after")
    def _divides(self) -> ModelConfig:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width {self.width} over {self.heads} heads is no even head width")
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        return self


class MemoryConfig(BaseModel):
    """The memory of a model. `slots: 0` and `kind: dense` both mean the plain feed-forward everywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["dense", "memory"] = Field(default="memory", description="dense, or memory (product keys)")
    slots: int = Field(default=16384, ge=0, description="table rows N, a square; 0 is the dense model")
    heads: int = Field(default=4, ge=1, description="query heads H of each memory layer")
    top_k: int = Field(default=32, ge=1, description="slots kept per head, at most the square root of slots")
    layers: tuple[int, ...] | None = Field(
        default=None, description="blocks whose feed-forward is a memory; none: the middle one"
    )
    key_width: int | None = Field(default=None, ge=2, description="d_k of both key halves; none: width/2")
    qk_norm: bool = Field(default=False, description="RMSNorm of query halves and half-keys")
    shared: bool = Field(default=True, description="one value table for all memory layers, or one for each")

    @model_validator(mode="before")
    @classmethod
    def _dense_has_no_slots(cls, data):
        if isinstance(data, dict):
            if data.get("kind") == "dense":
                return {**data, "slots": 0}
            if data.get("slots") == 0 and not isinstance(data.get("slots"), bool):
                return {**data, "kind": "dense"}
        return data

    @field_validator("key_width")
    @classmethod
    def _two_halves(cls, key_width: int | None) -> int | None:
        if key_width is not None and key_width % 2:
            raise ValueError(f"key_width {key_width} has no two halves; use an even number")
        return key_width

    @model_validator(mode="after")
    def _lookup_is_possible(self) -> MemoryConfig:
        if self.slots and self.layers == ():
            raise ValueError("layers is empty; a model without memory is slots: 0 or kind: dense")
        if self.slots:
            try:
                half_keys(self.slots)
                check_top_k(self.top_k, self.slots)
            except MemxError as error:
                raise ValueError(f"{error.message}; {error.hint}") from None
        return self

    def placed_layers(self, layers: int) -> tuple[int, ...]:
        """The blocks that hold a memory in a model of `layers` blocks: none if dense, the middle one by default."""
        if self.slots == 0:
            return ()
        return self.layers if self.layers is not None else (layers // 2,)
