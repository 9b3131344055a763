"""Memory layers: product-key tables inside a transformer, and the Llama-style language model built of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .layer import MemoryLayer, MemoryValues
    from .llama import MemoryLlamaConfig, MemoryLlamaForCausalLM

_HOME = {
    "MemoryLayer": ".layer",
    "MemoryValues": ".layer",
    "MemoryLlamaConfig": ".llama",
    "MemoryLlamaForCausalLM": ".llama",
}
__all__ = ["MemoryLayer", "MemoryLlamaConfig", "MemoryLlamaForCausalLM", "MemoryValues"]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
