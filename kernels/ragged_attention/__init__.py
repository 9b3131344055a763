"""Attention over keys and values that lie head by head, each head with as many as it keeps."""

from .op import OP, ragged_attention
from .reference import RaggedAttention, ragged_attention_reference

__all__ = ["OP", "RaggedAttention", "ragged_attention", "ragged_attention_reference"]
