"""The loop of all benchmarks of training steps: steps that mark where their parts end -> seconds of each part."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ....errors import MemxError
from ....memory_layers.slots import half_keys
from ..timing import now

WARM_UP = 2  # steps that are not counted
Mark = Callable[[], None]
Moments = list[list[float]]  # of each counted step: when it began and when each of its parts ended


def time_steps(runs: Sequence[Callable[[int, Mark], object]], steps: int, device: torch.device) -> list[Moments]:
    """Let every run take training steps, by turns, after some that are not counted.

    Args:
        runs: Each takes one step, given its number and `mark`, which it calls where its work begins and where each of
            its parts ends; the device has done its work by then.
        steps: How many steps of each are counted.
        device: Where the runs compute.

    Returns:
        The moments of each run [steps, 1 + parts], in seconds.
    """
    moments: list[Moments] = [[] for _ in runs]
    for number in range(WARM_UP + steps):
        for run, of_run in zip(runs, moments, strict=True):
            marks: list[float] = []
            run(number, lambda marks=marks: marks.append(now(device)))
            of_run.append(marks)
    return [of_run[WARM_UP:] for of_run in moments]


def between(moments: Moments, start: int, end: int) -> list[float]:
    """Seconds from one mark to another, of each step."""
    return [step[end] - step[start] for step in moments]


def check_slots(slots: Sequence[int], top_k: int) -> None:
    """Raise MemxError for table sizes that no product keys have, or that hold fewer slots than a head keeps."""
    for size in slots:
        if half_keys(size) < top_k:
            raise MemxError(f"--slots {size} is too small for top-k {top_k}", hint=f"use {top_k**2} or more")
