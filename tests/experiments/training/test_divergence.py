"""A run whose numbers are no longer finite ends as failed, says why, and leaves neither rows nor a damaged state."""

import json

import pytest
import torch
from memx.cli.main import run
from memx.errors import MemxError
from memx.experiments.checkpoints.state_tensors import first_not_finite
from memx.experiments.config.loading import load_config
from memx.experiments.optim.optimizer import Optimizer
from memx.experiments.training.divergence import check_rows, diverged
from memx.results.store.rows import Row
from memx.results.store.runs import RunStore


def test_weights_that_the_last_step_broke_are_no_finished_run(tmp_path, monkeypatch, capsys):
    step = Optimizer.step

    def broken(self, number):
        norms = step(self, number)
        self.groups["matrices"][0][1].data[0, 0] = torch.nan
        return norms

    monkeypatch.setattr(Optimizer, "step", broken)
    command = ["train", "tiny", "--steps", "1", "--set", "training.threads=1", "--runs", str(tmp_path)]
    assert run(command) == 1
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert "diverged at step 1: model.embed_tokens.weight is not finite; lower training.lr (now 0.003)" in line
    (found,) = RunStore(tmp_path).runs()
    assert found.status == "failed" and found.rows() == [] and "not finite" in found.info()["error"]
    assert not (found.folder / "checkpoint").exists() and not list(found.folder.glob("state/*"))
    assert run([*command, "--resume"]) == 1
    assert "diverged at step 1 and would diverge again; train with a lower" in capsys.readouterr().err
    assert run(["runs", "--runs", str(tmp_path)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_the_other_runs_of_a_sweep_are_trained_all_the_same(tmp_path, jobs):
    sweep = ["--set", "sweep={training.lr: [1.0e+12, 0.001]}", "--set", "training.checkpoint_every=1"]
    assert run(["train", "tiny", *sweep, "--steps", "6", "--runs", str(tmp_path), "--jobs", jobs]) == 1
    lasting, diverging = RunStore(tmp_path).runs()
    assert (lasting.status, diverging.status) == ("finished", "failed")
    assert "diverged at step" in diverging.info()["error"] and diverging.info()["diverged"] < 6
    for line in diverging.metrics():
        json.dumps(line, allow_nan=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_first_tensor_that_is_not_finite_is_named(dtype):
    good = {"empty": torch.zeros(0, dtype=dtype), "whole": torch.ones(3, dtype=torch.int32)}
    good |= {
        "scalar": torch.tensor(-1.0, dtype=dtype),
        "large": torch.full((4, 4), torch.finfo(dtype).max, dtype=dtype),
    }
    assert first_not_finite(good) is None
    for value in (torch.nan, torch.inf, -torch.inf):
        broken = torch.zeros(5, 3, dtype=dtype)
        broken[2, 1] = value
        assert first_not_finite({**good, "broken": broken, "later": broken}) == "broken"


def test_rows_are_finite_or_named():
    row = Row(run="r", experiment="r", kind="dense", model="m", dataset="seen", metric="nll", value=1.0, n=1)
    assert check_rows([row, row.model_copy(update={"stderr": 0.1, "low": 0.8, "high": 1.2})]) is None
    assert check_rows([row, row.model_copy(update={"value": float("inf")})]) == "nll of seen is inf"
    assert check_rows([row.model_copy(update={"stderr": float("nan")})]) == "nll of seen is nan"


def test_the_error_says_which_rates_to_lower():
    tiny = load_config("tiny", [("memory.slots", 0), ("training.lr", 0.5)])
    assert str(diverged(tiny, "r", 7, "the loss is inf")) == (
        "r diverged at step 7: the loss is inf; lower training.lr (now 0.5)"
    )
    assert "value_lr (now 0.05)" in str(diverged(load_config("tiny"), "r", 7, "the gradient_norm is nan", 2.5))
    assert not isinstance(diverged(tiny, "r", 0, ""), MemxError)
