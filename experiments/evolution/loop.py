"""What one evolution holds in memory, and its loop: config and run folder -> states, metrics and the best NAMM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch

from ...namm.calibration import calibrate
from ...namm.evolution.files import RECORD, load_evolution
from ...namm.evolution.loop import Outcome, evolve
from ...namm.evolution.search import Evolution, Vector
from ...namm.policies.base import Rule
from ...namm.policies.features import FEATURES, HOP
from ...namm.policies.files import load, save
from ...namm.policies.network import Namm
from ...namm.policies.scorer import BAM_PARAMETERS, count, layer_sizes
from ...results.store.runs import Run
from ..config.evolution import EvolveConfig, NammConfig
from ..distributed.process_group import World
from ..eviction.base_model import Report, prepare_host
from ..eviction.tasks import make_prompts
from ..runtime.signals import Interrupted, StopRequest
from .candidates import CandidateEvaluator
from .fitness import Array, FitnessEvaluator, Found
from .ranks import DistributedEvaluator


class Result(NamedTuple):
    """How an evolution ended after so many generations, and what the answer and zero parameters did in each split."""

    outcome: Outcome
    found: dict[str, Found]
    generations: int


def empty_namm(config: NammConfig, name: str = "namm") -> Namm:
    """The NAMM of a config with zero parameters: under a threshold of 0 the full cache, under a budget the newest."""
    rule = Rule(config.threshold, config.budget if config.rule == "budget" else None, config.grouping)
    size = BAM_PARAMETERS if config.scorer == "bam" else count(layer_sizes((FEATURES, *config.hidden, 1)))
    kind: dict[str, Any] = dict(scorer=config.scorer, hidden=config.hidden, strict=config.strict)
    return Namm(torch.zeros(size), rule=rule, every=config.every, name=name, **kind)


class EvolutionRun:
    """Host, prompts and judge of one run folder, on each rank, and on rank 0 alone the evolution.

    A state that is there is gone on from.
    """

    evolution: Evolution

    def __init__(
        self, config: EvolveConfig, run: Run, runs: Path, report: Report, stop: StopRequest, world: World = World()
    ) -> None:
        self.config, self.run, self.report, self.world = config, run, report, world
        self.model, tokenizer, self.host = prepare_host(config.host, runs, report, world)
        self.report({"phase": "making prompts"})
        self.prompts = world.on_first(lambda: make_prompts(config, tokenizer))
        self.namm = world.on_first(self._calibrated)
        self.judge = CandidateEvaluator(
            self.model, self.namm, mode=config.fitness.mode, remember=config.fitness.remember
        )
        self.evaluator = FitnessEvaluator(self.judge, tokenizer, config.fitness)
        self.crew = DistributedEvaluator(world, self.evaluator, self.prompts.all, stop)
        self._note: dict[str, Any] = {}  # of the generation or validation at hand, beside its fitness

    @property
    def state(self) -> Path:
        """The folder of what a run goes on from."""
        return self.run.folder / "state"

    def result(self) -> Result:
        """Evolve to the end and judge the answer: rank 0 does, while the others take their share of the work.

        Raises Interrupted once any rank is asked to stop.
        """
        return self.world.on_first(self._lead, self.crew.follow)

    def _lead(self) -> Result:
        self.evolution = self._evolution()
        self._tell_of_idle_ranks()
        outcome = self.evolve()
        return Result(outcome, self.compare(outcome.mean), self.evolution.generation)

    def evolve(self) -> Outcome:
        """All stages, one after another, to the answer of the last. Raises Interrupted once a stop is asked for."""
        stages, settings = self.config.stages, self.config.evolution
        while True:
            outcome = evolve(
                self.evolution,
                self._fitness,
                generations=stages[self.evolution.stage].generations or 0,
                validate=self._validate,
                validate_every=settings.validate_every,
                patience=settings.patience,
                on_event=self._log,
                save=self.state,
            )
            if self.evolution.stage + 1 == len(stages):
                self.save_namm(outcome.mean)
                return outcome
            self.evolution.next_stage()
            self.evolution.save(self.state)

    def compare(self, answer: Vector) -> dict[str, Found]:
        """Zero parameters and the answer side by side, [N, 2], on validation and test prompts of the last stage."""
        self.report({"phase": "judging the answer"})
        tasks, both = self._validated_on(), np.stack([0 * answer, answer])
        found = {"validation": self._find(self.prompts.validated(tasks), both)}
        self.crew.forget()
        if tested := self.prompts.tested(tasks):
            found["test"] = self._find(tested, both)
        return found

    def save_namm(self, parameters: Vector) -> None:
        """Write the NAMM of these parameters to the run folder."""
        mine = replace(self.namm, parameters=torch.from_numpy(parameters).float())
        tasks = dict.fromkeys(task for stage in self.config.stages for task in stage.tasks)
        save(mine, self.run.folder / "namm", host=self.host, tasks=tuple(tasks))

    def _fitness(self, candidates: Vector, generation: int) -> Array:
        config = self.config
        tasks = config.stages[self.evolution.stage].tasks
        drawn = self.prompts.drawn(tasks, config.tasks.per_generation, config.seed, generation)
        return self._evaluate(drawn, candidates)

    def _validate(self, mean: Vector) -> float:
        self.report({"phase": "validating"})
        return float(self._evaluate(self.prompts.validated(self._validated_on()), mean[None])[0])

    def _evaluate(self, prompts: list, candidates: Vector) -> Array:
        start, before = perf_counter(), self._spent()
        found = self._find(prompts, candidates)
        spent = {part: total - before.get(part, 0.0) for part, total in self._spent().items()}
        relative = {task: float(found.value[found.of(task)].mean()) for task in dict.fromkeys(found.tasks)}
        kept = float(found.over_tasks(found.kept).mean())
        self._note = {"kept": kept, "tasks": relative, "seconds": {**spent, "fitness": perf_counter() - start}}
        return self.evaluator.fitness(found)

    def _find(self, prompts: list, candidates: Vector) -> Found:
        try:
            return self.crew.find(prompts, candidates)
        except Interrupted:
            told = f"stopped in generation {self.evolution.generation + 1}, the state before it is saved"
            raise Interrupted(told) from None

    def _spent(self) -> dict[str, float]:
        """Seconds so far of rank 0, by what they went to."""
        return self.judge.seconds | ({"wait": self.crew.waited} if self.world.joined else {})

    def _tell_of_idle_ranks(self) -> None:
        config = self.config
        drawn = min(len(stage.tasks) for stage in config.stages) * config.tasks.per_generation
        units = len(self.crew.units(drawn, config.evolution.population))
        if units < self.world.size:
            told = (
                f"a generation is {units} pieces of work, so that {self.world.size - units} of {self.world.size} ranks"
            )
            self.report({"note": f"{told} have none; a smaller fitness.at_once cuts it finer"})

    def _validated_on(self) -> tuple[str, ...]:
        return self.config.tasks.validation or self.config.stages[self.evolution.stage].tasks

    def _log(self, event: Mapping[str, Any]) -> None:
        """Write a line of metrics and tell the display."""
        stages = self.config.stages
        told: dict[str, Any] = {**event, "stages": len(stages), "began": self.evolution.began}
        told["generations"] = stages[self.evolution.stage].generations
        line: dict[str, Any] = {"step": event["generation"], "stage": event["stage"]}
        if "ended" in event:
            self.report(told)
            return
        seconds = dict(self._note["seconds"])
        if "best" in event:
            seconds |= {"tell": event["seconds"] - seconds.pop("fitness"), "total": event["seconds"]}
            line |= {name: event[name] for name in ("best", "mean", "std", "sigma")}
        else:
            seconds["total"] = seconds.pop("fitness")
            line |= {"validation": event["validation"], "improved": event["improved"]}
            if event["improved"]:
                self.save_namm(self.evolution.mean)
        note = {**self._note, "seconds": {part: round(spent, 4) for part, spent in seconds.items()}}
        self.run.append_metrics(**line, **note)
        self.report({**told, **note, "seconds": seconds["total"]})

    def _calibrated(self) -> Namm:
        """The NAMM with the mean and variance of its features on this host: measured once a run, then read again."""
        place = self.state / "namm"
        if place.is_dir():
            return load(place)
        self.report({"phase": "measuring features"})
        texts = [p.context for pool in self.prompts.train.values() for p in pool[: self.config.calibration]]
        shortest = min(len(text) for text in texts)
        every = min(self.config.namm.every, max(shortest // HOP, 1) * HOP)  # shorter contexts: once, at their end
        mean, variance = calibrate(self.model, texts, every=every)
        made = replace(empty_namm(self.config.namm, self.config.name), mean=mean.cpu(), variance=variance.cpu())
        save(made, place, host=self.host)
        return made

    def _evolution(self) -> Evolution:
        if (self.state / RECORD).is_file():
            found = load_evolution(self.state)
            self.run.rewind_metrics(found.generation)
            self._fill_metrics(found)
            self.report({"note": f"resumed after generation {found.generation}"})
            return found
        self.run.rewind_metrics(-1)
        given = self.config.evolution
        made = Evolution(
            len(self.namm.parameters),
            population=given.population,
            sigma=given.sigma,
            seed=self.config.seed,
            covariance=given.covariance,
        )
        made.save(self.state)
        return made

    def _fill_metrics(self, found: Evolution) -> None:
        """Write the lines that a kill between saving a state and telling of it has cost."""
        lines = self.run.metrics()
        done = max((line["step"] for line in lines if "best" in line), default=0)
        for one in found.history[done:]:
            figures = {name: getattr(one, name) for name in ("best", "mean", "std", "sigma")}
            self.run.append_metrics(step=one.number + 1, stage=one.stage, **figures)
        known = sum("validation" in line for line in lines)
        for one in found.validations[known:]:
            self.run.append_metrics(step=one.generation, stage=one.stage, validation=one.fitness)
