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

_AUTO = "transformers.models.auto.modeling_auto"


def register_models() -> None:
    """Register now if transformers' Auto classes are loaded, else right after they are."""
    if _AUTO in sys.modules:
        import_module(".memory_layers.llama", __package__)
    elif not any(isinstance(finder, _AfterAuto) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterAuto())


class _AfterAuto(importlib.abc.MetaPathFinder):
    """Waits for the import of transformers' Auto classes, lets it happen, then registers."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _AUTO:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(importlib.abc.Loader):
    """Loads a module with its own loader, then registers memx's models."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        import_module(".memory_layers.llama", __package__)

    def __getattr__(self, name: str):
        return getattr(self.loader, name)
