"""Weighted sums of table rows, a bag of rows per token, and the gradient of the table."""

from .gradient import BagGradient, GradientMode, RowGradient, row_gradient
from .op import OP, embedding_bag
from .reference import embedding_bag_reference

__all__ = [
    "OP",
    "BagGradient",
    "GradientMode",
    "RowGradient",
    "embedding_bag",
    "embedding_bag_reference",
    "row_gradient",
]
