"""Rows, run folders, tables and figures. Imports no torch and no other part of memx."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .store.rows import Row, read_rows
    from .store.runs import Run, RunStore

_HOME = {"Row": ".store.rows", "Run": ".store.runs", "RunStore": ".store.runs", "read_rows": ".store.rows"}
__all__ = ["Row", "Run", "RunStore", "read_rows"]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
