"""More steps after a run has finished: exact where the learning rates allow it, and never a start from nothing."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from memx.cli.main import run
from memx.errors import MemxError
from memx.experiments.checkpoints.states import saved_states
from memx.experiments.config.loading import load_config
from memx.experiments.config.points import plan
from memx.experiments.runtime.options import Options
from memx.experiments.training.lengthen import find_start, remove_state
from memx.experiments.training.sweep import train_points
from memx.results.store.runs import Run
from safetensors.torch import load_file

CONSTANT = {
    "training.final_lr": 1.0, "training.threads": 1, "training.warmup": 3, "evaluation.every": None,
    "evaluation.questions": 5, "evaluation.final_questions": 5, "training.batch": 16,
}  # fmt: skip


def trained(runs: Path, steps: int, *, resume: bool = False, **changes) -> tuple[Run, list[str]]:
    """The run of so many steps, and the notes of training it."""
    settings = {
        **CONSTANT,
        "training.steps": steps,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    (point,) = planned = plan(load_config("tiny", settings.items()))
    notes: list[str] = []
    train_points(planned, Options(runs, resume=resume), lambda index, event: notes.append(getattr(event, "text", "")))
    return Run(runs / point.name), notes


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.folder / "checkpoint" / "model.safetensors")


def test_more_steps_continue_a_finished_run_bit_for_bit(tmp_path):
    shorter, _ = trained(tmp_path / "runs", 4)
    assert [state.name for state in saved_states(shorter.folder / "state")] == ["step-00000004"]
    longer, notes = trained(tmp_path / "runs", 8, resume=True)
    assert f"continues {shorter.name} from its step 4" in notes and "resumed at step 4" in notes
    straight, _ = trained(tmp_path / "straight", 8)
    assert longer.name == straight.name and shorter.status == longer.status == "finished"
    first, second = weights(longer), weights(straight)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert longer.info()["continued_from"] == {"run": shorter.name, "step": 4, "same_schedule": True}
    losses = [[(line["step"], line["loss"]) for line in found.metrics()] for found in (longer, straight)]
    assert [loss for loss in losses[0] if loss in losses[1]] == losses[1]


@pytest.mark.slow
def test_a_schedule_of_other_steps_is_said(tmp_path):
    shorter, _ = trained(tmp_path, 6, training__final_lr=0.1)
    longer, notes = trained(tmp_path, 8, resume=True, training__final_lr=0.1)
    (said,) = [note for note in notes if note.startswith("continues")]
    assert "the learning rates of 6 steps up to there are not those of 8" in said
    assert longer.info()["continued_from"]["same_schedule"] is False and longer.info()["steps"] == 8
    again, _ = trained(tmp_path, 8, resume=True, training__final_lr=0.1)
    assert again.info() == longer.info()
    # the facts must be the same ones
    assert weights(shorter).keys() == weights(again).keys()


@pytest.mark.slow
def test_a_base_model_starts_from_no_run_of_other_steps(tmp_path):
    trained(tmp_path, 2)
    (point,) = planned = plan(load_config("tiny", {**CONSTANT, "training.steps": 3}.items()))
    train_points(planned, Options(tmp_path, resume=True, lengthen=False), lambda index, event: None)
    assert "continued_from" not in Run(tmp_path / point.name).info()


@pytest.fixture
def finished(tmp_path, tiny_run) -> tuple[Path, Run]:
    """A finished run of 40 steps that kept its state, in a folder of its own."""
    copy = Path(shutil.copytree(tiny_run[0].folder, tmp_path / tiny_run[0].name))
    return tmp_path, Run(copy)


def longer_config(run: Run, **changes):
    settings = {"training.steps": 60, **{key.replace("__", "."): value for key, value in changes.items()}}
    (point,) = plan(load_config(str(run.folder / "config.yaml"), settings.items()))
    return point


def test_the_run_with_the_same_rates_or_most_steps_is_taken(finished):
    runs, run = finished
    point = longer_config(run)
    start = find_start(point.config, Run(runs / point.name))
    assert start is not None and start.run.name == run.name and start.step == 40 and not start.exact
    for other in (dict(training__lr=1e-4), dict(seed=1), dict(memory__slots=64), dict(training__steps=20)):
        point = longer_config(run, **other)
        assert find_start(point.config, Run(runs / point.name)) is None
    # what changes no step is no other run
    for same in (dict(training__log_every=7), dict(training__checkpoint_every=3), dict(evaluation__questions=3)):
        point = longer_config(run, **same)
        assert find_start(point.config, Run(runs / point.name)) is not None
    info = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps({**info, "status": "failed", "diverged": 3}))
    assert find_start(longer_config(run).config, Run(runs / "tiny-x")) is None


def test_a_finished_run_without_a_state_is_said_and_not_begun_anew(finished, capsys):
    runs, run_ = finished
    shutil.rmtree(run_.folder / "state")
    point = longer_config(run_)
    with pytest.raises(MemxError, match="finished its 40 steps and kept no state to continue to 60") as error:
        find_start(point.config, Run(runs / point.name))
    assert f"--init-from {run_.folder}" in error.value.hint
    with pytest.raises(MemxError, match="kept no state"):
        train_points([point], Options(runs, resume=True), lambda index, event: None)
    command = ["train", "--config", str(run_.folder / "config.yaml"), "--steps", "60", "--runs", str(runs), "--resume"]
    assert run(command) == 2 and "kept no state" in capsys.readouterr().err
    assert [folder.name for folder in runs.iterdir()] == [run_.name]


def test_a_state_is_kept_if_it_is_small_or_asked_for(finished):
    _, run = finished
    (kept,) = plan(load_config(str(run.folder / "config.yaml")))
    remove_state(kept.config, run.folder / "state")
    assert saved_states(run.folder / "state")
    (without,) = plan(load_config(str(run.folder / "config.yaml"), [("training.keep_state", False)]))
    assert without.name == kept.name  # the same run
    remove_state(without.config, run.folder / "state")
    assert not (run.folder / "state").exists()


def test_a_damaged_run_in_the_folder_stands_in_no_way(finished):
    runs, run = finished
    (runs / "tiny-broken").mkdir()
    (runs / "tiny-broken" / "config.yaml").write_bytes(b"\xff\x00")
    point = longer_config(run)
    assert find_start(point.config, Run(runs / point.name)) is not None
