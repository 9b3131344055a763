"""The spectrum of each cached key's attention: what a NAMM sees of the cache."""

from .lse import attention_lse
from .op import OP, attention_spectrogram
from .reference import BINS, CARRY, HOP, Spectrogram, attention_lse_reference, attention_spectrogram_reference

__all__ = [
    "BINS",
    "CARRY",
    "HOP",
    "OP",
    "Spectrogram",
    "attention_lse",
    "attention_lse_reference",
    "attention_spectrogram",
    "attention_spectrogram_reference",
]
