"""What all layers that look rows of a table up have in common: their tables, their slots, and who watches them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .values import MemoryValues


class TableLayer(nn.Module, ABC):
    """A layer that selects rows of a table for each token: product-key memories, PEER and n-gram memories.

    Attributes:
        slots: Rows N of its table, or of each of its tables.
        observe: Called with the slots [T, ...] of each lookup of T tokens, if set; for statistics of use.
    """

    slots: int

    def __init__(self) -> None:
        super().__init__()
        self.observe: Callable[[Tensor], object] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "observe": None}  # whoever watches a layer does not watch its copies

    @abstractmethod
    def tables(self) -> tuple[MemoryValues, ...]:
        """The tables that the slots are rows of, own or shared."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draw the layer's own weights; tables draw themselves."""
