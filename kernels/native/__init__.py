"""Loops over scattered rows and attention in C, compiled on first use; without a compiler torch's own ops stand in."""

from .attention import log_sum_exp, spectrogram
from .backward_attention import backward_attention
from .build import library
from .ragged_attention import ragged_attention
from .rows import adam, available, dots, gather, lookup_backward, scatter

__all__ = [
    "adam",
    "available",
    "backward_attention",
    "dots",
    "gather",
    "library",
    "log_sum_exp",
    "lookup_backward",
    "ragged_attention",
    "scatter",
    "spectrogram",
]
