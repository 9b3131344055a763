"""Training: it learns, and a run that is killed or stopped ends bit-identical to one that never was."""

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.runtime.events import Step
from memx.experiments.runtime.signals import Interrupted, StopRequest
from memx.results.store.runs import RunStore
from safetensors.torch import load_file

from .tiny_host import point, train


class Killed(BaseException):
    pass


def weights(runs, name):
    return load_file(runs / name / "checkpoint" / "model.safetensors")


def kill_at(step):
    def report(event):
        if isinstance(event, Step) and event.step == step:
            raise Killed

    return report


def test_a_killed_or_stopped_run_ends_as_one_that_never_was(tmp_path):
    whole = train(tmp_path / "whole").name
    stop = StopRequest()

    def ask(event):
        stop.asked = stop.asked or (isinstance(event, Step) and event.step == 3)

    with pytest.raises(Killed):
        train(tmp_path / "killed", kill_at(5))
    with pytest.raises(Interrupted, match="step 3"):
        train(tmp_path / "stopped", ask, stop)
    for name in ("killed", "stopped"):
        assert RunStore(tmp_path / name).run(whole).status in ("interrupted", "running")
        train(tmp_path / name)
        expected, found = weights(tmp_path / "whole", whole), weights(tmp_path / name, whole)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected), name
        rows = [RunStore(tmp_path / one).run(whole).rows() for one in ("whole", name)]
        assert [row.value for row in rows[0]] == [row.value for row in rows[1]]
        steps = [line["step"] for line in RunStore(tmp_path / name).run(whole).metrics()]
        assert steps == [2, 4, 6]


def test_other_seeds_make_other_models(tmp_path):
    names = [train(tmp_path, seed=seed).name for seed in (0, 1)]
    first, second = (weights(tmp_path, name) for name in names)
    assert not torch.equal(first["head.weight"], second["head.weight"])
    assert torch.equal(first["state_mean"], second["state_mean"])  # of the same episodes


def test_the_loss_falls(tmp_path):
    found = train(tmp_path, **{"training.steps": 60, "training.lr": 0.01, "training.log_every": 1})
    losses = [line["loss"] for line in RunStore(tmp_path).run(found.name).metrics()]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_rows_say_what_was_learned_from_and_what_came_of_it(tmp_path):
    found = train(tmp_path)
    rows = {(row.dataset, row.metric): row for row in RunStore(tmp_path).run(found.name).rows()}
    low, high = rows["random policy", "return"].value, rows["expert policy", "return"].value
    score = rows["episodes", "return"]
    assert score.n == 4 and rows["episodes", "normalised"].value == pytest.approx(
        100 * (score.value - low) / (high - low)
    )
    assert {"random episodes", "medium episodes", "expert episodes"} <= {dataset for dataset, _ in rows}


def test_a_state_of_another_model_is_refused(tmp_path):
    found = point()
    with pytest.raises(Killed):
        train(tmp_path, kill_at(4))
    (state,) = (tmp_path / found.name / "state").iterdir()
    (state / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(MemxError, match=r"model.safetensors"):
        train(tmp_path)
