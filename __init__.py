"""memx: two ways to give a transformer memory, trainable memory layers and evolved token eviction (NAMMs).

Names are handed out lazily, so that `import memx` costs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import MemxError
    from .memory_layers.layer import MemoryLayer, MemoryValues
    from .memory_layers.llama import MemoryLlamaConfig, MemoryLlamaForCausalLM

__version__ = "0.1.0"
__all__ = ["MemoryLayer", "MemoryLlamaConfig", "MemoryLlamaForCausalLM", "MemoryValues", "MemxError"]

_HOME = {
    "MemxError": ".errors",
    "MemoryLayer": ".memory_layers.layer",
    "MemoryValues": ".memory_layers.layer",
    "MemoryLlamaConfig": ".memory_layers.llama",
    "MemoryLlamaForCausalLM": ".memory_layers.llama",
}


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


if __name__ == "memx":  # and not when a tool imports a checkout by its folder's name
    import_module(".registration", __name__).register_models()
