"""Loops over scattered rows in C, compiled on first use; torch's own ops stand in where there is no compiler."""

from .build import library
from .rows import adam, available, dots, lookup_backward, scatter

__all__ = ["adam", "available", "dots", "library", "lookup_backward", "scatter"]
