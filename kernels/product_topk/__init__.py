"""Product-key lookup: the k best of n*n slots from two lists of n half-keys."""

from .op import OP, product_topk
from .reference import product_topk_reference

__all__ = ["OP", "product_topk", "product_topk_reference"]
