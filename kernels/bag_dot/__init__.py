"""Dot products of a token's vector with a bag of table rows: the transpose of `embedding_bag`."""

from .op import OP, bag_dot
from .reference import bag_dot_reference

__all__ = ["OP", "bag_dot", "bag_dot_reference"]
