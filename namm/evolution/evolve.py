"""The evolution run: generations, validation of the mean, early stopping and saving -> the mean that validated best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from time import perf_counter

from .files import save_evolution
from .search import Evolution, Fitness, Vector


@dataclass(frozen=True)
class Outcome:
    """How a stage ended.

    Attributes:
        mean: The best parameters [n].
        validation: Their validation fitness, if there was any.
        generation: After how many generations they were the mean.
        reason: Why no more was done: "generations", "patience", or the stop conditions of CMA-ES that hold, such as
            "tolx" (the steps have shrunk to nothing), joined by commas.
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
    on_event: Callable[[Event], None] | None = None,
    save: str | PathLike[str] | None = None,
) -> Outcome:
    """Evolve until this stage has had so many generations, counting those that it had before.

    Args:
        evolution: Goes on from where it is.
        fitness: Gets candidates [population, n] and the generation's number, which decides the prompts; returns
            [population], larger is better.
        generations: Of this stage.
        validate: The fitness of a mean [n] on data that is not trained on; called at the start of the stage, every
            `validate_every` generations and at its end.
        validate_every: Generations between validations.
        patience: Stop after so many validations in a row that brought nothing better.
        on_event: Gets an event after each generation, after each validation, and at the end.
        save: A folder that gets the state after each generation and validation: after a failure or a kill
            `evolve(load_evolution(save), ...)` with the same arguments goes on to the same result.

    Returns:
        The mean for which `validate` was largest, or the last mean without it.

    Raises:
        MemxError: Fitness that is not finite. What fitness and validate raise is passed on.
    """
    assert generations >= 0 and validate_every > 0, (generations, validate_every)
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
        done = evolution.step(fitness)
        keep()
        figures = done.best, done.mean, done.std, done.sigma
        report(GenerationDone(evolution.generation, evolution.stage, *figures, seconds=perf_counter() - start))


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
