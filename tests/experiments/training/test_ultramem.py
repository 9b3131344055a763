"""Training with UltraMem: exact resume, several processes, the loss on cores, combinations that are refused."""

import os
import signal
from pathlib import Path

import pytest
import torch
from memx.cli.main import run
from memx.experiments.config.loading import load_config
from memx.experiments.config.points import plan
from memx.experiments.runtime.options import Options
from memx.experiments.runtime.signals import Interrupted
from memx.experiments.training.loss import core_loss, core_weight
from memx.experiments.training.sweep import train_points
from memx.memory_layers.config import MemoryConfig
from memx.memory_layers.ultramem.layer import UltraMemLayer
from memx.memory_layers.ultramem.tucker import excess
from memx.results.store.runs import RunStore
from safetensors.torch import load_file

from tests.exact import float64
from tests.ranks import run_worlds

SETTINGS = {
    "memory.kind": "ultramem", "memory.layers": [0, 1], "memory.slots": 256, "memory.top_k": 4,
    "data.biographies": 20, "data.seed": 1, "training.steps": 6, "training.batch": 12, "training.accumulate": 2,
    "training.threads": 1, "training.checkpoint_every": 3, "evaluation.every": None, "evaluation.final_questions": 10,
    "training.log_every": 1, "training.value_optimizer": "sparse", "training.value_schedule": "linear",
}  # fmt: skip


def planned(changes: dict):
    return plan(load_config("tiny", {**SETTINGS, **changes}.items()))


def train(runs: Path, changes: dict, resume: bool = False, stop: int | None = None) -> Path:
    def report(index, event):
        if stop is not None and getattr(event, "step", None) == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    (point,) = planned(changes)
    train_points([point], Options(runs, resume=resume), report)
    return runs / point.name


def train_exactly(runs: Path, changes: dict) -> None:
    with float64():
        train(runs, changes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoint" / "model.safetensors")


EVERY = {"memory.place": "every", "memory.units": True}


@pytest.mark.parametrize("changes", [{"training.value_dtype": "bfloat16"}, {**EVERY, "memory.rank": 1}], ids=str)
def test_a_stopped_and_resumed_run_ends_bit_identical(tmp_path, changes):
    straight = weights(train(tmp_path / "straight", changes))
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", changes, stop=3)
    resumed = weights(train(tmp_path / "stopped", changes, resume=True))
    assert straight.keys() == resumed.keys() and all(torch.equal(straight[name], resumed[name]) for name in straight)


@pytest.mark.parametrize(
    "changes",
    [
        {"parallel.table": "width"},
        pytest.param({"parallel.table": "rows", "parallel.shard": 2}, marks=pytest.mark.slow),
        pytest.param({**EVERY, "parallel.table": "replicated"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_losses_of_two_processes_are_those_of_one(tmp_path, changes):
    train_exactly(tmp_path / "one", changes)
    run_worlds(train_exactly, (2,), {"runs": tmp_path / "two", "changes": changes})
    (point,) = planned(changes)
    one, two = (RunStore(tmp_path / name).run(point.name) for name in ("one", "two"))
    losses = [[line["loss"] for line in found.metrics() if "loss" in line] for found in (one, two)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-11)
    mine, theirs = weights(one.folder), weights(two.folder)
    for name, weight in mine.items():
        torch.testing.assert_close(theirs[name], weight, rtol=1e-9, atol=1e-10)


def test_the_loss_on_cores_is_their_excess_weighed():
    layers = [UltraMemLayer(16, 64, heads=1, top_k=2) for _ in range(2)]
    for layer, value in zip(layers, (0.5, 0.9), strict=True):
        with torch.no_grad():
            layer.core.copy_(torch.diag(torch.tensor([1.0, value])))
        layer(torch.randn(3, 16))
    expected = 0.01 * sum(excess(layer.core) for layer in layers)
    torch.testing.assert_close(core_loss(layers, 0.01), expected)
    core_loss(layers, 0.01).backward()
    assert all(layer.core.grad[1, 1] > 0 for layer in layers)
    assert core_loss([], 0.01) == 0.0 and core_loss([UltraMemLayer(16, 64, rank=1, top_k=2)], 1.0) == 0.0


def test_the_weight_of_the_loss_on_cores():
    assert core_weight(MemoryConfig(kind="ultramem", core_penalty=0.5)) == 0.5
    both = MemoryConfig(kind="moe", also=({"kind": "ultramem", "core_penalty": 0.25},))
    assert core_weight(both) == 0.25


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["memory.expansion=3"], "expansion 3 is not a square number"),
        (["memory.gating=true"], "gating is not supported with kind ultramem"),
        (["memory.rank=5"], "cannot be split into 2 halves of 5 equal parts"),
        (["memory.units=true", "parallel.host_values=true"], "tables of units cannot be offloaded to CPU memory"),
        (["training.value_schedule=cosine"], "value_schedule"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(changes, said, tmp_path, capsys):
    sets = [part for change in ("memory.kind=ultramem", "sweep={}", *changes) for part in ("--set", change)]
    assert run(["train", "tiny", "--runs", str(tmp_path), *sets]) == 2
    assert said in capsys.readouterr().err and not list(tmp_path.glob("*/checkpoint"))
