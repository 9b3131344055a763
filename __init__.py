"""Memory layers and evolved KV-cache eviction (NAMMs) for transformers.

Classes and the subpackages `memx.namm`, `memx.memory_layers` and `memx.results` are imported on first use, so
`import memx` alone does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:
    from . import memory_layers, namm, results
    from .errors import MemxError
    from .experiments.base_models.load import load_model
    from .memory_layers.engram.layer import EngramLayer
    from .memory_layers.layer import MemoryLayer
    from .memory_layers.llama import MemoryLlamaConfig, MemoryLlamaForCausalLM
    from .memory_layers.moe import MoeLayer
    from .memory_layers.peer import PeerLayer
    from .memory_layers.tables.values import MemoryValues
    from .memory_layers.ultramem.layer import UltraMemLayer

__all__ = [
    "EngramLayer",
    "MemoryLayer",
    "MemoryLlamaConfig",
    "MemoryLlamaForCausalLM",
    "MemoryValues",
    "MemxError",
    "MoeLayer",
    "PeerLayer",
    "UltraMemLayer",
    "__version__",
    "load_model",
    "memory_layers",
    "namm",
    "results",
]

_SUBPACKAGES = ("memory_layers", "namm", "results")

_HOME = {
    "MemxError": ".errors",
    "load_model": ".experiments.base_models.load",
    "EngramLayer": ".memory_layers.engram.layer",
    "MemoryLayer": ".memory_layers.layer",
    "PeerLayer": ".memory_layers.peer",
    "MoeLayer": ".memory_layers.moe",
    "UltraMemLayer": ".memory_layers.ultramem.layer",
    "MemoryValues": ".memory_layers.tables.values",
    "MemoryLlamaConfig": ".memory_layers.llama",
    "MemoryLlamaForCausalLM": ".memory_layers.llama",
}


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(_HOME[name], __name__), name)
    if name in _SUBPACKAGES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if __name__ == "memx":  # and not when a tool imports a checkout by its folder's name
    import_module(".registration", __name__).register_models()
