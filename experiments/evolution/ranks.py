"""One evaluation shared out over ranks: prompts and candidates -> what they did, the same to the bit on any number.

A unit of work is one prompt with one batch of candidates (`fitness.at_once`). What is computed together depends on the
config alone, and results are put together in one order, whoever computed them. P candidates, N prompts, n parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch

from ..distributed.process_group import World
from ..distributed.scheduling import Share, Unit, schedule
from ..eviction.answers import Prompt
from ..runtime.signals import Interrupted, StopRequest
from .fitness import Array, FitnessEvaluator, Found, Measured


@dataclass(frozen=True)
class Task:
    """What rank 0 asks of all: prompts by their number, candidates [P, n], and the units of each rank.

    forget: contexts that were read before go.
    """

    prompts: tuple[int, ...]
    candidates: Array
    shares: list[Share]
    forget: bool


class DistributedEvaluator:
    """The ranks that evaluate candidates on some of `prompts`: rank 0 leads and calls `find`, the others follow."""

    def __init__(self, world: World, evaluator: FitnessEvaluator, prompts: Sequence[Prompt], stop: StopRequest) -> None:
        self.world, self.evaluator, self.prompts, self.stop = world, evaluator, prompts, stop
        self.waited = 0.0  # seconds, for ranks that took longer
        self._numbers = {id(prompt): number for number, prompt in enumerate(prompts)}
        self._read: list[set[int]] = [set() for _ in range(world.size)]  # contexts that ranks hold
        self._forget = False

    def find(self, prompts: Sequence[Prompt], candidates: Array) -> Found:
        """Evaluate candidates [P, n] on each prompt. Raises Interrupted if any rank was asked to stop meanwhile."""
        numbers = tuple(self._numbers[id(prompt)] for prompt in prompts)
        shares = self.shares(numbers, len(candidates))
        task = Task(numbers, candidates, shares, self._forget)
        self._forget = False
        measured = self._work(self.world.broadcast(task))
        if any(unit not in measured for share in shares for unit in share):
            raise Interrupted
        by_prompt: list[list[Measured]] = [[] for _ in prompts]
        for unit in self.units(len(prompts), len(candidates)):
            by_prompt[unit.place].append(measured[unit])
        return self.evaluator.collect(prompts, by_prompt)

    def forget(self) -> None:
        """Let go of the contexts that were read, on every rank."""
        self._forget = True
        for held in self._read:
            held.clear()

    def follow(self, task: Task) -> None:
        """On the other ranks: do one's share of what rank 0 asks for."""
        self._work(task)

    def units(self, prompts: int, candidates: int) -> list[Unit]:
        """The units of an evaluation, by prompt and batch."""
        step = self.evaluator.config.at_once
        starts = range(0, candidates, step)
        return [Unit(place, first, min(first + step, candidates)) for place in range(prompts) for first in starts]

    def shares(self, numbers: Sequence[int], candidates: int) -> list[Share]:
        """The units of each rank: prompts tend to come back to where their context is held."""
        prompts, judge = [self.prompts[number] for number in numbers], self.evaluator.judge
        alone = 1 if judge.remember else 0  # else each unit reads the context anew
        reading = [alone * len(prompt.context) for prompt in prompts]
        again = [(1 - alone) * len(prompt.context) for prompt in prompts]
        fed = [len(prompt.rest) + (judge.mode == "online") * len(prompt.context) for prompt in prompts]
        units = self.units(len(numbers), candidates)
        work = {unit: again[unit.place] + (unit.last - unit.first) * fed[unit.place] for unit in units}
        held = [{place for place, number in enumerate(numbers) if number in read} for read in self._read]
        shares = schedule(work, reading, held)
        for read, share in zip(self._read, shares, strict=True):
            read |= {numbers[unit.place] for unit in share}
        return shares

    def _work(self, task: Task) -> dict[Unit, Measured]:
        """Do this rank's share; what all ranks have measured."""
        if task.forget:
            self.evaluator.judge.forget()
        start, own = perf_counter(), 0.0

        def work() -> dict[Unit, Measured]:
            nonlocal own
            done = self._share(task)
            own = perf_counter() - start
            return done

        found = self.world.each(work)
        self.waited += perf_counter() - start - own
        return {unit: one for done in found for unit, one in done.items()}

    def _share(self, task: Task) -> dict[Unit, Measured]:
        """What this rank has measured, until it was asked to stop."""
        members, done = torch.from_numpy(np.asarray(task.candidates, dtype=np.float32)), {}
        for unit in task.shares[self.world.rank]:
            if self.stop.asked:
                break
            prompt = self.prompts[task.prompts[unit.place]]
            done[unit] = self.evaluator.measure(prompt, members[unit.first : unit.last], base=unit.first == 0)
        return done
