"""One NAMM evolved on several base models: each counts alike, on prompts of its own, and a stopped run resumes."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from memx.errors import MemxError
from memx.experiments.base_models.load import load_host
from memx.experiments.config.base import run_name
from memx.experiments.config.eviction.evolution import EvolveConfig
from memx.experiments.config.eviction.host import HostConfig
from memx.experiments.config.loading import load_evolution_config
from memx.experiments.distributed.process_group import World
from memx.experiments.eviction.tasks import make_prompts
from memx.experiments.evolution.candidates import CandidateEvaluator
from memx.experiments.evolution.cost import context_bytes, evolution_cost
from memx.experiments.evolution.fitness import FitnessEvaluator
from memx.experiments.evolution.hosts import BaseModel, HostPrompts, HostsFitnessEvaluator, pooled
from memx.experiments.evolution.ranks import DistributedEvaluator
from memx.experiments.evolution.run import evolve_namm
from memx.experiments.models.host_shape import host_shape
from memx.experiments.runtime.events import Generation
from memx.experiments.runtime.options import Options
from memx.experiments.runtime.signals import Interrupted, StopRequest
from memx.namm import NO_PASS, Namm
from memx.results.labels import host_label
from memx.results.store.runs import RunStore

from .tiny_evolution import settings, write_host

TASKS = ("key_values", "prose_next")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    """Two, of different depths."""
    root = tmp_path_factory.mktemp("hosts")
    return write_host(root / "two"), write_host(root / "three", layers=3)


def config_of(hosts, **changes):
    given = {
        "namm.scorer": "linear",
        "namm.features": list(NO_PASS),
        "namm.allocation": "global",
        "fitness.sharing": "masks",
        "fitness.budgets": [0.2, 0.4],
        "evolution.start": "random",
        "more_hosts": [{"name": str(host), "threads": 1} for host in hosts[1:]],
    }
    return load_evolution_config("namm-universal", [*{**dict(settings(hosts[0])), **given, **changes}.items()])


@pytest.fixture(scope="module")
def straight(hosts, tmp_path_factory):
    """A run that nothing stopped: (config, run, rows)."""
    config, root = config_of(hosts), tmp_path_factory.mktemp("runs")
    rows = evolve_namm(config, Options(root), lambda event: None)
    return config, RunStore(root).run(run_name(config)), rows


def trajectory(run):
    lines = [{key: value for key, value in line.items() if key != "seconds"} for line in run.metrics()]
    return lines, (run.folder / "namm" / "namm.safetensors").read_bytes()


def test_a_stopped_run_resumes_to_the_bit(straight, tmp_path):
    config, run, rows = straight

    def stop(event):
        if isinstance(event, Generation) and event.position.generation == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="generation 2"):
        evolve_namm(config, Options(tmp_path), stop)
    again = evolve_namm(config, Options(tmp_path, resume=True), lambda event: None)
    assert trajectory(RunStore(tmp_path).run(run.name)) == trajectory(run)
    facts = [[row for row in found if row.variant != "speed"] for found in (again, rows)]
    assert facts[0] == facts[1]


def test_files_and_rows_name_all_base_models(straight, hosts):
    _, run, rows = straight
    described = json.loads((run.folder / "namm" / "namm.json").read_text())
    assert described["host"] == " + ".join(map(str, hosts)) == rows[0].model
    card = (run.folder / "namm" / "README.md").read_text("utf-8")
    assert f'memx.load_model("{hosts[0]}")' in card and f"| base model | {hosts[0]} + {hosts[1]} |" in card
    assert host_label(rows[0].model) == "two + three"
    sizes = [sum(weight.numel() for weight in load_host(str(host), any_decoder=True)[0].parameters()) for host in hosts]
    assert rows[0].parameters_total == sum(sizes)
    found = {(row.dataset, row.variant, row.metric): row for row in rows}
    assert found["validation/key_values", "answer", "kept"].n == 2 * 2  # prompts, base models; budgets are no samples


def test_each_base_model_answers_its_own_prompts_and_counts_alike(hosts):
    config = config_of(hosts)
    bases = [BaseModel(*load_host(str(host), any_decoder=True), str(host)) for host in hosts]
    prompts = HostPrompts(tuple(make_prompts(config, base.tokenizer) for base in bases))
    namm = Namm(scorer="linear", features=NO_PASS, rule=config_rule(config))
    candidates = torch.randn(3, len(namm.parameters), generator=torch.Generator().manual_seed(0)).double().numpy()
    evaluators = [CandidateEvaluator(base.model, namm, masks=True) for base in bases]
    both = HostsFitnessEvaluator(evaluators, bases, prompts, config.fitness)
    found = evaluate(both, prompts.all, prompts.validated(TASKS), candidates)
    alone = []
    for base, own in zip(bases, prompts.hosts, strict=True):
        one = FitnessEvaluator(CandidateEvaluator(base.model, namm, masks=True), base.tokenizer, config.fitness)
        alone.append(evaluate(one, own.all, own.validated(TASKS), candidates))
    np.testing.assert_allclose(found, np.mean(alone, axis=0), rtol=1e-9)
    assert not np.allclose(*alone, rtol=1e-3)
    assert both.seconds["answer"] == sum(one.seconds["answer"] for one in evaluators)
    both.release_contexts()
    assert not any(one._shared for one in evaluators)


def config_rule(config):
    from memx.experiments.evolution.start import empty_namm

    return empty_namm(config.namm).rule


def evaluate(evaluator, all_prompts, prompts, candidates):
    shared = DistributedEvaluator(World(), evaluator, all_prompts, StopRequest())
    return evaluator.fitness(shared.evaluate(prompts, candidates, (0.2,)))


def test_prompts_of_a_generation_are_as_many_of_each_family_and_base_model(hosts):
    config = config_of(hosts, **{"tasks.pool": 12})
    prompts = HostPrompts(tuple(make_prompts(config, load_host(str(host), any_decoder=True)[1]) for host in hosts))
    alone = prompts.hosts[0]
    drawn = prompts.drawn(TASKS, 2, seed=3, generation=5)
    assert drawn == prompts.drawn(TASKS, 2, seed=3, generation=5)
    assert drawn[:4] == alone.drawn(TASKS, 2, seed=3, generation=5)  # the first draws as it would alone
    pools = [pool for own in prompts.hosts for pool in own.train.values()]
    number = {id(prompt): place for pool in pools for place, prompt in enumerate(pool)}
    places = [
        [[number[id(prompt)] for prompt in prompts.drawn(TASKS, 2, 3, g)][part] for g in range(8)]
        for part in (slice(4), slice(4, 8))
    ]
    assert places[0] != places[1]  # another draw for each
    tasks = [prompt.example.task for prompt in drawn]
    assert tasks == [TASKS[0], TASKS[0], TASKS[1], TASKS[1]] * 2


def test_moments_are_those_of_both_together():
    draw = torch.Generator().manual_seed(0)
    samples = [torch.randn(500, 4, generator=draw, dtype=torch.float64) * scale + scale for scale in (1.0, 3.0)]
    moments = [(one.mean(0), one.var(0, correction=0)) for one in samples]
    mean, variance = pooled(moments)
    together = torch.cat(samples)
    torch.testing.assert_close(mean, together.mean(0))
    torch.testing.assert_close(variance, together.var(0, correction=0))
    assert pooled(moments[:1]) is moments[0]


def test_what_is_refused(hosts):
    with pytest.raises(MemxError, match="names a base model twice"):
        config_of((hosts[0], hosts[0]))
    with pytest.raises(MemxError, match="without numbers for each head") as caught:
        config_of(hosts, **{"namm.head_bias": True})
    assert "set namm.head_bias to false" in caught.value.hint
    with pytest.raises(MemxError, match="a table of head shares is of one base model"):
        config_of(hosts, **{"namm.allocation": "table"})
    with pytest.raises(MemxError, match=r"more_hosts.0.device is 'cpu', but host.device is 'auto'") as caught:
        config_of(hosts, more_hosts=[{"name": str(hosts[1]), "device": "cpu", "threads": 1}])
    assert caught.value.hint == "set them to the same"


def test_a_run_on_one_base_model_keeps_its_name():
    one = EvolveConfig(host=HostConfig(name="smollm2"))
    assert run_name(one.model_copy(update={"more_hosts": (HostConfig(name="gemma3-270m"),)})) != run_name(one)
    for folder in (Path(__file__).parents[3] / "results" / "reference" / "namm" / "runs").glob("namm-*"):
        assert run_name(load_evolution_config(str(folder / "config.yaml"))) == folder.name


@pytest.mark.parametrize("dtype", [None, "float16"], ids=str)
def test_the_memory_of_contexts_is_what_a_dry_run_says(hosts, tmp_path, dtype):
    config = config_of(hosts[:1], **{"fitness.context_dtype": dtype})
    base = BaseModel(*load_host(str(hosts[0]), any_decoder=True), "one")
    namm = Namm(scorer="linear", features=NO_PASS, rule=config_rule(config))
    evaluator = CandidateEvaluator(base.model, namm, masks=True, context_dtype=dtype and torch.float16)
    prompts = make_prompts(config, base.tokenizer).all
    for prompt in prompts:
        evaluator.evaluate(prompt, namm.parameters[None], 0.4)
    sizes = [size for _, cache in evaluator._shared.values() for size in cache.sizes()]
    found = sum(size.kv_bytes + size.bookkeeping_bytes for size in sizes)
    found += sum(inputs.nbytes for of_prompt in evaluator._inputs.values() for inputs in of_prompt.values())
    shape = host_shape(base.model.config, dtype or "float32", namm.width)
    of_length = [
        config.model_copy(update={"tasks": config.tasks.model_copy(update={"length": len(prompt.context)})})
        for prompt in prompts
    ]
    wanted = [context_bytes(one, shape, namm) for one in of_length]
    most_waiting = len(prompts) * shape.layers * shape.heads * 16 * shape.head_dim * 4  # queries below a whole hop
    assert sum(wanted) - most_waiting <= found <= sum(wanted)
    longest = evolution_cost(config, tmp_path).context_bytes  # 6 prompts to train on and 4 to validate
    assert longest == 10 * context_bytes(config, shape, namm)


def test_costs_add_up(hosts, tmp_path):
    both = evolution_cost(config_of(hosts), tmp_path)
    each = [evolution_cost(config_of((host,)), tmp_path) for host in hosts]
    for name in ("host_parameters", "prefills", "answers", "context_bytes", "train_prompts", "hours"):
        assert getattr(both, name) == pytest.approx(sum(getattr(one, name) for one in each)), name
    assert both.flops["answers"] == pytest.approx(sum(one.flops["answers"] for one in each))
    assert both.drawn == "4" and each[0].drawn == "2"
    assert both.host == f"{hosts[0]} + {hosts[1]}" and both.folder != each[0].folder
