"""Memory layers: product-key tables inside a transformer, their rivals, and the Llama-style model built of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .engram.layer import EngramLayer
    from .layer import MemoryLayer
    from .llama import MemoryLlamaForCausalLM
    from .llama_config import MemoryLlamaConfig
    from .moe import MoeLayer
    from .peer import PeerLayer
    from .tables.values import MemoryValues
    from .ultramem.layer import UltraMemLayer

_HOME = {
    "EngramLayer": ".engram.layer",
    "MemoryLayer": ".layer",
    "MemoryLlamaConfig": ".llama",
    "MemoryLlamaForCausalLM": ".llama",
    "MemoryValues": ".tables.values",
    "MoeLayer": ".moe",
    "PeerLayer": ".peer",
    "UltraMemLayer": ".ultramem.layer",
}
__all__ = [
    "EngramLayer",
    "MemoryLayer",
    "MemoryLlamaConfig",
    "MemoryLlamaForCausalLM",
    "MemoryValues",
    "MoeLayer",
    "PeerLayer",
    "UltraMemLayer",
]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
