"""Runs inputs by their numbers, several at once, and judges how each was met."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .forks import Ended, Running, start
from .inputs.draw import Input, input_of
from .rules import faults
from .slots import Slot


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
    jobs: int = 1,
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
        jobs: How many run at once.
        only: Words that name the one command to fuzz.
        run: What runs as the program; None: memx.
        wall: Seconds after which a command is killed.

    Yields:
        The verdict of each, as it ends.
    """
    free = [Slot(root / f"slot-{place}", master) for place in range(jobs)]
    running: list[tuple[Input, Slot, Running]] = []
    more = True
    while more or running:
        while more and free:
            number = next(numbers, None)
            if number is None:
                more = False
                break
            slot = free.pop()
            running.append(_begin(input_of(number, seed, master, only), slot, run, wall))
        time.sleep(0.001)
        for one in [*running]:
            if (ended := one[2].poll()) is not None:
                running.remove(one)
                yield _judged(one[0], one[1], ended)
                free.append(one[1])


def _begin(given: Input, slot: Slot, run: Callable[[], None] | None, wall: float) -> tuple[Input, Slot, Running]:
    given.prepare(slot.work)
    slot.first = slot.state()
    call = given.call
    surrounded = type(call)(
        call.arguments, {**slot.environment, **call.environment}, call.stdin, call.closed, call.full
    )
    return given, slot, start(surrounded, slot.work, slot.printed, wall=wall, run=run)


def _judged(given: Input, slot: Slot, ended: Ended) -> Verdict:
    found = slot.changes()
    texts = [part for word in given.call.arguments for part in (word, word.rpartition("=")[2])]
    said = [*texts, *given.call.environment.values(), str(slot.work), str(slot.home)]
    told = faults(given.met, ended, found, said, given.call)
    if given.harm is not None or given.files:
        slot.heal([given.damaged, *given.files])
    slot.restore(found)
    return Verdict(given, ended, told)
