"""The loop of one evolution: config and run folder -> states, metrics, the best NAMM, and how it compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch

from ...namm.evolution.evolve import Outcome, end_of_stage, most_sigma, validation_due
from ...namm.evolution.files import save_evolution
from ...namm.evolution.history import Vector
from ...namm.evolution.search import Evolution
from ...namm.saved.files import save
from ...results.store.rows import Row
from ...results.store.runs import Run
from ..config.eviction.evolution import EvolveConfig
from ..distributed.process_group import World
from ..eviction.answers import Prompt
from ..eviction.base_model import check_prompt_length, describe_base_model, prepare_base_model
from ..eviction.tasks import make_prompts
from ..runtime.devices import pick_device
from ..runtime.events import Ended, Generation, Note, Phase, Position, Report, Validation
from ..runtime.lifecycle import RunFailed
from ..runtime.signals import Interrupted, StopRequest
from .candidates import CandidateEvaluator
from .card import evolution_card
from .fitness import Evaluation
from .hosts import BaseModel, HostPrompts, HostsFitnessEvaluator
from .ranks import DistributedEvaluator
from .space import search_space
from .start import first_state, joined_names, starting_namm


class Result(NamedTuple):
    """How an evolution ended.

    Attributes:
        outcome: the answer and why the last stage was over.
        evaluations: the initial parameters and the answer side by side, by split ("validation", "test"): [N, 2].
        generations: how many there were, in all stages.
    """

    outcome: Outcome
    evaluations: dict[str, Evaluation]
    generations: int


class EvolutionRun:
    """Base models, prompts and CMA-ES of one run folder, on each of its ranks.

    Every rank steps the same strategy, from the same state and the same fitness, in place of a leader that sends the
    others work: all of them know what comes next, and nothing but fitness has to travel. Rank 0 alone writes files.

    Args:
        config: what to evolve, on what.
        run: the claimed run folder, on other ranks than the first one that writes nothing; a saved state is resumed.
        runs: the folder of all runs, where a preset's model is trained.
        report: gets the events; nothing on other ranks than the first.
        stop: asked when this rank is to stop.
        world: the ranks.
    """

    def __init__(
        self, config: EvolveConfig, run: Run, runs: Path, report: Report, stop: StopRequest, world: World = World()
    ) -> None:
        self.config, self.run, self.report, self.world = config, run, report, world
        for host in config.hosts:
            world.together(lambda host=host: pick_device(host.device, "host.device"))
            described = world.in_turn(lambda host=host: describe_base_model(host))
            check_prompt_length(host, described, config.tasks.length, "tasks.length")
        self.bases = [BaseModel(*prepare_base_model(host, runs, report, world)) for host in config.hosts]
        self.host = joined_names(self.bases)
        report(Phase("preparing prompts"))
        self.prompts = HostPrompts(
            world.on_first(lambda: tuple(make_prompts(config, base.tokenizer) for base in self.bases))
        )
        begin = partial(starting_namm, config, self.bases, self.prompts, self.state / "namm", report, stop)
        self.namm = world.on_first(begin)
        fitness = config.fitness
        how: dict[str, Any] = dict(mode=fitness.mode, remember=fitness.remember, masks=fitness.sharing == "masks")
        how["context_dtype"] = None if fitness.context_dtype is None else getattr(torch, fitness.context_dtype)
        candidates = [CandidateEvaluator(base.model, self.namm, **how) for base in self.bases]
        self.fitness = HostsFitnessEvaluator(candidates, self.bases, self.prompts, fitness)
        self.evaluator = DistributedEvaluator(world, self.fitness, self.prompts.all, stop)
        self.space = search_space(config.evolution.space, self.namm)
        # rank 0's state, as only its machine need have the run folder
        state = world.on_first(lambda: first_state(config, run, self.space.start(), report))
        self.evolution = Evolution.of_state(state)

    @property
    def state(self) -> Path:
        """The folder of what a run resumes from."""
        return self.run.folder / "state"

    def evolve(self) -> Result:
        """Evolve through all stages and compare the answer with the initial parameters.

        Returns:
            The same on every rank.

        Raises:
            Interrupted: on every rank, once one is asked to stop.
            RunFailed: on every rank, for fitness that is not finite; the state before it stays.
            MemxError: on every rank, for a disk that is full.
        """
        self._note_idle_ranks()
        evolution, config = self.evolution, self.config
        while True:
            stage = config.stages[evolution.stage]
            generations, tasks = stage.generations or 0, config.tasks.validation or stage.tasks
            if validation_due(evolution, config.evolution.validate_every, generations):
                self.report(Phase("validating", brief=True))
                prompts = self.prompts.validated(tasks)
                evaluation, seconds = self._evaluate(prompts, evolution.mean[None], config.budgets)
                improved = evolution.record_validation(float(self._fitness(evaluation)[0]))
                self.world.on_first(partial(self._save_validation, evaluation, improved, seconds))
            reason = end_of_stage(evolution, generations, config.evolution.patience)
            if reason is None:
                start, number = perf_counter(), evolution.generation
                drawn = self.prompts.drawn(stage.tasks, config.tasks.per_generation, config.seed, number)
                budget = config.budgets[number % len(config.budgets)]
                evaluation, seconds = self._evaluate(drawn, evolution.ask(), (budget,))
                bound = most_sigma(evolution, generations, config.evolution.sigma_end)
                evolution.tell(self._fitness(evaluation), most_sigma=bound)
                self.world.on_first(partial(self._save_generation, evaluation, seconds, start))
                continue
            self.report(Ended(self._position(), reason))
            outcome = Outcome.of(evolution, reason)
            if evolution.stage + 1 == len(config.stages):
                break
            evolution.next_stage(sigma=config.evolution.sigma if config.evolution.sigma_end is not None else None)
            self.world.on_first(lambda: save_evolution(evolution, self.state))
        self.world.on_first(lambda: self.save_namm(outcome.mean))
        return Result(outcome, self._compare(outcome.mean, tasks), evolution.generation)

    def _fitness(self, evaluation: Evaluation) -> Vector:
        """The fitness of each candidate [P]. Raises RunFailed, on every rank, for what is not finite."""
        for task, values in zip(evaluation.tasks, evaluation.value, strict=True):
            if not np.isfinite(values).all():
                narrow = any(host.dtype != "float32" for host in self.config.hosts)
                cure = "use host.dtype float32" if narrow else "check its weights"
                raise RunFailed(
                    f"the scores of {self.host} on {task} in generation {self.evolution.generation + 1} "
                    f"are not finite; {cure}"
                )
        return self.fitness.fitness(evaluation)

    def _compare(self, answer: Vector, tasks: Sequence[str]) -> dict[str, Evaluation]:
        """The initial parameters and the answer side by side, [N, 2], on validation and test prompts."""
        self.report(Phase("evaluating the chosen NAMM"))
        both = np.stack([self.space.start(), answer])
        budgets = self.config.budgets
        evaluations = {"validation": self._evaluate(self.prompts.validated(tasks), both, budgets)[0]}
        self.evaluator.release_contexts()
        if tested := self.prompts.tested(tasks):
            evaluations["test"] = self._evaluate(tested, both, budgets)[0]
        for evaluation in evaluations.values():
            self._fitness(evaluation)  # what is not finite goes into no row
        return evaluations

    def _evaluate(
        self, prompts: list[Prompt], candidates: Vector, budgets: Sequence[float | None]
    ) -> tuple[Evaluation, dict[str, float]]:
        """Evaluate candidates [P, d] on all ranks; and the seconds that this rank spent, by what they went to."""
        start, before = perf_counter(), self._seconds()
        try:
            evaluation = self.evaluator.evaluate(prompts, self.space.parameters(candidates), budgets)
        except Interrupted:
            place = f"stopped in generation {self.evolution.generation + 1}; the state before it is saved"
            raise Interrupted(place) from None
        seconds = {part: total - before.get(part, 0.0) for part, total in self._seconds().items()}
        return evaluation, {**seconds, "fitness": perf_counter() - start}

    def _seconds(self) -> dict[str, float]:
        """Seconds so far of this rank, by what they went to."""
        return self.fitness.seconds | ({"wait": self.evaluator.waited} if self.world.joined else {})

    def _save_generation(self, evaluation: Evaluation, seconds: dict[str, float], start: float) -> None:
        """Rank 0, while the others wait: write what the generation was like, then save the state.

        The state comes last: a resumed run drops metrics that it does not know, and produces them again.
        """
        total, last = perf_counter() - start, self.evolution.history[-1]
        seconds |= {"tell": total - seconds.pop("fitness"), "total": total}
        kept = self._append_metrics(
            {name: getattr(last, name) for name in ("best", "mean", "std", "sigma")}, evaluation, seconds
        )
        save_evolution(self.evolution, self.state)
        self.report(Generation(self._position(), last.best, last.mean, last.sigma, kept, total))

    def _save_validation(self, evaluation: Evaluation, improved: bool, seconds: dict[str, float]) -> None:
        """Rank 0: write how the mean validated, save it as a NAMM if it is the best so far, then save the state."""
        if improved:
            self.save_namm(self.evolution.mean)
        seconds["total"] = seconds.pop("fitness")
        fitness = self.evolution.validations[-1].fitness
        kept = self._append_metrics({"validation": fitness, "improved": improved}, evaluation, seconds)
        save_evolution(self.evolution, self.state)
        self.report(Validation(self._position(), fitness, kept, improved))

    def _append_metrics(
        self, figures: Mapping[str, Any], evaluation: Evaluation, seconds: Mapping[str, float]
    ) -> float:
        """Write a line of metrics; the share of the cache that was kept."""
        measures = {"kept": evaluation.mean_kept(), "tasks": evaluation.mean_values()}
        rounded = {part: round(spent, 4) for part, spent in seconds.items()}
        place = {"step": self.evolution.generation, "stage": self.evolution.stage}
        self.run.append_metrics(**place, **figures, **measures, seconds=rounded)
        return evaluation.mean_kept()

    def save_namm(self, x: Vector, rows: Sequence[Row] = ()) -> None:
        """Write the NAMM of these coordinates [d] to the run folder, with a card of the rows that are known of it."""
        namm = replace(self.namm, parameters=torch.from_numpy(self.space.parameters(x[None])[0]).float())
        tasks = dict.fromkeys(task for stage in self.config.stages for task in stage.tasks)
        save(namm, self.run.folder / "namm", host=self.host, tasks=tuple(tasks), card=evolution_card(self.config, rows))

    def _position(self) -> Position:
        """Where the evolution is, for the display."""
        evolution, stages = self.evolution, self.config.stages
        generations = stages[evolution.stage].generations or 0
        return Position(evolution.generation, evolution.began, generations, evolution.stage, len(stages))

    def _note_idle_ranks(self) -> None:
        config = self.config
        drawn = min(len(stage.tasks) for stage in config.stages) * config.tasks.per_generation * len(config.hosts)
        units = len(self.evaluator.units(drawn, config.evolution.population))
        if units < self.world.size:
            idle = f"{self.world.size - units} of {self.world.size} ranks are idle"
            text = f"a generation has only {units} units of work, so {idle}; lower fitness.at_once to split it further"
            self.report(Note(text))
