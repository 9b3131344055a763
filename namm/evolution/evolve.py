"""The evolution run: generations, validation of the mean, early stopping and saving -> the mean that validated best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi
from os import PathLike
from time import perf_counter

from .files import save_evolution
from .history import Vector
from .search import Evolution, Fitness


@dataclass(frozen=True)
class Outcome:
    """The result of a stage of evolution.

    Attributes:
        mean: The best parameters [n]: the mean with the best validation fitness, or the last mean without validation.
        validation: Validation fitness of `mean`. None without validation.
        generation: Number of generations after which this was the mean.
        reason: Why evolution stopped: "generations", "patience", or names of CMA-ES stop conditions joined by commas,
            such as "tolx" (steps have become too small).
    """

    mean: Vector
    validation: float | None
    generation: int
    reason: str

    @classmethod
    def of(cls, evolution: Evolution, reason: str) -> Outcome:
        """The outcome of a stage that is over: the mean that validated best, or the last one without validation."""
        best = evolution.validated
        if best is None:
            return cls(evolution.mean, None, evolution.generation, reason)
        return cls(best.vector, best.fitness, best.generation, reason)


@dataclass(frozen=True)
class GenerationDone:
    """After `generation` generations: fitness of the last one's candidates, the step size after it, its seconds."""

    generation: int
    stage: int
    best: float
    mean: float
    std: float
    sigma: float
    seconds: float


@dataclass(frozen=True)
class MeanValidated:
    """The mean after `generation` generations was validated. improved: it is the best so far."""

    generation: int
    stage: int
    fitness: float
    improved: bool


@dataclass(frozen=True)
class StageEnded:
    """No more is done in this stage; reason: as in `Outcome`."""

    generation: int
    stage: int
    reason: str


Event = GenerationDone | MeanValidated | StageEnded


def evolve(
    evolution: Evolution,
    fitness: Fitness,
    *,
    generations: int,
    validate: Callable[[Vector], float] | None = None,
    validate_every: int = 10,
    patience: int | None = None,
    sigma_end: float | None = None,
    on_event: Callable[[Event], None] | None = None,
    save: str | PathLike[str] | None = None,
) -> Outcome:
    """Run generations of CMA-ES until a stage has `generations` of them, and return the best mean.

    Earlier generations of the stage count, so a loaded evolution continues where it stopped.

    Source: Cetin et al. 2024, "An Evolved Universal Transformer Memory" (arXiv 2410.13166), section 4, evolves NAMMs
    with CMA-ES on tasks of increasing difficulty; a stage is one set of tasks.

    Args:
        evolution: The state of CMA-ES; it is changed in place.
        fitness: Function of the candidates [population, n], float64, and the generation's number, from 0. It returns
            [population] finite numbers; larger is better. The number may decide which prompts are used.
        generations: Generations of this stage.
        validate: Function of a mean [n] that returns its fitness on data that `fitness` does not use. It is called at
            the start of the stage, every `validate_every` generations, and at the end.
        validate_every: Generations between validations.
        patience: Stop after this number of validations in a row without improvement. None: do not stop early.
        sigma_end: Bound of the step size at the end of the stage, to which it falls from the first step size along a
            cosine; at most that. None: CMA-ES alone decides.
        on_event: Function that gets an event after each generation, after each validation and at the end.
        save: Folder for the state, written after each generation and validation. After an interruption,
            `evolve(load_evolution(save), ...)` with the same arguments gives the same result.

    Returns:
        The mean with the best validation fitness, or the last mean without validation.

    Raises:
        MemxError: A fitness is not finite. Exceptions of `fitness` and `validate` are passed on.

    Example:
        ```python
        import numpy as np
        from memx import namm


        def fitness(candidates, generation):  # of a NAMM: the likelihood of right answers, see the notebook
            return -np.square(candidates - 1).mean(1)


        evolution = namm.Evolution(n=20, population=8, sigma=0.3, seed=0)
        outcome = namm.evolve(evolution, fitness, generations=5)
        best = outcome.mean  # [20]
        ```
    """
    assert generations >= 0 and validate_every > 0, (generations, validate_every)
    assert sigma_end is None or 0 < sigma_end <= evolution.settings.sigma, sigma_end
    assert patience is None or (patience > 0 and validate is not None), "patience needs validation"

    def report(event: Event) -> None:
        if on_event is not None:
            on_event(event)

    def keep() -> None:
        if save is not None:
            save_evolution(evolution, save)

    while True:
        if validate is not None and validation_due(evolution, validate_every, generations):
            value = float(validate(evolution.mean))
            improved = evolution.record_validation(value)
            keep()
            report(MeanValidated(evolution.generation, evolution.stage, value, improved))
        reason = end_of_stage(evolution, generations, patience)
        if reason is not None:
            report(StageEnded(evolution.generation, evolution.stage, reason))
            return Outcome.of(evolution, reason)
        start = perf_counter()
        done = evolution.step(fitness, most_sigma=most_sigma(evolution, generations, sigma_end))
        keep()
        figures = done.best, done.mean, done.std, done.sigma
        report(GenerationDone(evolution.generation, evolution.stage, *figures, seconds=perf_counter() - start))


def most_sigma(evolution: Evolution, generations: int, sigma_end: float | None) -> float | None:
    """The largest step size after the next generation.

    Fitness on a few prompts is noisy, and with hundreds of parameters CMA-ES then hardly shrinks its step size, so that
    the mean keeps wandering. The bound falls along a cosine from the evolution's first step size to `sigma_end`.

    Args:
        evolution: An evolution before `tell`.
        generations: Of the stage.
        sigma_end: The bound at the end of the stage; None: there is none.

    Returns:
        What `Evolution.tell` takes.
    """
    if sigma_end is None:
        return None
    done = min(1.0, (evolution.generation + 1 - evolution.began) / generations)
    return sigma_end + (evolution.settings.sigma - sigma_end) * (1 + cos(pi * done)) / 2


def validation_due(evolution: Evolution, every: int, generations: int) -> bool:
    """Whether the mean is to be validated now: at the start of a stage, every so many of its generations, at its end.

    False for a mean that has been, so that a resumed run does not validate it again.
    """
    last = evolution.validations[-1] if evolution.validations else None
    if last is not None and (last.generation, last.stage) == (evolution.generation, evolution.stage):
        return False
    at_end = end_of_stage(evolution, generations, None) is not None
    return at_end or (evolution.generation - evolution.began) % every == 0


def end_of_stage(evolution: Evolution, generations: int, patience: int | None) -> str | None:
    """Why the stage is over, or None if it is not; see `Outcome.reason`."""
    if evolution.stopped:
        return ", ".join(evolution.stopped)
    if evolution.generation - evolution.began >= generations:
        return "generations"
    if patience is not None and evolution.validated is not None:
        best = evolution.validated.generation
        if sum(validation.generation > best for validation in evolution.validations) >= patience:
            return "patience"
    return None
