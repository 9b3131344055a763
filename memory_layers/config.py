"""Configs of the model and its memory, free of torch: what `model:` and `memory:` in a YAML file may say."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..errors import MemxError
from .placement import centred
from .slots import check_top_k, half_keys

Kind = Literal["dense", "memory", "memory+", "peer", "moe"]
PRODUCT_KEYS = ("memory", "memory+", "peer")  # the kinds that look slots up by product keys


class ModelConfig(BaseModel):
    """The Llama 3 style base: its shape, the same for every point of a sweep."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="", description="what rows and figures call the base; empty: llama-<layers>x<width>")
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
    def title(self) -> str:
        """The base's name in rows."""
        return self.name or f"llama-{self.layers}x{self.width}"

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
    """The memory of a model, or its rival. `slots: 0` and `kind: dense` both mean the plain feed-forward everywhere.

    What is none is decided by the kind; the properties say what is then in force.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = Field(
        default="memory", description="dense, memory (product keys), memory+ (gated, several layers), peer, moe"
    )
    slots: int = Field(default=16384, ge=0, description="table rows N (of PEER: experts), a square; 0 is dense")
    heads: int | None = Field(default=None, ge=1, description="query heads H of each memory layer; none: 4, PEER 8")
    top_k: int | None = Field(
        default=None, ge=1, description="slots kept per head, at most sqrt(slots); none: 32, PEER 16"
    )
    layers: tuple[int, ...] | None = Field(
        default=None, description="blocks with a memory; none: `count` of them centred; MoE: all"
    )
    count: int | None = Field(default=None, ge=1, description="memory layers; none: 1, memory+ 3")
    stride: int | None = Field(default=None, ge=1, description="blocks between them; none: 4, or 8 from 20 blocks on")
    insertion: Literal["replace", "beside"] = Field(
        default="replace", description="in place of the feed-forward, or beside it and silent at first"
    )
    key_width: int | None = Field(default=None, ge=2, description="d_k of both key halves; none: width/2")
    value_width: int | None = Field(default=None, ge=1, description="d_v of the table's rows; none: width")
    qk_norm: bool | None = Field(default=None, description="RMSNorm of query halves and half-keys; none: memory+ only")
    gating: bool | None = Field(default=None, description="W2(y * silu(W1 x)) in place of y; none: memory+ only")
    output_gate: bool = Field(default=False, description="scale the output of each token by sigmoid(w x)")
    shared: bool = Field(default=True, description="one value table for all memory layers, or one for each")
    experts: int = Field(default=16, ge=1, description="MoE: experts of each layer")
    experts_per_token: int = Field(default=1, ge=1, description="MoE: experts that a token is sent to")
    expert_width: int | None = Field(default=None, ge=1, description="MoE: inner width; none: the feed-forward's")
    balance: float = Field(default=0.01, ge=0, description="MoE: weight of the load-balance loss")

    @model_validator(mode="before")
    @classmethod
    def _dense_has_no_slots(cls, data):
        if isinstance(data, dict):
            if data.get("kind") in ("dense", "moe"):
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
        if self.kind != "dense" and self.layers == ():
            raise ValueError("layers is empty; a model without memory is slots: 0 or kind: dense")
        if self.kind == "moe" and self.experts_per_token > self.experts:
            raise ValueError(f"experts_per_token {self.experts_per_token} is more than the {self.experts} experts")
        if self.slots:
            try:
                half_keys(self.slots)
                check_top_k(self.kept, self.slots)
            except MemxError as error:
                raise ValueError(f"{error.message}; {error.hint}") from None
        return self

    @property
    def query_heads(self) -> int:
        """H in force."""
        return self.heads or (8 if self.kind == "peer" else 4)

    @property
    def kept(self) -> int:
        """k in force: slots kept per head."""
        return self.top_k or (16 if self.kind == "peer" else 32)

    @property
    def gated(self) -> bool:
        """Whether the output is W2(y * silu(W1 x))."""
        return self.kind != "peer" and (self.kind == "memory+" if self.gating is None else self.gating)

    @property
    def normed(self) -> bool:
        """Whether queries and keys are normalised."""
        return self.kind == "memory+" if self.qk_norm is None else self.qk_norm

    def placed_layers(self, blocks: int) -> tuple[int, ...]:
        """The blocks that hold a memory in a model of `blocks` blocks. Raises MemxError if they do not fit."""
        if self.kind == "dense":
            return ()
        if self.layers is not None:
            return tuple(sorted(set(self.layers)))
        if self.kind == "moe" and self.count is None:
            return tuple(range(blocks))
        return centred(blocks, self.count or (3 if self.kind == "memory+" else 1), self.stride)
