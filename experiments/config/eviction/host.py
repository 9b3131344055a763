"""The base model of an evolution or an evaluation: a section of their configs. Free of torch."""

from __future__ import annotations

from math import isfinite
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ....errors import shown
from ..base import StrictModel

ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional")  # of transformers


class HostConfig(StrictModel):
    """Base model: the model whose cache is evicted, given by name or by preset (exactly one)."""

    name: str | None = Field(
        default=None, description="base model: smollm2, gemma3-270m, a folder or a hub name; null: use preset"
    )
    preset: str | None = Field(
        default=None, description="`memx train` preset of the base model, trained first if needed; null: use name"
    )
    shape: str | None = Field(
        default=None, description="`memx train` preset of the same shape, for --dry-run without the hub; null: none"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="dtype of the base model's weights and computation: float32, bfloat16 or float16"
    )
    device: str = Field(default="auto", description="device to run on: auto, cpu, cuda or cuda:N")
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = Field(
        default=None, description="spread the layers over all devices, as accelerate's device_map; null: one device"
    )
    weights: Literal["int8"] | None = Field(
        default=None, description="int8: weights of linear layers in 8 bits, by torchao; null: as dtype says"
    )
    threads: int | None = Field(default=None, ge=1, le=4096, description="CPU threads; null: the machine's cores")
    rope: dict[str, str | float | list[float]] | None = Field(
        default=None,
        description="rotary scaling as in transformers, e.g. {rope_type: dynamic, factor: 2}; null: the model's own",
    )

    @field_validator("rope")
    @classmethod
    def _known_rope(cls, rope: dict[str, Any] | None) -> dict[str, Any] | None:
        if rope is None:
            return None
        if rope.get("rope_type") not in ROPE_TYPES:
            raise ValueError(f"rope_type {shown(rope.get('rope_type'))} is unknown; use {', '.join(ROPE_TYPES)}")
        for key, value in rope.items():
            numbers = value if isinstance(value, list) else [] if key == "rope_type" else [value]
            if not all(not isinstance(number, str) and isfinite(number) and number > 0 for number in numbers):
                raise ValueError(f"{shown(key)} must be a finite number above 0; change it")
        return rope

    @model_validator(mode="after")
    def _one_host(self) -> HostConfig:
        if (self.name is None) == (self.preset is None):
            raise ValueError("host.name and host.preset exclude each other; set one of them and the other to null")
        if self.device_map is not None and self.device != "auto":
            raise ValueError("host.device_map chooses the devices itself; set host.device to auto")
        if self.device_map is not None and self.weights is not None:
            raise ValueError("host.device_map and host.weights exclude each other; set one of them to null")
        return self
