"""Configs of the model and its memory, free of torch: the keys of `model:` and `memory:` in a YAML file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ..errors import MemxError
from ..strict_model import StrictModel
from .placement import centred, early
from .slots import check_orders, check_top_k, half_keys

Kind = Literal["dense", "memory", "memory+", "engram", "peer", "moe"]
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


class OneMemory(StrictModel):
    """One memory of a model: kind, size and place of its layers.

    `slots: 0` and `kind: dense` both mean a dense model without memory. The defaults of null keys depend on the kind;
    the properties give the values in force.
    """

    kind: Kind = Field(
        default="memory",
        description="dense, memory (product keys), memory+ (gated), engram (hashed n-grams), peer or moe",
    )
    slots: int = Field(
        default=16384,
        ge=0,
        description="rows N of the value table, a square number; engram: of each layer's, any number; 0: dense model",
    )
    heads: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="query heads H of each memory layer, or hash heads per n-gram order; null: 4, PEER and engram 8",
    )
    top_k: int | None = Field(
        default=None, ge=1, description="slots selected per head (k), at most sqrt(slots); null: 32, PEER 16"
    )
    layers: tuple[int, ...] | None = Field(
        default=None, description="blocks with a memory; null: `count` around the middle, engram: early, MoE: all"
    )
    count: int | None = Field(
        default=None, ge=1, le=1_000, description="number of memory layers; null: 1, memory+ 3, engram 2, MoE all"
    )
    stride: int | None = Field(
        default=None,
        ge=1,
        le=1_000,
        description="blocks between memory layers; null: 4, or 8 in models of 20 or more blocks",
    )
    insertion: Literal["replace", "beside"] = Field(
        default="replace",
        description="replace the feed-forward, or `beside`: added to it, zero at first; an engram is always beside",
    )
    key_width: int | None = Field(
        default=None,
        ge=2,
        le=1_000_000,
        description="width d_k of keys and queries (both halves), even; null: width / 2",
    )
    value_width: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="width d_v of value table rows; null: width, engram: width / rows that a token reads",
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
    ngrams: tuple[Annotated[int, Field(ge=1, le=8)], ...] = Field(
        default=(2, 3), description="engram: orders of the n-grams that are looked up, from 1 to 8"
    )
    hash_seed: int = Field(default=0, ge=0, lt=2**31, description="engram: random seed of the hash functions")
    signed_root: bool = Field(default=False, description="engram: signed square root of the gate's dot product")
    share: float | None = Field(
        default=None, ge=0, le=1, description="share of memory.sparse; null: what other memories leave, evenly"
    )
    convolution: bool = Field(default=False, description="engram: causal convolution of its output (4 taps, 3 apart)")

    @model_validator(mode="before")
    @classmethod
    def _what_kinds_fix(cls, data):
        if isinstance(data, dict):
            if data.get("kind") in ("dense", "moe"):
                return {**data, "slots": 0}
            if data.get("kind") == "engram" and data.get("slots") != 0:
                return {**data, "insertion": "beside"}
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
        try:
            check_orders(self.ngrams)
            if self.slots and self.kind != "engram":
                half_keys(self.slots)
                check_top_k(self.kept, self.slots)
        except MemxError as error:
            raise ValueError(f"{error.message}; {error.hint}") from None
        return self

    @property
    def query_heads(self) -> int:
        """H in force: query heads, or hash heads of each n-gram order."""
        return self.heads or (8 if self.kind in ("peer", "engram") else 4)

    @property
    def lookups(self) -> int:
        """Rows J that a token reads of each layer's table."""
        return self.query_heads * (len(self.ngrams) if self.kind == "engram" else self.kept)

    @property
    def kept(self) -> int:
        """k in force: slots kept per head."""
        return self.top_k or (16 if self.kind == "peer" else 32)

    @property
    def gated(self) -> bool:
        """Whether the output is W2(y * silu(W1 x))."""
        return self.kind not in ("peer", "engram") and (self.kind == "memory+" if self.gating is None else self.gating)

    @property
    def normed(self) -> bool:
        """Whether queries and keys are normalised."""
        return self.kind == "memory+" if self.qk_norm is None else self.qk_norm

    def placed_layers(self, blocks: int) -> tuple[int, ...]:
        """The blocks with this memory, `also` aside, in a model of `blocks` blocks. MemxError if they do not fit."""
        if self.kind == "dense":
            return ()
        if self.layers is not None:
            return tuple(sorted(set(self.layers)))
        if self.kind == "moe" and self.count is None:
            return tuple(range(blocks))
        if self.kind == "engram":
            return early(blocks, self.count or min(2, max(1, blocks - 1)))
        return centred(blocks, self.count or (3 if self.kind == "memory+" else 1), self.stride)


class MemoryConfig(OneMemory):
    """Memory: kind, size and place of the memory layers, or of a baseline (PEER, MoE, dense)."""

    sparse: int | None = Field(
        default=None,
        ge=0,
        description="sparse parameters of all memories, split by `share`: sets slots and experts; null: as given",
    )
    also: tuple[OneMemory, ...] = Field(
        default=(), description="further memories of the same model, each a section with the keys above"
    )

    @model_validator(mode="after")
    def _all_are_memories(self) -> MemoryConfig:
        if self.also and self.kind == "dense":
            raise ValueError("also needs a first memory; set kind and slots, or leave also out")
        if any(other.kind == "dense" for other in self.also):
            raise ValueError("also lists a dense memory; leave it out, or set its kind and slots")
        return self

    @property
    def parts(self) -> tuple[OneMemory, ...]:
        """All memories of the model: this one, then those of `also`."""
        return (self, *self.also)
