"""What a running command reports, one dataclass for each kind of event; a display prints them. No torch.

Events are plain data, so that a worker process can send them to its parent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """A line for the user.

    Attributes:
        text: The line.
        own: Whether it is about this rank alone, so that every rank shows its own.
        shared: Whether it is about what all runs of a sweep read, so that it is shown once.
    """

    text: str
    own: bool = False
    shared: bool = False


@dataclass(frozen=True)
class Phase:
    """What begins now and takes time. brief: worth a place on a progress bar, not a line in a log."""

    text: str
    brief: bool = False


@dataclass(frozen=True)
class Step:
    """A training step is done. loss: nats a token of this step; tokens_per_second: since the run began."""

    step: int
    steps: int
    loss: float
    tokens_per_second: float


@dataclass(frozen=True)
class Evaluation:
    """An evaluation during training: metrics by name, of each set of questions or of held-out text ("nll" alone)."""

    step: int
    scores: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Progress:
    """So many of the units of an evaluation are done. what: what the last was of; seconds: what one unit took."""

    done: int
    total: int
    what: str
    seconds: float


@dataclass(frozen=True)
class Position:
    """Where an evolution stands, after `generation` generations of all its stages.

    began: generations before this stage; generations: those that this stage has at most; stage: from 0, of `stages`.
    """

    generation: int
    began: int
    generations: int
    stage: int
    stages: int

    @property
    def done(self) -> int:
        """Generations of this stage that are done."""
        return self.generation - self.began


@dataclass(frozen=True)
class Generation:
    """A generation is done: fitness of its candidates, the step size after it, and the share of the cache kept."""

    position: Position
    best: float
    mean: float
    sigma: float
    kept: float
    seconds: float


@dataclass(frozen=True)
class Validation:
    """The mean was validated. improved: it is the best so far."""

    position: Position
    fitness: float
    kept: float
    improved: bool


@dataclass(frozen=True)
class Ended:
    """A stage of an evolution is over. reason: "generations", "patience" or stop conditions of CMA-ES."""

    position: Position
    reason: str


@dataclass(frozen=True)
class BaseModelTraining:
    """An event of training the base model that an evolution or evaluation needs first."""

    event: Event


Event = Note | Phase | Step | Evaluation | Progress | Generation | Validation | Ended | BaseModelTraining
Report = Callable[[Event], None]
SweepReport = Callable[[int, Event], None]  # with the index of the run in its sweep
