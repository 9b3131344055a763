"""The config of the base model, free of torch: the keys of `model:` in a YAML file."""

from __future__ import annotations

from pydantic import Field, model_validator

from ..strict_model import StrictModel


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
