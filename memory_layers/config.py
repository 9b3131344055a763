"""Configs of the model and its memory, free of torch: the keys of `model:` and `memory:` in a YAML file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ..errors import MemxError
from ..strict_model import StrictModel
from .placement import centred
from .slots import check_top_k, half_keys

Kind = Literal["dense", "memory", "memory+", "peer", "moe"]
PRODUCT_KEYS = ("memory", "memory+", "peer")  # the kinds that look slots up by product keys


class ModelConfig(StrictModel):
    """Model: shape of the base model (Llama 3 style), shared by all points of a sweep."""

    name: str = Field(
        default="", description="name of the base model in rows and figures; empty: llama-<layers>x<width>"
    )
    layers: int = Field(default=4, ge=1, le=1_000, description="transformer blocks")
    width: int = Field(default=64, ge=2, le=1_000_000, description="hidden size d")
    heads: int = Field(
        default=4, ge=1, le=100_000, description="query heads; must divide the width into even head sizes"
    )
    kv_heads: int | None = Field(
        default=None, ge=1, le=100_000, description="key-value heads; null: as many as query heads"
    )
    feed_forward: int | None = Field(
        default=None,
        ge=1,
        le=2**24,
        description="inner width of SwiGLU; null: 8/3 of width, rounded up to a multiple of 8",
    )
    rope_theta: float = Field(
        default=500_000.0, ge=1, description="base frequency of the rotary embedding (RoPE theta)"
    )
    tie_embeddings: bool = Field(default=True, description="share one matrix between input and output embeddings")
    context: int = Field(default=256, ge=8, le=2**30, description="context length: longest sequence in tokens")
    initializer_range: float | None = Field(
        default=None, gt=0, le=1, description="standard deviation of initial weights; null: 1/sqrt(width)"
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
            raise ValueError(
                f"width {self.width} with {self.heads} heads gives no even head size; use a multiple of 2 * heads"
            )
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(
                f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}; set kv_heads to a divisor of heads"
            )
        return self


class MemoryConfig(StrictModel):
    """Memory: kind, size and place of the memory layers, or of a baseline (PEER, MoE, dense).

    `slots: 0` and `kind: dense` both mean a dense model without memory. The defaults of null keys depend on the kind;
    the properties give the values in force.
    """

    kind: Kind = Field(
        default="memory", description="dense, memory (product keys), memory+ (gated, several layers), peer or moe"
    )
    slots: int = Field(
        default=16384, ge=0, description="rows N of the value table (PEER: experts), a square number; 0: dense model"
    )
    heads: int | None = Field(
        default=None, ge=1, le=10_000, description="query heads H of each memory layer; null: 4, PEER 8"
    )
    top_k: int | None = Field(
        default=None, ge=1, description="slots selected per head (k), at most sqrt(slots); null: 32, PEER 16"
    )
    layers: tuple[int, ...] | None = Field(
        default=None, description="indices of blocks with a memory; null: `count` blocks around the middle, MoE: all"
    )
    count: int | None = Field(
        default=None, ge=1, le=1_000, description="number of memory layers; null: 1, memory+ 3, MoE all"
    )
    stride: int | None = Field(
        default=None,
        ge=1,
        le=1_000,
        description="blocks between memory layers; null: 4, or 8 in models of 20 or more blocks",
    )
    insertion: Literal["replace", "beside"] = Field(
        default="replace",
        description="replace the feed-forward, or `beside`: add the memory to its output (residual, zero at first)",
    )
    key_width: int | None = Field(
        default=None,
        ge=2,
        le=1_000_000,
        description="width d_k of keys and queries (both halves), even; null: width / 2",
    )
    value_width: int | None = Field(
        default=None, ge=1, le=1_000_000, description="width d_v of value table rows; null: width"
    )
    qk_norm: bool | None = Field(
        default=None, description="RMSNorm on query halves and half-keys; null: on for memory+ only"
    )
    gating: bool | None = Field(
        default=None, description="gate the output: W2(y * silu(W1 x)) instead of y; null: on for memory+ only"
    )
    output_gate: bool = Field(default=False, description="scale the output of each token by sigmoid(w x)")
    shared: bool = Field(
        default=True, description="share one value table among all memory layers; false: one per layer"
    )
    experts: int = Field(default=16, ge=1, le=2**24, description="MoE: experts per layer")
    experts_per_token: int = Field(default=1, ge=1, description="MoE: experts that each token is routed to")
    expert_width: int | None = Field(
        default=None, ge=1, le=2**24, description="MoE: inner width of an expert; null: the feed-forward width"
    )
    balance: float = Field(default=0.01, ge=0, description="MoE: weight of the load-balancing loss")

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
            raise ValueError(f"key_width {key_width} is odd; use an even number")
        return key_width

    @model_validator(mode="after")
    def _lookup_is_possible(self) -> MemoryConfig:
        if self.kind != "dense" and self.layers == ():
            raise ValueError("layers is empty; for a model without memory, set kind to dense")
        if self.kind == "moe" and self.experts_per_token > self.experts:
            raise ValueError(f"experts_per_token {self.experts_per_token} is above experts {self.experts}; lower it")
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
        """The blocks with a memory layer in a model of `blocks` blocks. Raises MemxError if they do not fit."""
        if self.kind == "dense":
            return ()
        if self.layers is not None:
            return tuple(sorted(set(self.layers)))
        if self.kind == "moe" and self.count is None:
            return tuple(range(blocks))
        return centred(blocks, self.count or (3 if self.kind == "memory+" else 1), self.stride)
