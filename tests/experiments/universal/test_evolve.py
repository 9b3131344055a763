"""Evolution on a decision transformer: what the fitness is, and the same result after a stop."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from memx import namm
from memx.experiments.config.eviction.universal_evolution import UniversalEvolveConfig
from memx.experiments.decision.host import load_host
from memx.experiments.other_hosts.measured import TRAINING_UNITS
from memx.experiments.policy_eval.sources import namm_entries
from memx.experiments.runtime.events import Generation
from memx.experiments.runtime.options import Options
from memx.experiments.runtime.signals import StopRequest
from memx.experiments.universal.evolve import HostFitness, evolve_on_host

from ..decision.tiny_host import double, evaluation, trained


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("decision"))


def config(host, **changes):
    (start,) = namm_entries([Path("universal")])
    given = dict(budgets=(0.5,), every=32, units=2, validation=2, validate_every=2, generations=3, population=4)
    return UniversalEvolveConfig(host=evaluation(host).host, start=start, **given | changes)


def test_the_fitness_is_the_mean_score_less_that_of_the_full_cache(host):
    settings, start, loaded = config(host, budgets=(0.5, 0.25)), namm.load("universal"), double(host)
    fitness = HostFitness(settings, loaded, start, StopRequest())
    candidates = np.stack([start.parameters.double().numpy(), np.random.default_rng(0).normal(size=153)])
    found = fitness.of_candidates(candidates, 5)
    units = range(TRAINING_UNITS + 10, TRAINING_UNITS + 12)
    full = np.mean([one.scores["normalised"] for one in loaded.measure(None, units)])
    for parameters, value in zip(candidates, found, strict=True):
        scores = []
        for budget in (0.5, 0.25):
            alone = replace(
                fitness.namm(parameters, namm.Rule(budget=budget, allocation="global")),
                every=32,
            )
            scores += [one.scores["normalised"] for one in loaded.measure(alone, units)]
        assert value == pytest.approx(np.mean(scores) - full, abs=1e-6)


def test_a_killed_evolution_ends_as_one_that_never_was(host):
    runs = host.parent
    whole = evolve_on_host(config(host, name="whole"), Options(runs), lambda event: None)

    def kill(event):
        if isinstance(event, Generation) and event.position.generation == 2:
            raise Killed

    with pytest.raises(Killed):
        evolve_on_host(config(host, name="killed"), Options(runs), kill)
    resumed = evolve_on_host(config(host, name="killed"), Options(runs, resume=True), lambda event: None)
    assert [(row.n, row.value) for row in resumed] == [(row.n, row.value) for row in whole]
    assert [row.n for row in whole] == [0, 2, 3]
    made = [namm.load(runs / row.run / "namm").parameters for row in (whole[0], resumed[0])]
    assert (made[0] == made[1]).all()


def test_the_namm_of_such_a_run_is_evaluated_by_its_folder(host):
    rows = evolve_on_host(config(host, name="found", generations=1), Options(host.parent), lambda event: None)
    (entry,) = namm_entries([host.parent / rows[0].run])
    assert entry["folder"].endswith("namm") and entry["budget"] == 0.5
    assert entry["evolved_on"] == load_host(host, "cpu").name
