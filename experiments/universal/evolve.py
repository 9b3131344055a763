"""Evolution of a NAMM on a host that reads no text, for what a NAMM made for it would reach.

All candidates of a generation play the same units in one batch, each with its own copies. The fitness is the mean of
the host's last score over budgets, less that of the full cache on the same units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch

from ...namm.evolution.evolve import Event, GenerationDone, MeanValidated, evolve
from ...namm.evolution.files import RECORD, load_evolution
from ...namm.evolution.history import Vector
from ...namm.evolution.search import Evolution
from ...namm.policies.base import Rule
from ...namm.policies.network import Namm
from ...namm.policies.panel import PolicyBatch, PolicySlots
from ...namm.saved.files import save
from ...results.store.environment import commit
from ...results.store.rows import Row
from ...results.store.runs import Run, RunStore
from ..config.base import run_name, to_yaml
from ..config.eviction.universal_evolution import UniversalEvolveConfig
from ..other_hosts.measured import TRAINING_UNITS, PolicyHost
from ..policy_eval.run import load_source
from ..runtime.events import Generation, Note, Position, Report, Validation
from ..runtime.lifecycle import recorded_run
from ..runtime.options import Options
from ..runtime.signals import Interrupted, StopRequest, stop_on_signals
from ..runtime.threads import restored_threads, run_threads
from .load import load_policy_host

_VALIDATION = 2 * TRAINING_UNITS  # the first of the units that means are chosen on


def evolve_on_host(config: UniversalEvolveConfig, options: Options, report: Report) -> list[Row]:
    """Evolve a NAMM in the config's run folder; it is saved to `namm/` there.

    Args:
        config: The evolution.
        options: Where runs are, and whether to resume or replace one that is there. A finished one is kept if resumed.
        report: Called with the progress.

    Returns:
        The rows: the fitness of the mean at each validation.

    Raises:
        MemxError: The folder exists or is in use, or the host or the NAMM is not there or has changed.
        Interrupted: A signal asked for a stop; whole generations are saved.
    """
    with RunStore(options.runs).claim(run_name(config), resume=options.resume, force=options.force) as run:
        if options.resume and run.status == "finished":
            report(Note("already finished"))
            return run.rows()
        return _evolve(config, options, run, report)


def _evolve(config: UniversalEvolveConfig, options: Options, run: Run, report: Report) -> list[Row]:
    """Evolve in a claimed run folder, and record in it how that ended."""
    threads, state = run_threads(config.host.threads, run.info(), torch.get_num_threads(), report), run.folder / "state"
    began = (state / RECORD).is_file()
    keeps = recorded_run(run, keeps=lambda: (state / RECORD).is_file())
    with keeps, restored_threads(), stop_on_signals() as stop:
        torch.set_num_threads(threads)
        start, host = load_source(config.start), load_policy_host(config.host, options.runs)
        about = {"experiment": run.name, "seed": config.seed, "device": host.device, "threads": threads}
        run.begin(to_yaml(config), about)
        fitness = HostFitness(config, host, start, stop)
        if began:
            evolution = load_evolution(state)
            report(Note(f"resumed after {evolution.generation} of {config.generations} generations"))
        else:
            mean = np.zeros(start.parameter_count) if config.zeros else start.parameters.double().numpy()
            evolution = Evolution(
                len(mean), population=config.population, sigma=config.sigma, mean=mean, seed=config.seed
            )
        outcome = evolve(
            evolution, fitness.of_candidates, generations=config.generations, validate=fitness.of_mean,
            validate_every=config.validate_every, on_event=lambda event: _tell(event, config, report), save=state,
        )  # fmt: skip
        rule = Rule(budget=sorted(config.budgets)[len(config.budgets) // 2], allocation=config.allocation)
        made = fitness.namm(outcome.mean, rule)
        save(made, run.folder / "namm", host=host.name, tasks=[host.kind])
        rows = _rows(evolution, host, run.name)
    run.finish(rows, generations=evolution.generation, answer=outcome.generation)
    return rows


class HostFitness:
    """The fitness of parameters of a NAMM on a host.

    Args:
        config: The evolution.
        host: The host.
        start: The NAMM whose features, network and normalisation the parameters are for.
        stop: Whether somebody asked to stop.
    """

    def __init__(self, config: UniversalEvolveConfig, host: PolicyHost, start: Namm, stop: StopRequest) -> None:
        self.config, self.host, self.start, self.stop = config, host, start, stop
        self._full = cache(self._of_full)

    def namm(self, parameters: Vector, rule: Rule) -> Namm:
        """The NAMM of parameters, under a rule."""
        return replace(self.start, parameters=torch.from_numpy(parameters).float(), rule=rule, every=self.config.every)

    def of_candidates(self, candidates: Vector, generation: int) -> Vector:
        """The fitness of candidates [population, n] in a generation: [population]."""
        first = TRAINING_UNITS + generation * self.config.units
        return self._of(candidates, range(first, first + self.config.units))

    def of_mean(self, mean: Vector) -> float:
        """The fitness of one mean [n] on the units of validation."""
        return float(self._of(mean[None], range(_VALIDATION, _VALIDATION + self.config.validation))[0])

    def _of(self, candidates: Vector, units: range) -> Vector:
        total = np.zeros(len(candidates))
        for budget in self.config.budgets:
            rule = Rule(budget=budget, allocation=self.config.allocation)
            members = tuple(self.namm(one, rule) for one in candidates)
            policy = PolicyBatch(PolicySlots(members[:1]), members)
            scores = self._scores(policy, [*units] * len(members)).reshape(len(members), len(units))
            total += scores.mean(1)
        return total / len(self.config.budgets) - self._full(units)

    def _of_full(self, units: range) -> float:
        return float(self._scores(None, units).mean())

    def _scores(self, policy: PolicyBatch | None, units: Sequence[int]) -> Vector:
        measured = self.host.measure(policy, units, self._check)
        return np.array([one.scores[self.host.metrics[-1]] for one in measured])

    def _check(self) -> None:
        if self.stop.asked:
            raise Interrupted("whole generations are saved")


def _tell(event: Event, config: UniversalEvolveConfig, report: Report) -> None:
    position = Position(event.generation, 0, config.generations, 0, 1)
    share = float(np.mean(config.budgets))
    if isinstance(event, GenerationDone):
        report(Generation(position, event.best, event.mean, event.sigma, share, event.seconds))
    elif isinstance(event, MeanValidated):
        report(Validation(position, event.fitness, share, event.improved))


def _rows(evolution: Evolution, host: PolicyHost, run: str) -> list[Row]:
    """The fitness of the mean at each validation, in points of the host's last score."""
    common: dict[str, Any] = dict(
        run=run, experiment=run, kind=f"{host.kind} evolution", model=host.name, device=host.device
    )
    common |= dict(dataset="validation", metric="fitness", seed=host.seed, commit=commit())
    return [Row(**common, value=one.fitness, n=one.generation) for one in evolution.validations]
