"""Evolution of a parameter vector with CMA-ES: candidates out, their fitness in; the distribution's mean is the answer.

Larger fitness is better. What happens depends on the settings and on the fitness alone: not on who evaluates, nor on
what else draws random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import MemxError
from .cma_state import Array, Covariance, Settings, StepSize, Strategy

Vector = NDArray[np.float64]
Fitness = Callable[[Vector, int], ArrayLike]  # candidates [population, n] and the generation's number -> [population]
TPA_FROM = 300  # parameters


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


class Evolution:
    """CMA-ES over a vector of parameters; larger fitness is better. Equal seeds and fitness give equal trajectories.

    Source: Hansen, "The CMA Evolution Strategy: A Tutorial" (arXiv 1604.00772); step sizes as in pycma.

    Args:
        n: Parameters, at least 2.
        population: Candidates of a generation, at least 4.
        sigma: The first step size.
        mean: Where it starts [n]; None: zeros, a NAMM that keeps everything.
        seed: 0 and above.
        covariance: "diagonal" learns a scale for each parameter, "full" all their products, which at thousands of
            parameters takes many thousand generations to learn anything.
        step_size: "tpa" compares two candidates on the line of the last step, "csa" is the cumulative path; None takes
            tpa from 300 parameters, where a path is slow to shrink a step that is too large.
        eigen_every: Generations between decompositions of a full covariance; None: as often as pays (25 apart at
            n = 4,172, where one takes a core 17 s).

    Attributes:
        generation: How many are done.
        stage: The number of the stage, from 0, and `began`: the generations before it.
        history: A `Generation` each.
        validations: A `Validation` each.
        validated: The mean that validated best in this stage.
        best: The candidate that was best in its generation: a lucky one, not the result.
        stopped: Names of CMA-ES's stop conditions that hold.
    """

    def __init__(
        self,
        n: int,
        *,
        population: int = 32,
        sigma: float = 0.065,
        mean: ArrayLike | None = None,
        seed: int = 0,
        covariance: Covariance = "diagonal",
        step_size: StepSize | None = None,
        eigen_every: int | None = None,
    ) -> None:
        step_size = step_size or ("tpa" if n >= TPA_FROM else "csa")
        self.settings = Settings(n, population, float(sigma), seed, covariance, step_size, eigen_every)
        start = np.zeros(n) if mean is None else np.asarray(mean, dtype=float)
        self._strategy = Strategy(self.settings, start)
        self._asked: tuple[State, list[Array]] | None = None
        self.generation = 0  # how many are done
        self.stage = 0
        self.began = 0  # generations before this stage
        self.history: list[Generation] = []
        self.validations: list[Validation] = []
        self.validated: BestVector | None = None
        self.best: BestVector | None = None
        self.stopped: tuple[str, ...] = ()

    @property
    def mean(self) -> Vector:
        """The distribution's mean [n]: the answer. `best` is a sample that was lucky in its generation."""
        return np.array(self._strategy.es.mean, dtype=float)

    @property
    def sigma(self) -> float:
        """The step size."""
        return float(self._strategy.es.sigma)

    def step(self, fitness: Fitness) -> Generation:
        """One generation: ask, evaluate, tell. If evaluation fails, the same candidates are asked again."""
        self.tell(fitness(self.ask(), self.generation))
        return self.history[-1]

    def ask(self) -> Vector:
        """The candidates [population, n] of this generation; the same ones until `tell`."""
        if self._asked is None:
            # the state of before: a run that is killed between ask and tell draws the same candidates again
            before = self.state()
            self._asked = before, self._strategy.ask()
        return np.array(self._asked[1], dtype=float)

    def tell(self, fitness: ArrayLike) -> None:
        """Learn from the fitness [population] of the candidates asked, in their order.

        Raises MemxError, and learns nothing, if one is not a finite number.
        """
        assert self._asked is not None, "ask first"
        values = np.asarray(fitness, dtype=float)
        assert values.shape == (self.settings.population,), (values.shape, self.settings.population)
        for index in np.flatnonzero(~np.isfinite(values))[:1]:
            raise MemxError(
                f"the fitness of candidate {index} in generation {self.generation} is {values[index]}",
                hint="return a finite number for every candidate; the model may have overflowed",
            )
        candidates = self._asked[1]
        self._strategy.tell(candidates, [-value for value in values.tolist()])
        self.stopped = self._strategy.stops()
        self._asked = None
        top = int(values.argmax())
        if self.best is None or values[top] > self.best.fitness:
            self.best = BestVector(np.array(candidates[top]), float(values[top]), self.generation)
        figures = float(values.max()), float(values.mean()), float(values.std())
        self.history.append(Generation(self.generation, self.stage, *figures, self.sigma))
        self.generation += 1

    def record_validation(self, fitness: float) -> bool:
        """Note the mean's fitness on validation data; whether it is this stage's best.

        Raises MemxError if it is not a finite number.
        """
        assert self._asked is None, "tell first"
        fitness = float(fitness)
        if not isfinite(fitness):
            raise MemxError(
                f"the validation fitness after {self.generation} generations is {fitness}",
                hint="return a finite number; the model may have overflowed",
            )
        self.validations.append(Validation(self.generation, self.stage, fitness))
        better = self.validated is None or fitness > self.validated.fitness
        if better:
            self.validated = BestVector(self.mean, fitness, self.generation)
        return better

    def next_stage(self, *, sigma: float | None = None) -> None:
        """Go on to other tasks from the whole state, at step size `sigma` if given.

        What was best is forgotten, as fitness on other tasks does not compare.
        """
        assert self._asked is None, "tell first"
        if sigma is not None:
            assert sigma > 0, sigma
            self._strategy.es.sigma = np.float64(sigma)
        self.stage += 1
        self.began = self.generation
        self.best = self.validated = None
        self.stopped = ()

    def state(self) -> State:
        """All of it, to be written or copied before going on; between ask and tell, as it was before ask."""
        if self._asked is not None:
            return self._asked[0]
        arrays = {f"cma.{name}": array for name, array in self._strategy.arrays().items()}
        arrays["history"] = np.array(self.history, dtype=float).reshape(-1, len(Generation._fields))
        arrays["validations"] = np.array(self.validations, dtype=float).reshape(-1, len(Validation._fields))
        rest = {
            "settings": asdict(self.settings),
            "rng": self._strategy.rng.bit_generator.state,
            "generation": self.generation,
            "stage": self.stage,
            "began": self.began,
            "stopped": list(self.stopped),
        }
        for name, vector in (("validated", self.validated), ("best", self.best)):
            rest[name] = None
            if vector is not None:
                arrays[name] = vector.vector
                rest[name] = {"fitness": vector.fitness, "generation": vector.generation}
        return State(arrays, rest)

    @classmethod
    def of_state(cls, state: State) -> Evolution:
        """The evolution that a state is of. Raises ValueError, KeyError or TypeError for what is none."""
        rest, arrays = state.rest, dict(state.arrays)
        made = cls(**rest["settings"])
        made.history = [Generation(int(a), int(b), *row) for a, b, *row in arrays.pop("history").tolist()]
        made.validations = [Validation(int(a), int(b), row) for a, b, row in arrays.pop("validations").tolist()]
        for name in ("validated", "best"):
            if rest[name] is not None:
                setattr(made, name, BestVector(arrays.pop(name), **rest[name]))
        made.generation, made.stage, made.began = rest["generation"], rest["stage"], rest["began"]
        made.stopped = tuple(rest["stopped"])
        made._strategy.restore({name.removeprefix("cma."): array for name, array in arrays.items()})
        made._strategy.rng.bit_generator.state = rest["rng"]
        return made
