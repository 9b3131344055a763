"""Evolution of a parameter vector with CMA-ES: candidates out, their fitness in; the distribution's mean is the answer.

Larger fitness is better. What happens depends on the settings and on the fitness alone: not on who evaluates, nor on
what else draws random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from math import isfinite

import numpy as np
from numpy.typing import ArrayLike

from ...errors import MemxError
from .cma_state import Array, Covariance, Settings, StepSize, Strategy
from .history import BestVector, Generation, State, Validation, Vector, take

Fitness = Callable[[Vector, int], ArrayLike]  # candidates [population, n] and the generation's number -> [population]
TPA_FROM = 300  # parameters


class Evolution:
    """CMA-ES over a vector of parameters; larger fitness is better.

    The same seed and fitness give the same result, whatever else draws random numbers.

    Source: Hansen 2016, "The CMA Evolution Strategy: A Tutorial" (arXiv 1604.00772); step sizes as in pycma.

    Args:
        n: Number of parameters, at least 2; 4,172 for a NAMM.
        population: Candidates per generation, at least 4.
        sigma: Initial step size.
        mean: Initial mean [n]. None: zeros, for which a NAMM keeps every token.
        seed: Random seed, at least 0.
        covariance: "diagonal" learns one scale per parameter. "full" learns all covariances; with thousands of
            parameters that needs many thousands of generations.
        step_size: "tpa" (two-point adaptation) compares two candidates along the last step. "csa" uses the cumulative
            path, which is slow to shrink a step size with many parameters. None: "tpa" from 300 parameters.
        eigen_every: "full" only: generations between eigendecompositions. None: chosen from `n`.

    Attributes:
        generation: Number of generations done.
        stage: Number of the current stage, from 0.
        began: Number of generations done before this stage.
        history: One `Generation` per generation: number, stage, best, mean and std of the fitness, step size.
        validations: One `Validation` per validation: generation, stage, fitness.
        validated: The mean with the best validation fitness in this stage.
        best: The candidate with the best fitness in its generation. It was partly lucky, so it is not the result.
        stopped: Names of the CMA-ES stop conditions that hold.
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
        """The mean of the distribution [n]: the result of evolution so far."""
        return np.array(self._strategy.es.mean, dtype=float)

    @property
    def sigma(self) -> float:
        """The current step size."""
        return float(self._strategy.es.sigma)

    def step(self, fitness: Fitness, *, most_sigma: float | None = None) -> Generation:
        """Run one generation: `ask`, evaluate, `tell`. After an exception the same candidates are returned again.

        Args:
            fitness: Function of candidates [population, n] and the generation's number; returns [population].
            most_sigma: As for `tell`.

        Returns:
            The generation's number, stage, best, mean and std of the fitness, and the step size.
        """
        self.tell(fitness(self.ask(), self.generation), most_sigma=most_sigma)
        return self.history[-1]

    def ask(self) -> Vector:
        """Return the candidates [population, n] of this generation; the same ones until `tell`."""
        if self._asked is None:
            # the state of before: a run that is killed between ask and tell draws the same candidates again
            before = self.state()
            self._asked = before, self._strategy.ask()
        return np.array(self._asked[1], dtype=float)

    def tell(self, fitness: ArrayLike, *, most_sigma: float | None = None) -> None:
        """Update the distribution with the fitness of the candidates.

        Args:
            fitness: Fitness [population] of the candidates of `ask`, in their order.
            most_sigma: The largest step size of the next generation. None: what CMA-ES adapts it to.

        Raises:
            MemxError: A fitness is not finite; the distribution is then unchanged.
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
        if most_sigma is not None:
            self._strategy.es.sigma = np.float64(min(self.sigma, most_sigma))
        self.stopped = self._strategy.stops()
        self._asked = None
        top = int(values.argmax())
        if self.best is None or values[top] > self.best.fitness:
            self.best = BestVector(np.array(candidates[top]), float(values[top]), self.generation)
        figures = float(values.max()), float(values.mean()), float(values.std())
        self.history.append(Generation(self.generation, self.stage, *figures, self.sigma))
        self.generation += 1

    def record_validation(self, fitness: float) -> bool:
        """Record the validation fitness of the current mean.

        Args:
            fitness: The validation fitness.

        Returns:
            Whether it is the best of this stage.

        Raises:
            MemxError: The fitness is not finite.
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
        """Start a stage with other tasks from the current state.

        The best mean and candidate are reset, because fitness on other tasks cannot be compared.

        Args:
            sigma: Step size of the new stage. None: keep the current one.
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
        """Return the whole state, for saving; between `ask` and `tell` it is the state before `ask`."""
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
        history = take(arrays, "history", (None, len(Generation._fields)))
        made.history = [Generation(int(a), int(b), *row) for a, b, *row in history.tolist()]
        validations = take(arrays, "validations", (None, len(Validation._fields)))
        made.validations = [Validation(int(a), int(b), row) for a, b, row in validations.tolist()]
        for name in ("validated", "best"):
            if rest[name] is not None:
                setattr(made, name, BestVector(take(arrays, name, (made.settings.n,)), **rest[name]))
        made.generation, made.stage, made.began = rest["generation"], rest["stage"], rest["began"]
        made.stopped = tuple(rest["stopped"])
        made._strategy.restore({name.removeprefix("cma."): array for name, array in arrays.items()})
        made._strategy.rng.bit_generator.state = rest["rng"]
        return made
