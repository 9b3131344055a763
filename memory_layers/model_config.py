"""The config of the base model, keys of `model:` in YAML files, and the memories of a built model. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import Field, model_validator

from ..errors import MemxError
from ..strict_model import StrictModel

_PREFIX = "memory_"


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


class MemorySettings(NamedTuple):
    """One memory of a model: the fields `memory_*` of `MemoryLlamaConfig`, without the prefix."""

    layers: Sequence[int] = ()
    kind: str = "memory"
    slots: int = 0
    heads: int = 4
    top_k: int = 32
    key_width: int | None = None
    value_width: int | None = None
    qk_norm: bool = False
    gating: bool = False
    output_gate: bool = False
    shared: bool = True
    insertion: str = "replace"
    experts: int = 16
    experts_per_token: int = 1
    expert_width: int | None = None
    ngrams: Sequence[int] = (2, 3)
    hash_seed: int = 0
    signed_root: bool = False
    convolution: bool = False
    scores: str = "softmax"
    output_init: str = "published"
    rank: int = 2
    expansion: int = 4
    units: bool = False


def memories_of(config: Any) -> list[MemorySettings]:
    """The memories of a model: that of the fields `memory_*`, then those of `memory_also`.

    Args:
        config: A MemoryLlamaConfig, or any other config, which has none.

    Returns:
        Their settings; those without layers are left out.

    Raises:
        MemxError: `memory_also` has a field that does not exist.
    """
    first = {
        name: getattr(config, _PREFIX + name) for name in MemorySettings._fields if hasattr(config, _PREFIX + name)
    }
    found = []
    for settings in (first, *getattr(config, "memory_also", ())):
        if unknown := settings.keys() - set(MemorySettings._fields):
            raise MemxError(
                f"memory_also has no field {sorted(unknown)[0]!r}",
                hint=f"choose from {', '.join(MemorySettings._fields)}",
            )
        found.append(MemorySettings(**settings))
    return [one for one in found if one.layers]
