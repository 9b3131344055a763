"""All ops, in the order in which tests and `memx bench` take them."""

from __future__ import annotations

from .attention_spectrogram import OP as ATTENTION_SPECTROGRAM
from .bag_dot import OP as BAG_DOT
from .embedding_bag import OP as EMBEDDING_BAG
from .evict_gather import OP as EVICT_GATHER
from .op import Op
from .product_topk import OP as PRODUCT_TOPK
from .ragged_attention import OP as RAGGED_ATTENTION
from .sparse_adam import OP as SPARSE_ADAM

OPS: tuple[Op, ...] = (
    PRODUCT_TOPK,
    EMBEDDING_BAG,
    BAG_DOT,
    SPARSE_ADAM,
    ATTENTION_SPECTROGRAM,
    EVICT_GATHER,
    RAGGED_ATTENTION,
)
