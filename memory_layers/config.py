"""The config of a model's memories, free of torch: the keys of `memory:` in a YAML file."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..errors import MemxError
from ..strict_model import StrictModel
from .model_config import ModelConfig as ModelConfig
from .placement import centred, early
from .slots import check_orders, check_rank, check_top_k, check_virtual

Kind = Literal["dense", "memory", "memory+", "ultramem", "engram", "peer", "moe"]
PRODUCT_KEYS = ("memory", "memory+", "ultramem", "peer")  # the kinds that look slots up by product keys


class OneMemory(StrictModel):
    """One memory of a model: kind, size and place of its layers.

    `slots: 0` and `kind: dense` both mean a dense model without memory. The defaults of null keys depend on the kind;
    the properties give the values in force.
    """

    kind: Kind = Field(
        default="memory",
        description="dense, memory (product keys), memory+ (gated), ultramem, engram (hashed n-grams), peer or moe",
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
        description="query heads H of a layer, or hash heads per n-gram order; null: 4, ultramem 2, PEER and engram 8",
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
    place: Literal["centred", "every"] = Field(
        default="centred",
        description="every: in all blocks, with insertion `beside`; centred: as layers, count and stride say",
    )
    insertion: Literal["replace", "beside"] = Field(
        default="replace",
        description="replace the feed-forward, or `beside`: add to its output, zero at first; always so for engram",
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
        description="width d_v of value table rows; null: width, ultramem half of it, engram width / rows of a token",
    )
    qk_norm: bool | None = Field(
        default=None, description="RMSNorm on query halves and half-keys; null: on for memory+ and ultramem"
    )
    gating: bool | None = Field(
        default=None, description="gate the output: W2(y * silu(W1 x)) instead of y; null: on for memory+ only"
    )
    output_gate: bool = Field(default=False, description="scale the output of each token by sigmoid(w x)")
    scores: Literal["softmax", "none"] | None = Field(
        default=None, description="weights of selected rows: softmax of their scores, or none; null: none for ultramem"
    )
    output_init: Literal["published", "matched"] | None = Field(
        default=None,
        description="initial outputs: as published, or matched to a feed-forward's variance; null: ultramem matched",
    )
    rank: int = Field(default=2, ge=1, le=64, description="ultramem: rank r of the Tucker scores; 1: product keys")
    core_penalty: float = Field(default=1e-3, ge=0, description="ultramem: weight of the loss on the Tucker core")
    expansion: int | None = Field(
        default=None, ge=1, le=1024, description="ultramem: virtual tables E per value table; null: 4, units 1"
    )
    units: bool = Field(default=False, description="ultramem: values of one unit each, as in PEER; never shared")
    shared: bool = Field(default=True, description="share one value table among all layers; false: one per layer")
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
            every = data.get("place") == "every" and data.get("kind") != "peer"
            if (data.get("kind") == "engram" or every) and data.get("slots") != 0:
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
    def _lookup_is_possible(self) -> Self:
        if self.kind != "dense" and self.layers == ():
            raise ValueError("layers is empty; for a model without memory, set kind to dense")
        if self.kind == "ultramem" and self.gating:
            raise ValueError("gating is not supported with kind ultramem; leave it out")
        try:
            check_orders(self.ngrams)
            if self.slots and self.kind != "engram":
                check_virtual(self.slots, self.virtual_tables)
                check_top_k(self.kept, self.virtual_slots)
            if self.kind == "ultramem" and self.key_width is not None:
                check_rank(self.rank, self.key_width)
        except MemxError as error:
            raise ValueError(f"{error.message}; {error.hint}") from None
        return self

    @property
    def query_heads(self) -> int:
        """H in force: query heads, or hash heads of each n-gram order."""
        return self.heads or {"peer": 8, "engram": 8, "ultramem": 2}.get(self.kind, 4)

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
        own = self.kind not in ("peer", "engram", "ultramem")
        return own and (self.kind == "memory+" if self.gating is None else self.gating)

    @property
    def normed(self) -> bool:
        """Whether queries and keys are normalised."""
        return self.kind in ("memory+", "ultramem") if self.qk_norm is None else self.qk_norm

    @property
    def weights(self) -> Literal["softmax", "none"]:
        """How selected rows are weighted."""
        return self.scores or ("none" if self.kind == "ultramem" else "softmax")

    @property
    def matched(self) -> bool:
        """Whether the outputs start with the variance of a feed-forward's; else those that are added start at zero."""
        started = self.kind == "ultramem" and (self.insertion == "replace" or self.place == "every")
        return started if self.output_init is None else self.output_init == "matched"

    @property
    def virtual_tables(self) -> int:
        """E in force."""
        return 1 if self.kind != "ultramem" else self.expansion or (1 if self.units else 4)

    @property
    def virtual_slots(self) -> int:
        """Slots that are scored: rows of all virtual tables, a square number."""
        return self.virtual_tables * self.slots

    @property
    def whole_tables(self) -> bool:
        """Whether tables must be whole on the device, as those of units, which are not read by weighted sums alone."""
        return self.kind == "peer" or (self.kind == "ultramem" and self.units)

    @property
    def one_table(self) -> bool:
        """Whether all layers share one value table."""
        return self.shared and (self.kind in ("memory", "memory+") or (self.kind == "ultramem" and not self.units))

    def placed_layers(self, blocks: int) -> tuple[int, ...]:
        """The blocks with this memory, `also` aside, in a model of `blocks` blocks. MemxError if they do not fit."""
        if self.kind == "dense":
            return ()
        if self.place == "every":
            return tuple(range(blocks))
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
    shares: dict[str, float] = Field(
        default={}, description="shares of `sparse` by kind; set by memx when it has split a budget"
    )
    also: tuple[OneMemory, ...] = Field(
        default=(), description="further memories of the same model, each a section with the keys above"
    )

    @model_validator(mode="after")
    def _all_are_memories(self) -> Self:
        if self.sparse is None and any(part.share is not None for part in self.parts):
            raise ValueError("share needs memory.sparse, the number of parameters to split; set it, or leave share out")
        if self.also and self.kind == "dense":
            raise ValueError("also needs a first memory; set kind and slots, or leave also out")
        if any(other.kind == "dense" for other in self.also):
            raise ValueError("also lists a dense memory; leave it out, or set its kind and slots")
        for other in self.also if self.sparse is not None else ():
            name = "experts" if other.kind == "moe" else "slots"
            if getattr(other, name) != OneMemory.model_fields[name].default:
                raise ValueError(f"{name} in also does nothing with memory.sparse; leave one of them out")
        for part in self.parts if self.sparse is None else ():  # a budget sets the number of experts
            if part.kind == "moe" and part.experts_per_token > part.experts:
                raise ValueError(
                    f"experts_per_token {part.experts_per_token} is above experts {part.experts}; lower it"
                )
        return self

    @property
    def parts(self) -> tuple[OneMemory, ...]:
        """All memories of the model: this one, then those of `also`."""
        return (self, *self.also)
