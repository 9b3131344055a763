"""Training over several processes: the losses of one, states that any number goes on from, clean ends.

Whatever is compared by its numbers is trained in float64.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from memx.cli.main import run
from memx.errors import MemxError
from memx.experiments.checkpoints import tensor_files as tensor_parts
from memx.experiments.checkpoints.convert import convert_state
from memx.experiments.config.loading import load_config
from memx.experiments.config.points import plan
from memx.experiments.runtime.options import Options
from memx.experiments.runtime.signals import Interrupted
from memx.experiments.training.sweep import train_points
from memx.results.store.runs import RunStore
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.exact import float64
from tests.experiments.base_models.llama3 import write_llama3
from tests.ranks import end_worlds, run_worlds

SETTINGS = {
    "memory.kind": "memory+", "memory.layers": [0, 1], "data.biographies": 20, "data.seed": 1,
    "training.steps": 16, "training.batch": 12, "training.accumulate": 2, "training.threads": 1,
    "training.checkpoint_every": 8, "evaluation.every": None, "evaluation.final_questions": 10, "training.log_every": 1,
    "training.value_optimizer": "sparse",
}  # fmt: skip


def quiet(index, event):
    pass


def train(runs: Path, changes: dict | None = None, resume: bool = False) -> None:
    train_points(
        plan(load_config("tiny", {**SETTINGS, **(changes or {})}.items())), Options(runs, resume=resume), quiet
    )


def train_exactly(runs: Path, changes: dict | None = None, resume: bool = False) -> None:
    with float64():
        train(runs, changes, resume)


def folder(runs: Path, changes: dict | None = None) -> Path:
    (point,) = plan(load_config("tiny", {**SETTINGS, **(changes or {})}.items()))
    return runs / point.name


def losses(runs: Path, changes: dict | None = None) -> list[float]:
    return [line["loss"] for line in RunStore(runs).run(folder(runs, changes).name).metrics() if "loss" in line]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    runs = tmp_path_factory.mktemp("alone")
    train_exactly(runs)
    return runs


@pytest.mark.parametrize("size", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_losses_and_answers_of_several_processes_are_those_of_one(size, alone, tmp_path):
    runs = tmp_path / str(size)
    run_worlds(train_exactly, (size,), {"runs": runs})
    assert losses(runs) == pytest.approx(losses(alone), abs=1e-11)
    one, other = (RunStore(place).run(folder(place).name) for place in (alone, runs))
    for mine, theirs in zip(one.metrics(), other.metrics(), strict=True):
        assert mine["tokens"] == theirs["tokens"] and mine["memory_use"].keys() == {"0", "1"}
        for block, use in mine["memory_use"].items():
            assert theirs["memory_use"][block] == pytest.approx(use)
    known = [[(row.dataset, row.metric) for row in run.rows()] for run in (one, other)]
    assert known[0] == known[1]
    assert {row.parameters_total for row in one.rows()} == {row.parameters_total for row in other.rows()}
    mine, theirs = (load_file(folder(place) / "checkpoint" / "model.safetensors") for place in (alone, runs))
    assert mine.keys() == theirs.keys()
    for name, weight in mine.items():
        torch.testing.assert_close(theirs[name], weight, rtol=1e-9, atol=1e-10)


def stop_at_eight(runs: Path, changes: dict | None = None) -> None:
    """A run that is stopped at step 8, its state saved."""

    def report(index, event):
        if getattr(event, "step", None) == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    config = load_config("tiny", {**SETTINGS, **(changes or {})}.items())
    with pytest.raises(Interrupted):
        train_points(plan(config), Options(runs), report)


def stop_exactly_at_eight(runs: Path, changes: dict | None = None) -> None:
    with float64():
        stop_at_eight(runs, changes)


@pytest.mark.parametrize(
    ("began", "ends", "changes"),
    [
        (4, (2, 1), {}),
        pytest.param(1, (4,), {}, marks=pytest.mark.slow),
        pytest.param(
            2, (4, 1), {"parallel.table": "rows", "training.value_second_moment": "row"}, marks=pytest.mark.slow
        ),
        pytest.param(4, (2,), {"parallel.shard": 2, "parallel.table_ranks": 2}, marks=pytest.mark.slow),
    ],
)
def test_a_state_of_some_processes_is_gone_on_from_by_others(began, ends, changes, tmp_path):
    train_exactly(tmp_path / "straight", changes)
    expected = losses(tmp_path / "straight", changes)
    begin(began, tmp_path / "began", changes)
    (state,) = (folder(tmp_path / "began", changes) / "state").glob("step-*")
    assert (state / "model").is_dir() == (began > 1)
    for size in ends:
        runs = tmp_path / str(size)
        shutil.copytree(tmp_path / "began", runs)
        if size == 1:
            train_exactly(runs, changes, resume=True)
        else:
            run_worlds(train_exactly, (size,), {"runs": runs, "changes": changes, "resume": True})
        assert losses(runs, changes) == pytest.approx(expected, abs=1e-11)
        assert RunStore(runs).run(folder(runs, changes).name).status == "finished"


def begin(size: int, runs: Path, changes: dict) -> None:
    if size == 1:
        stop_exactly_at_eight(runs, changes)
    else:
        run_worlds(stop_exactly_at_eight, (size,), {"runs": runs, "changes": changes})


def stop_in_small_groups(runs: Path) -> None:
    tensor_parts._AT_ONCE = 10_000
    stop_exactly_at_eight(runs)


def test_a_state_becomes_a_folder_that_transformers_reads(alone, tmp_path, monkeypatch):
    run_worlds(stop_in_small_groups, (2,), {"runs": tmp_path})
    place = folder(tmp_path)
    assert len([*place.glob("state/step-*/model/*/")]) > 3
    convert_state(place / "state", place / "one")
    monkeypatch.setattr("memx.experiments.checkpoints.convert._LARGEST", 200_000)
    convert_state(place / "state", place / "many")
    assert len([*(place / "many").glob("model-*.safetensors")]) > 1
    one, many = (AutoModelForCausalLM.from_pretrained(place / name) for name in ("one", "many"))
    assert len(AutoTokenizer.from_pretrained(place / "one")) == one.config.vocab_size
    other = dict(many.named_parameters())
    assert all(torch.equal(weight, other[name]) for name, weight in one.named_parameters())
    shutil.copytree(tmp_path, tmp_path / "goes on", ignore=lambda _, names: {"one", "many", "goes on"} & {*names})
    train_exactly(tmp_path / "goes on", resume=True)
    assert losses(tmp_path / "goes on") == pytest.approx(losses(alone), abs=1e-11)
    shutil.rmtree(place / "state")
    with pytest.raises(MemxError, match="has no sharded checkpoint"):
        convert_state(place / "state", place / "none")


def die_at_ten(runs: Path) -> None:
    """A run whose last rank is killed in step 10, as the command line ends it."""
    from memx.experiments.training.step import TrainStep

    train_step = TrainStep.__call__

    def dying(self, batch, step):
        if step == 10 and self.parallelism.world.rank == self.parallelism.world.size - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return train_step(self, batch, step)

    TrainStep.__call__ = dying
    with float64():
        command(runs, {}, [])


def test_a_killed_rank_ends_the_run_with_a_clear_line_and_it_goes_on_from_the_last_state(alone, tmp_path):
    (ended,) = end_worlds(die_at_ten, (2,), {"runs": tmp_path}).values()
    assert [one.code for one in ended] == [1, -signal.SIGKILL]
    (line,) = [line for line in ended[0].printed.splitlines() if line.startswith("failed")]
    assert "ranks was lost" in line and "--resume" in line
    assert RunStore(tmp_path).run(folder(tmp_path).name).status == "failed"
    run_worlds(train_exactly, (2,), {"runs": tmp_path, "resume": True})
    assert losses(tmp_path) == pytest.approx(losses(alone), abs=1e-11)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parallel.shard": 3}, "is not a divisor of the 2 processes"),
        ({"parallel.table_ranks": 3}, "is not a divisor of the 2 processes"),
        ({"training.value_optimizer": "dense"}, "supports only one process"),
        (
            {"model.width": 30, "model.heads": 3, "memory.key_width": 16, "memory.value_width": 31},
            "cannot be split evenly",
        ),
    ],
)
def test_what_cannot_be_laid_out_is_one_line(changes, said, tmp_path):
    (ended,) = end_worlds(command, (2,), {"runs": tmp_path, "changes": changes, "more": []}).values()
    assert [one.code for one in ended] == [2, 2]
    assert said in ended[0].printed
    assert not any(path.name != ".lock" for path in tmp_path.rglob("*") if path.is_file())


def test_auto_goes_on_with_the_value_step_that_a_run_began_with(tmp_path):
    changes = {"training.value_optimizer": "auto"}  # dense in one process: a step reads more rows than there are
    run_worlds(stop_at_eight, (2,), {"runs": tmp_path, "changes": changes})
    train(tmp_path, changes, resume=True)
    run = RunStore(tmp_path).run(folder(tmp_path, changes).name)
    assert {(row.model_extra or {})["value_step"] for row in run.rows()} == {"sparse"}
    dense = tmp_path / "dense"
    stop_at_eight(dense, changes)
    (ended,) = end_worlds(command, (2,), {"runs": dense, "changes": changes, "more": ["--resume"]}).values()
    assert [one.code for one in ended] == [2, 2] and "was started with the dense value optimizer" in ended[0].printed
    train(dense, changes, resume=True)


def test_how_processes_lie_is_no_part_of_a_runs_name_but_a_sweep_over_it_has_as_many_points(tmp_path):
    other = {"parallel.table": "rows", "parallel.shard": 1, "training.accumulate": 3}
    assert folder(tmp_path) == folder(tmp_path, other)
    run_worlds(stop_at_eight, (2,), {"runs": tmp_path})
    run_worlds(train, (2,), {"runs": tmp_path, "changes": other, "resume": True})
    found = [line for line in RunStore(tmp_path).run(folder(tmp_path).name).metrics() if "loss" in line]
    assert [line["step"] for line in found] == [*range(1, 17)]
    swept = load_config("tiny", {**SETTINGS, "sweep": {"parallel.table": ["width", "rows"]}}.items())
    assert len({point.name for point in plan(swept)}) == 2


def test_a_pretrained_start_learns_a_corpus_over_processes_and_keeps_what_it_generates_by(tmp_path):
    source = write_llama3(tmp_path / "llama")
    changes = {
        "finetune.source": str(source), "finetune.train": "memory", "memory.insertion": "beside",
        "memory.key_width": 8, "corpus.sources": ["python-docs"], "corpus.lanes": 2, "corpus.held_out": 0.1,
        "corpus.blocks": 2, "training.steps": 3,
    }  # fmt: skip
    train_exactly(tmp_path / "1", changes)
    run_worlds(train_exactly, (2,), {"runs": tmp_path / "2", "changes": changes})
    assert losses(tmp_path / "2", changes) == pytest.approx(losses(tmp_path / "1", changes), abs=1e-11)
    one, two = (folder(tmp_path / size, changes) / "checkpoint" for size in "12")
    for name in ("generation_config.json", "config.json"):
        assert json.loads((one / name).read_text()) == json.loads((two / name).read_text())


def command(runs: Path, changes: dict, more: list[str]) -> None:
    sets = [part for key, value in {**SETTINGS, **changes}.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    sys.exit(run(["train", "tiny", "--runs", str(runs), *sets, *more]))
