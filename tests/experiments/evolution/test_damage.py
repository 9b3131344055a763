"""Evolutions whose scores are not finite, and evolutions that train their own base model and are killed."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from memx.cli.main import run
from memx.experiments.config.base import run_name, to_yaml
from memx.experiments.config.loading import load_evolution_config
from memx.experiments.eviction.base_model import base_model_point
from memx.experiments.evolution.fitness import FitnessEvaluator
from memx.experiments.evolution.run import evolve_namm
from memx.experiments.runtime.events import BaseModelTraining, Phase
from memx.experiments.runtime.options import Options
from memx.results.store.runs import RunStore

from .tiny_evolution import settings, write_host

PRESET = "namm-smollm2"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_fail_the_run_and_keep_its_state(tmp_path, monkeypatch, capsys, value):
    value_of, calls = FitnessEvaluator._value, []

    def broken(self, tasks, raw, base):
        calls.append(0)
        found = value_of(self, tasks, raw, base)
        return found if len(calls) < 2 else np.full_like(found, value)

    monkeypatch.setattr(FitnessEvaluator, "_value", broken)
    config = load_evolution_config(PRESET, settings(write_host(tmp_path / "host"), host__threads=1))
    (tmp_path / "mine.yaml").write_text(to_yaml(config))
    assert run(["evolve-namm", str(tmp_path / "mine.yaml"), "--runs", str(tmp_path / "runs")]) == 1
    assert "in generation 1 are not finite; check its weights" in capsys.readouterr().err.splitlines()[-1]
    (found,) = RunStore(tmp_path / "runs").runs()
    assert found.status == "failed" and (found.folder / "state").is_dir() and not found.rows()


def trajectory(run):
    lines = [{key: value for key, value in line.items() if key != "seconds"} for line in run.metrics()]
    return lines, (run.folder / "namm" / "namm.safetensors").read_bytes()


@pytest.fixture
def config(tmp_path):
    """An evolution that trains its own base model with one thread, and computes with three itself."""
    base = tmp_path / "base.yaml"
    base.write_text(
        "name: base\nmodel: {layers: 2, width: 32, heads: 2, context: 512}\nmemory: {slots: 0}\n"
        "data: {facts: [biographies], biographies: 60, vocabulary: 512, sequence: 64}\n"
        "training: {steps: 3, batch: 16, warmup: 1, threads: 1}\n"
        "evaluation: {every: null, questions: 5, final_questions: 5}\n"
    )
    changes = dict(host__name=None, host__preset=str(base), host__threads=None, evolution__generations=2)
    return load_evolution_config(PRESET, settings(tmp_path, **changes))


@pytest.mark.slow
def test_training_the_base_model_leaves_the_threads_of_the_evolution(config, tmp_path):
    seen = {"training": set(), "evolution": set()}

    def report(event):
        own = "training" if isinstance(event, BaseModelTraining) else "evolution"
        if not (own == "training" and isinstance(event.event, Phase) and event.event.text == "finished"):
            seen[own].add(torch.get_num_threads())

    usual = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        evolve_namm(config, Options(tmp_path / "a"), report)
        assert torch.get_num_threads() == 3
        found = RunStore(tmp_path / "a").run(run_name(config))
        assert found.info()["threads"] == 3 and seen["evolution"] == {3} and 1 in seen["training"]
        # the model is there already: the same to the bit
        base = base_model_point(config.host).name
        shutil.copytree(tmp_path / "a" / base, tmp_path / "b" / base)
        evolve_namm(config, Options(tmp_path / "b"), lambda event: None)
    finally:
        torch.set_num_threads(usual)
    assert trajectory(RunStore(tmp_path / "b").run(found.name)) == trajectory(found)


KILLED = """if True:
    import os, signal, sys
    from memx.cli.main import run
    from memx.experiments.training.loop import Trainer
    from memx.experiments.evolution.loop import EvolutionRun
    kind, name = {"training": (Trainer, "_log"), "evolution": (EvolutionRun, "_save_generation")}[sys.argv[1]]
    before = getattr(kind, name)
    def killed(self, *given):
        before(self, *given)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(kind, name, killed)
    run(sys.argv[2:])"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["training", "evolution"])
def test_a_kill_while_either_trains_changes_no_bit_though_the_threads_differ_later(config, tmp_path, where):
    path = tmp_path / "mine.yaml"
    path.write_text(to_yaml(config))
    arguments = ["evolve-namm", str(path), "--runs", str(tmp_path / "killed")]
    command = [sys.executable, "-c", KILLED, where, *arguments]
    two = {**os.environ, "OMP_NUM_THREADS": "2"}
    assert subprocess.run(command, capture_output=True, env=two).returncode == -signal.SIGKILL
    straight = [sys.executable, "-m", "memx", "evolve-namm", str(path), "--runs", str(tmp_path / "straight")]
    subprocess.run(straight, capture_output=True, env=two, check=True)
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "memx", *arguments, "--resume"]
    ended = subprocess.run(command, capture_output=True, text=True, env=one)
    assert ended.returncode == 0, ended.stderr
    kept = RunStore(tmp_path / "killed").run(run_name(config)).info()["threads"]
    # a machine of one core gives torch no second thread by itself
    assert kept == 1 or f"computing with {kept} CPU threads, as when the run began" in ended.stderr
    stores = [RunStore(tmp_path / name).run(run_name(config)) for name in ("killed", "straight")]
    assert trajectory(stores[0]) == trajectory(stores[1])
