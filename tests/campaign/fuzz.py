"""Runs inputs by their numbers, one after another, and judges how each was met."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .forks import Ended, Running, start
from .inputs.draw import Input, input_of
from .rules import faults
from .slots import Slot

_IDLE = 5.0  # seconds of CPU of a command that waits


@dataclass(frozen=True)
class Verdict:
    """How an input was met, and which rules that broke."""

    input: Input
    ended: Ended
    faults: list[tuple[str, str]]


def run_inputs(
    numbers: Iterator[int],
    seed: int,
    root: Path,
    master: Path,
    *,
    only: str = "",
    run: Callable[[], None] | None = None,
    wall: float = 240.0,
) -> Iterator[Verdict]:
    """Run inputs.

    Args:
        numbers: Their numbers.
        seed: Of the campaign.
        root: A folder for the slots.
        master: The workspace.
        only: Words that name the one command to fuzz.
        run: What runs as the program; None: memx.
        wall: Seconds after which a command is killed.

    Yields:
        The verdict of each, as it ends.
    """
    slot = Slot(root / "slot", master)
    for number in numbers:
        given = input_of(number, seed, master, only)
        ended = _begin(given, slot, run, wall).wait()
        if ended.hung and ended.cpu < _IDLE and run is None:  # the machine may have been the one that stood still
            _judged(given, slot, ended)
            ended = _begin(given, slot, run, wall).wait()
        yield _judged(given, slot, ended)


def _begin(given: Input, slot: Slot, run: Callable[[], None] | None, wall: float) -> Running:
    given.prepare(slot.work)
    slot.first = slot.state()
    call = given.call
    surrounded = type(call)(
        call.arguments, {**slot.environment, **call.environment}, call.stdin, call.closed, call.full
    )
    return start(surrounded, slot.work, slot.printed, wall=wall, run=run)


def _judged(given: Input, slot: Slot, ended: Ended) -> Verdict:
    found = slot.changes()
    texts = [part for word in given.call.arguments for part in (word, word.rpartition("=")[2])]
    said = [*texts, *given.call.environment.values(), str(slot.work), str(slot.home)]
    told = faults(given.met, ended, found, said, given.call)
    if given.harm is not None or given.files:
        slot.heal([given.damaged, *given.files])
    slot.restore(found)
    return Verdict(given, ended, told)
