"""Teach transformers' Auto classes memx's models as soon as both are imported, in either order, without importing
either: `import memx` alone stays free of torch.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

# The Auto classes that registration needs, what memx's model builds on, and what imports of other models pass through
# before them; each with the last name that it defines. Whichever is imported last tells.
_NEEDED = {
    "transformers.models.auto.modeling_auto": "AutoModelForCausalLM",
    "transformers.models.llama.modeling_llama": "LlamaForCausalLM",
    "transformers.modeling_layers": "GenericForTokenClassification",
}
_AUTO = next(iter(_NEEDED))


def register_models() -> None:
    """Register now if transformers' Auto classes are loaded, else right after they are."""
    if not _register_if_ready() and not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


def _register_if_ready() -> bool:
    """Register if the Auto classes are there and no needed module is half imported."""
    if not hasattr(sys.modules.get(_AUTO), _NEEDED[_AUTO]):
        return False
    if any(name in sys.modules and not hasattr(sys.modules[name], last) for name, last in _NEEDED.items()):
        return False
    import_module(".memory_layers.llama", __package__)
    return True


class _AfterImport(importlib.abc.MetaPathFinder):
    """Waits for the imports of the needed modules, lets each happen, then registers if it can."""

    def __init__(self) -> None:
        self.waiting = set(_NEEDED)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.waiting:
            return None
        self.waiting.discard(fullname)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(importlib.abc.Loader):
    """Loads a module with its own loader, then registers memx's models if it can."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        _register_if_ready()

    def __getattr__(self, name: str):
        return getattr(self.loader, name)
