"""One evaluation shared out over ranks: prompts and candidates -> what they did, the same to the bit on any number.

Every rank runs the same evolution and calls the same methods in the same order; only the measuring is shared out. A
unit of work is one prompt with one batch of candidates (`fitness.at_once`). What is computed together depends on the
config alone, and results are put together in one order, whoever computed them. P candidates, N prompts, n parameters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch

from ..distributed.process_group import World
from ..distributed.rank_errors import RankFailure
from ..distributed.scheduling import Share, Unit, schedule
from ..eviction.answers import Prompt
from ..runtime.signals import Interrupted, StopRequest
from .fitness import Array, Evaluation, FitnessEvaluator, Measured


class _Part(NamedTuple):
    """What one rank measured, and a digest of what it was asked for."""

    digest: str
    measured: dict[Unit, Measured]


class DistributedEvaluator:
    """Evaluates candidates on some of `prompts`, each rank its share.

    Args:
        world: the ranks.
        evaluator: measures on this rank.
        prompts: all that are ever evaluated, in one order on all ranks.
        stop: whether this rank was asked to stop.

    Attributes:
        waited: seconds that this rank has waited for others which took longer.
    """

    def __init__(self, world: World, evaluator: FitnessEvaluator, prompts: Sequence[Prompt], stop: StopRequest) -> None:
        self.world, self.evaluator, self.prompts, self.stop = world, evaluator, prompts, stop
        self.waited = 0.0
        self._numbers = {id(prompt): number for number, prompt in enumerate(prompts)}
        self._read: list[set[int]] = [set() for _ in range(world.size)]  # contexts that each rank holds

    def evaluate(
        self, prompts: Sequence[Prompt], candidates: Array, budgets: Sequence[float | None] = (None,)
    ) -> Evaluation:
        """Evaluate candidates on each prompt, together with all other ranks.

        Args:
            prompts: N of those that the evaluator was made with.
            candidates: [P, n], the same on every rank.
            budgets: shares of the cache to keep, at each of which every prompt is answered; None: the NAMM's own rule.

        Returns:
            What all ranks have measured, the same on every rank.

        Raises:
            Interrupted: on every rank, if one was asked to stop before its share was done.
            RuntimeError: on every rank, if the ranks were given different prompts or candidates.
        """
        shares_kept = [budget for budget in budgets for _ in prompts]
        prompts = [prompt for _ in budgets for prompt in prompts]
        numbers = [self._numbers[id(prompt)] for prompt in prompts]
        shares = self.shares(numbers, len(candidates))
        start, own = perf_counter(), 0.0

        def measure() -> _Part:
            nonlocal own
            own_share = shares[self.world.rank]
            part = _Part(_digest(numbers, candidates), self._measure(prompts, candidates, own_share, shares_kept))
            own = perf_counter() - start
            return part

        parts = self.world.each(measure)
        self.waited += perf_counter() - start - own
        _check_alike(parts)
        measured = {unit: figures for part in parts for unit, figures in part.measured.items()}
        units = self.units(len(prompts), len(candidates))
        if any(unit not in measured for unit in units):
            raise Interrupted
        by_prompt: list[list[Measured]] = [[] for _ in prompts]
        for unit in units:
            by_prompt[unit.place].append(measured[unit])
        return self.evaluator.collect(prompts, by_prompt, shares_kept)

    def release_contexts(self) -> None:
        """Let go of the contexts that were read."""
        self.evaluator.release_contexts()
        for held in self._read:
            held.clear()

    def units(self, prompts: int, candidates: int) -> list[Unit]:
        """The units of an evaluation, by prompt and batch."""
        step = self.evaluator.config.at_once
        starts = range(0, candidates, step)
        return [Unit(place, first, min(first + step, candidates)) for place in range(prompts) for first in starts]

    def shares(self, numbers: Sequence[int], candidates: int) -> list[Share]:
        """The units of each rank for prompts by their numbers; prompts tend to come back to where they were read."""
        prompts, evaluator = [self.prompts[number] for number in numbers], self.evaluator.candidates
        once = 1 if evaluator.remember else 0  # else each unit reads the context anew
        reading = [once * len(prompt.context) for prompt in prompts]
        again = [(1 - once) * len(prompt.context) for prompt in prompts]
        fed = [len(prompt.rest) + (evaluator.mode == "online") * len(prompt.context) for prompt in prompts]
        units = self.units(len(numbers), candidates)
        work = {unit: again[unit.place] + (unit.last - unit.first) * fed[unit.place] for unit in units}
        held = [{place for place, number in enumerate(numbers) if number in read} for read in self._read]
        shares = schedule(work, reading, held)
        for read, share in zip(self._read, shares, strict=True):
            read |= {numbers[unit.place] for unit in share}
        return shares

    def _measure(
        self, prompts: Sequence[Prompt], candidates: Array, share: Share, budgets: Sequence[float | None]
    ) -> dict[Unit, Measured]:
        """What this rank measures of its share, until it is asked to stop."""
        members, measured = torch.from_numpy(np.asarray(candidates, dtype=np.float32)), {}
        for unit in share:
            if self.stop.asked:
                break
            batch = members[unit.first : unit.last]
            prompt, budget = prompts[unit.place], budgets[unit.place]
            measured[unit] = self.evaluator.measure(prompt, batch, budget, base=unit.first == 0)
        return measured


def _digest(numbers: Sequence[int], candidates: Array) -> str:
    return hashlib.sha256(repr(numbers).encode() + np.ascontiguousarray(candidates).tobytes()).hexdigest()


def _check_alike(parts: Sequence[_Part]) -> None:
    """Raise RuntimeError if a rank's evolution has left the course of rank 0's.

    Each rank steps a strategy of its own, and LAPACK or numpy may round otherwise on another kind of processor. A
    digest costs nothing, as it travels with the results. Rank 0's candidates in its place would hide the difference:
    step sizes and stop conditions, and so what ranks do next, would still drift apart.
    """
    for rank, part in enumerate(parts):
        if part.digest != parts[0].digest:
            raise RuntimeError(
                f"the candidates of rank {rank} differ from rank 0: their processors round differently; "
                "run all ranks on machines of the same type"
            ) from RankFailure(rank, "candidates differ")
