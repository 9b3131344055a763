"""Optimiser steps that touch only the rows a batch read."""

from .op import OP, sparse_adam, sparse_sgd
from .reference import sparse_adam_reference
from .rounding import stochastic_round
from .state import TableState, WholeRows, make_state

__all__ = [
    "OP",
    "TableState",
    "WholeRows",
    "make_state",
    "sparse_adam",
    "sparse_adam_reference",
    "sparse_sgd",
    "stochastic_round",
]
