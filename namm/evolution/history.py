"""What an evolution has found so far, generation by generation, and all of it as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .cma_state import Array

Vector = NDArray[np.float64]


class Generation(NamedTuple):
    """One generation: its number from 0, its stage, its candidates' fitness, the step size after it."""

    number: int
    stage: int
    best: float
    mean: float
    std: float
    sigma: float


class Validation(NamedTuple):
    """The validation fitness of a mean, after so many generations."""

    generation: int
    stage: int
    fitness: float


@dataclass(frozen=True)
class BestVector:
    """A vector [n] and its fitness: of a mean on validation data, or of a sample in the generation that it was in."""

    vector: Vector
    fitness: float
    generation: int


@dataclass(frozen=True)
class State:
    """All of an evolution: arrays by name, and what JSON can hold."""

    arrays: dict[str, Array]
    rest: dict[str, Any]


def take(arrays: dict[str, Array], name: str, shape: tuple[int | None, ...]) -> Array:
    """Take an array out of those of a state.

    Args:
        arrays: The arrays; the one that is taken is removed.
        name: Its name.
        shape: Its shape; None stands for any length.

    Returns:
        The array.

    Raises:
        ValueError: It is missing, has another shape, is not float64, or contains values that are not finite.
    """
    if name not in arrays:
        raise ValueError(f"{name} is missing")
    array = arrays.pop(name)
    alike = len(array.shape) == len(shape) and all(
        wanted in (None, size) for size, wanted in zip(array.shape, shape, strict=True)
    )
    if not alike or array.dtype != np.float64:
        wanted = ["any" if size is None else size for size in shape]
        raise ValueError(f"{name} is {array.dtype} {list(array.shape)}, not float64 {wanted}".replace("'", ""))
    if not np.isfinite(array).all():
        raise ValueError(f"{name} contains values that are not finite")
    return array
