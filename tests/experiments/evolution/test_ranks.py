"""`memx evolve-namm` on several ranks: one trajectory at any number, stops and deaths that a resumed run makes good."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import cma  # noqa: F401 - this, modeling_llama and its mapping take seconds: once, before worlds are forked
import pytest
import torch
import transformers.models.llama.modeling_llama  # noqa: F401
from memx.cli.main import run as memx
from memx.experiments.config.base import run_name, to_yaml
from memx.experiments.config.eviction.evolution import FitnessConfig
from memx.experiments.config.loading import load_evolution_config
from memx.experiments.data.long_context.example import Example
from memx.experiments.distributed.process_group import World
from memx.experiments.distributed.scheduling import Unit
from memx.experiments.eviction.answers import Prompt
from memx.experiments.evolution.candidates import CandidateEvaluator
from memx.experiments.evolution.fitness import FitnessEvaluator
from memx.experiments.evolution.ranks import DistributedEvaluator
from memx.experiments.evolution.run import evolve_namm
from memx.experiments.runtime.events import Note
from memx.experiments.runtime.options import Options
from memx.experiments.runtime.signals import StopRequest
from memx.namm import NO_PASS, Evolution
from memx.results.store.runs import RunStore

from ...ranks import end_worlds, run_worlds
from .tiny_evolution import settings, write_host

PRESET = "namm-smollm2"
with suppress(ImportError):  # of some versions
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("llama")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Three units a generation: one prompt, with two, two and one of five candidates."""
    host, tasks = write_host(tmp_path_factory.mktemp("host")), {"tasks__train": ["key_values"]}
    sizes = dict(fitness__at_once=2, evolution__population=5, evolution__generations=2)
    return load_evolution_config(PRESET, settings(host, **tasks, **sizes))


@pytest.fixture(scope="module")
def straight(config, tmp_path_factory):
    """What one process finds: (metrics, NAMM, rows)."""
    return evolved(config, tmp_path_factory.mktemp("runs"))[:3]


@pytest.fixture
def path(config, tmp_path):
    """The config as a file."""
    path = tmp_path / "mine.yaml"
    path.write_text(to_yaml(config))
    return path


def evolved(config, root, resume=False):
    """Metrics without the time that they took, the bytes of the NAMM, rows but those of speed, ranks, what was told."""
    notes, runs = [], Path(root)
    evolve_namm(config, Options(runs, resume=resume), notes.append)
    run = RunStore(runs).run(run_name(config))
    assert run.status == "finished" and not (run.folder / "state").exists()
    lines = [{key: value for key, value in line.items() if key != "seconds"} for line in run.metrics()]
    rows = [row.model_dump(exclude={"commit"}) for row in run.rows() if row.variant != "speed"]
    return lines, (run.folder / "namm" / "namm.safetensors").read_bytes(), rows, run.info()["ranks"], notes


def in_own_folder(config, root):
    return evolved(config, Path(root) / os.environ["WORLD_SIZE"])


def test_the_trajectory_is_the_same_at_any_number_of_ranks(config, straight, tmp_path):
    for size, ranks in run_worlds(in_own_folder, [2, 4], {"config": config, "root": tmp_path}).items():
        for rank, (*found, recorded, notes) in enumerate(ranks):
            assert tuple(found) == straight and recorded == size and bool(notes) == (rank == 0)
        told = [one.text for one in ranks[0][-1] if isinstance(one, Note)]
        idle = [
            "a generation has only 3 units of work, so 1 of 4 ranks are idle; lower fitness.at_once to split it further"
        ]
        assert told == (idle if size == 4 else [])


def test_a_search_around_a_fit_is_the_same_at_any_number_of_ranks(config, tmp_path):
    scorer = {"namm.scorer": "mlp", "namm.hidden": [6, 5], "namm.features": list(NO_PASS), "namm.head_bias": True}
    search = {"evolution.start": "fit", "evolution.space": "heads", "evolution.sigma": 1.0, "fit.prompts": 1}
    changes = {**scorer, **search, "fit.steps": 20, "namm.allocation": "global", "fitness.sharing": "masks"}
    source = tmp_path / "config.yaml"
    source.write_text(to_yaml(config))
    own = load_evolution_config(str(source), [*changes.items()])
    alone = evolved(own, tmp_path / "alone")[:3]
    for *found, recorded, _ in run_worlds(in_own_folder, [2], {"config": own, "root": tmp_path})[2]:
        assert tuple(found) == alone and recorded == 2


def command(path, runs, *more):
    return memx(["evolve-namm", str(path), "--runs", str(runs), *more])


def struck(number, **arguments):
    """The command, whose rank 1 sends itself a signal in the second generation."""
    evaluate, sizes = DistributedEvaluator.evaluate, []

    def strike(self, prompts, candidates, budgets):
        sizes.append(len(candidates))
        if self.world.rank == 1 and sizes.count(5) == 2:
            os.kill(os.getpid(), number)
        return evaluate(self, prompts, candidates, budgets)

    DistributedEvaluator.evaluate = strike
    return command(**arguments)


def test_a_rank_that_dies_ends_the_run_and_another_number_of_ranks_goes_on(config, straight, path, tmp_path):
    first, dead = end_worlds(struck, [2], {"number": signal.SIGKILL, "path": path, "runs": tmp_path})[2]
    assert dead.code == -signal.SIGKILL and first.result == 1
    assert "failed: one of the 2 ranks was lost" in first.printed and "--resume to continue" in first.printed
    assert "generation 1/2" in first.printed and "generation 2/2" not in first.printed
    run = RunStore(tmp_path).run(run_name(config))
    assert run.status == "failed" and "ranks was lost" in run.info()["error"]
    ranks = run_worlds(evolved, [3], {"config": config, "root": tmp_path, "resume": True})[3]
    assert all(tuple(found) == straight for *found, _, _ in ranks)
    assert Note("resumed after generation 1") in ranks[0][-1]


def test_a_stop_that_one_rank_is_asked_for_stops_all(config, straight, path, tmp_path):
    ranks = end_worlds(struck, [2], {"number": signal.SIGTERM, "path": path, "runs": tmp_path})[2]
    assert [one.result for one in ranks] == [130] * 2 and not any(one.printed for one in ranks[1:])
    assert "interrupted: stopped in generation 2; the state before it is saved" in ranks[0].printed
    assert RunStore(tmp_path).run(run_name(config)).status == "interrupted"
    assert tuple(evolved(config, tmp_path, resume=True)[:3]) == straight


def failing(path, runs):
    evaluate = CandidateEvaluator.evaluate

    def fail(self, prompt, parameters, budget):
        if os.environ["RANK"] == "1":
            raise ValueError("no such luck")
        return evaluate(self, prompt, parameters, budget)

    CandidateEvaluator.evaluate = fail
    return command(path, runs)


def test_a_failure_of_any_rank_is_told_once(path, tmp_path):
    first, second = end_worlds(failing, [2], {"path": path, "runs": tmp_path})[2]
    assert first.result == second.result == 1 and not second.printed, (first, second)
    assert "unexpected error: ValueError: no such luck" in first.printed
    (run,) = RunStore(tmp_path).runs()
    assert run.status == "failed" and run.info()["error"] == "ValueError: no such luck"
    first, second = end_worlds(command, [2], {"path": path, "runs": tmp_path})[2]
    assert first.result == second.result == 2 and "exists" in first.printed and not second.printed


def drifting(path, runs):
    """The command, whose rank 1 asks other candidates than rank 0, as if its processor rounded otherwise."""
    ask = Evolution.ask
    Evolution.ask = lambda self: ask(self) * (1 + 1e-15 * int(os.environ["RANK"]))
    return command(path, runs)


def test_ranks_whose_evolutions_drift_apart_end_with_a_clear_line(path, tmp_path):
    first, second = end_worlds(drifting, [2], {"path": path, "runs": tmp_path})[2]
    assert first.result == second.result == 1 and not second.printed, (first, second)
    assert "failed: the candidates of rank 1 differ from rank 0" in first.printed
    (run,) = RunStore(tmp_path).runs()
    assert run.status == "failed" and (run.folder / "state").is_dir()


def prompt(context):
    return Prompt(Example("a", "", "", ("",), "string_match_part"), torch.zeros(context), torch.zeros(10), 1)


def evaluator_of(ranks, prompts, **options):
    config = FitnessConfig(**options)
    candidates = CandidateEvaluator(None, None, mode=config.mode, remember=config.remember)
    return DistributedEvaluator(World(0, ranks), FitnessEvaluator(candidates, None, config), prompts, StopRequest())


def places(shares):
    return [{unit.place for unit in share} for share in shares]


def test_contexts_stay_where_they_were_read():
    ranks = evaluator_of(3, [prompt(1000) for _ in range(6)], at_once=8)
    first = ranks.shares(range(6), 16)
    assert sorted(unit for share in first for unit in share) == ranks.units(6, 16) and len(ranks.units(6, 16)) == 12
    held = places(first)
    assert [len(own) for own in held] == [2, 2, 2] and set().union(*held) == set(range(6))
    assert places(ranks.shares(range(6), 16)) == held
    drawn = [*held[2], *held[0], *held[1]]
    assert places(ranks.shares(drawn, 16)) == [{2, 3}, {4, 5}, {0, 1}]
    ranks.release_contexts()
    assert places(ranks.shares(drawn, 16)) == places(first)


def test_no_rank_is_idle_while_another_has_more_than_it_could_give():
    assert [len(share) for share in evaluator_of(4, [prompt(1000)], at_once=100).shares([0], 400)] == [1, 1, 1, 1]
    assert evaluator_of(2, [prompt(1000)], at_once=32).shares([0], 7) == [[Unit(0, 0, 7)], []]
    for options in ({"remember": False}, {"mode": "online"}):
        shares = evaluator_of(4, [prompt(10**6), prompt(10)], at_once=2, **options).shares([0, 1], 16)
        assert {len([unit for unit in share if unit.place == 0]) for share in shares} == {2}


MORTAL = """if True:
    import os, signal, sys
    from memx.cli.main import run
    from memx.experiments.evolution.ranks import DistributedEvaluator
    evaluate, sizes = DistributedEvaluator.evaluate, []
    def mortal(self, prompts, candidates, budgets):
        sizes.append(len(candidates))
        if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == "1" and sizes.count(5) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return evaluate(self, prompts, candidates, budgets)
    DistributedEvaluator.evaluate = mortal
    sys.exit(run(sys.argv[1:]))"""


@pytest.mark.slow
def test_torchrun_starts_anew_what_a_death_has_ended(config, straight, path, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = [sys.executable, "-c", MORTAL, "evolve-namm", str(path), "--runs", str(tmp_path)]
    once = [*launcher, "--max-restarts", "0", "--no-python", *program]
    done = subprocess.run(once, capture_output=True, text=True)
    assert done.returncode == 1 and "failed: one of the 2 ranks was lost" in done.stderr, done.stderr
    run = RunStore(tmp_path).run(run_name(config))
    assert run.status == "failed" and len([line for line in run.metrics() if "best" in line]) == 1
    shutil.rmtree(run.folder)
    done = subprocess.run(
        [*launcher, "--max-restarts", "1", "--no-python", *program, "--resume"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "resumed after generation 1" in done.stderr, done.stderr
    assert done.stdout.count("Fitness: initial") == 2  # of validation and test, by one rank
    assert tuple(evolved(config, tmp_path, resume=True)[:3]) == straight


@pytest.mark.slow
def test_an_interrupt_of_torchrun_ends_all_ranks_with_what_they_have(config, path, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    program = [
        sys.executable,
        "-m",
        "memx",
        "evolve-namm",
        str(path),
        "--generations",
        "10000",
        "--runs",
        str(tmp_path),
    ]
    with subprocess.Popen([*launcher, *program], stderr=subprocess.PIPE, text=True) as started:
        told = []
        for line in started.stderr:
            told.append(line)
            if "generation 1/10000" in line:
                started.send_signal(signal.SIGINT)
    (run,) = RunStore(tmp_path).runs()
    assert started.returncode and run.status == "interrupted" and "interrupted: stopped in generation" in "".join(told)
