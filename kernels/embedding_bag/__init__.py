"""Weighted sums of table rows, a bag of rows per token."""

from .op import OP, embedding_bag
from .reference import embedding_bag_reference

__all__ = ["OP", "embedding_bag", "embedding_bag_reference"]
