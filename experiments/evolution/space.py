"""The search space of an evolution: a vector x that CMA-ES draws <-> the parameters of a NAMM.

P candidates, d coordinates of x, n parameters, i input features, L layers and H key-value heads of the base model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from ...namm.evolution.history import Vector
from ...namm.policies.network import Namm
from ...namm.policies.scorer import count
from ..config.eviction.evolution import SearchSpace

# what a coordinate of 1 changes; sigma is a multiple of these
FACTOR = 0.15  # of an input's factor, which begins at 1
LAST = 0.15  # of a number of the last layer, as a share of the root mean square of that layer's weights
BIAS = 0.5  # of the bias of a head's scores


class Space(ABC):
    """A search space around a NAMM's initial parameters.

    Attributes:
        size: number d of coordinates.
    """

    size: int

    @abstractmethod
    def start(self) -> Vector:
        """The coordinates [d] of the initial parameters."""

    @abstractmethod
    def parameters(self, x: Vector) -> Vector:
        """The parameters [P, n] of candidates x [P, d], float64."""


class AllParameters(Space):
    """Every parameter is a coordinate: x is the parameters."""

    def __init__(self, namm: Namm) -> None:
        self.size, self._initial = len(namm.parameters), namm.parameters

    def start(self) -> Vector:
        """The initial parameters [n]."""
        return self._initial.double().numpy()

    def parameters(self, x: Vector) -> Vector:
        """The same numbers."""
        return x


class FewParameters(Space):
    """Few numbers around the initial parameters, to which x = 0 leads: d = i + m + L * H.

    Each coordinate has a step of its own, so that one sigma serves all of them. In this order:

    - a factor 1 + 0.15 x for each of the i input features, on the weights that the first layer gives it;
    - 0.15 r x added to each of the m weights and biases of the last layer, r the root mean square of its weights;
    - 0.5 x added to the bias of each of the L * H heads.

    Embeddings of heads and all other weights stay. A network of a single layer has no factors, which would move the
    weights of its last layer twice; a NAMM without biases of heads ends with the last layer.

    Args:
        namm: The NAMM with its initial parameters.
    """

    def __init__(self, namm: Namm) -> None:
        self._initial = namm.parameters.double().numpy()
        coordinates = np.full(len(self._initial), -1)  # of each parameter; -1: it stays
        steps = np.zeros(len(self._initial))
        sizes, features = namm.sizes, namm.feature_set.inputs
        last, table = count(sizes[:-1]), count(sizes)  # where they begin
        size = 0
        if last > 0:  # more layers than the last one
            outputs = sizes[0][1]
            first = slice(0, features * outputs)  # in x out: the weights of one input lie together
            coordinates[first] = np.repeat(np.arange(features), outputs)
            steps[first] = FACTOR * self._initial[first]
            size = features
        inputs, outputs = sizes[-1]
        weights = self._initial[last : last + inputs * outputs]
        size = _add(coordinates, steps, slice(last, table), size, LAST * float(np.sqrt(np.square(weights).mean())))
        if namm.table is not None and namm.table.bias:
            biases = slice(table, table + namm.table.layers * namm.table.heads)
            size = _add(coordinates, steps, biases, size, BIAS)
        self.size = size
        self._moved = np.flatnonzero(coordinates >= 0)
        self._coordinates, self._steps = coordinates[self._moved], steps[self._moved]

    def start(self) -> Vector:
        """Zeros [d]."""
        return np.zeros(self.size)

    def parameters(self, x: Vector) -> Vector:
        """The initial parameters, with those that are evolved moved: [P, n]."""
        found = np.repeat(self._initial[None], len(x), axis=0)
        found[:, self._moved] += self._steps * x[:, self._coordinates]
        return found


def _add(coordinates: NDArray[np.int_], steps: Vector, own: slice, first: int, step: float) -> int:
    """Give each parameter of a part its own coordinate, numbered from `first`; the number of the next one."""
    after = first + own.stop - own.start
    coordinates[own] = np.arange(first, after)
    steps[own] = step
    return after


def search_space(kind: SearchSpace, namm: Namm) -> Space:
    """The search space of a config around the initial parameters of a NAMM."""
    return AllParameters(namm) if kind == "all" else FewParameters(namm)
