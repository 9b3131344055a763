"""What a host other than a language model offers an evaluation of eviction policies, and what it measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from ...namm.policies.base import Policy


class Count(NamedTuple):
    """How many pairs of keys and values a layer still holds, of how many that it has seen."""

    kept: int
    seen: int


@dataclass(frozen=True)
class Measured:
    """What a host did with one unit, an episode or a question, under one policy.

    Attributes:
        unit: The unit's number.
        scores: By metric, such as {"return": -310.2, "normalised": 71.0}; larger is better.
        held: Share of the pairs of keys and values held, at the end or when the question begins, in [0, 1].
        kv_bytes: Bytes of keys and values held then.
        layers: The same share of each layer.
        kinds: Of each kind of token, such as action or static frame, what each layer keeps.
    """

    unit: int
    scores: Mapping[str, float]
    held: float
    kv_bytes: int
    layers: Sequence[float]
    kinds: Mapping[str, Sequence[Count]] = field(default_factory=dict)

    def line(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> Measured:
        """From the JSON object that `line` gave. Raises KeyError or TypeError for another."""
        kinds = {kind: [Count(*count) for count in counts] for kind, counts in line["kinds"].items()}
        return cls(**{**line, "kinds": kinds})


class PolicyHost(Protocol):
    """A trained host on which eviction policies are compared.

    Attributes:
        kind: decision or video.
        unit: What is scored one by one, in the plural: episodes or questions.
        name: The model, as rows call it; the same for all seeds of one setting.
        seed: The seed that the host was trained with.
        metrics: Names of the scores of `Measured`; comparisons are made with the first.
        every: Tokens between evictions if nobody says otherwise, a multiple of 16.
        parameters: Of the model.
        device: Where it computes.
    """

    kind: str
    unit: str
    name: str
    seed: int
    metrics: tuple[str, ...]
    every: int
    parameters: int
    device: str

    def measure(self, policy: Policy | None, units: Sequence[int], check: Callable[[], None]) -> list[Measured]:
        """Run one batch of units.

        Args:
            policy: What evicts; None: the unmodified model with transformers' own cache.
            units: Numbers of units, from 0 on those that are reported, from `TRAINING_UNITS` on those of training and
                of the search for settings. The same number is the same episode or question each time.
            check: Called now and then; may raise to stop.

        Returns:
            What was measured of each unit, in their order.
        """
        ...


TRAINING_UNITS = 1_000_000  # units from here on are never reported
