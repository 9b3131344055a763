"""Compaction of what is stored by key: only the kept keys' rows, head by head."""

from .op import OP, evict_gather
from .reference import evict_gather_reference

__all__ = ["OP", "evict_gather", "evict_gather_reference"]
