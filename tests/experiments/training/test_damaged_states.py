"""A saved state is taken whole or not at all: what is not the run's own is named by file and tensor or key."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from memx import MemoryLlamaForCausalLM
from memx.errors import MemxError
from memx.experiments.checkpoints.checkpoint import WholeFiles
from memx.experiments.checkpoints.distributed_state import load_sharded_state
from memx.experiments.checkpoints.states import begun_value_step, saved_states
from memx.experiments.config.training import TrainingConfig
from memx.experiments.distributed.parallel import SingleProcess
from memx.experiments.models.slot_usage import SlotUsage
from memx.experiments.optim.optimizer import Optimizer
from safetensors.torch import load_file, save_file

NORM = "model.norm.weight"
MOMENT = f"{NORM}/exp_avg"
ONE = torch.ones(1, dtype=torch.int32)


@pytest.fixture
def saved(tmp_path, tiny_run) -> tuple[WholeFiles, Path]:
    """What reads the states of a finished run, and a copy of its last state."""
    source = tiny_run[0].folder
    folder = Path(shutil.copytree(source / "state", tmp_path / source.name / "state"))
    model = MemoryLlamaForCausalLM.from_pretrained(source / "checkpoint")
    optimizer = Optimizer(model, TrainingConfig(value_optimizer="dense"))
    (state,) = saved_states(folder)
    return WholeFiles(folder, model, None, optimizer, SlotUsage(model)), state


def refused(files: WholeFiles, *wanted: str) -> None:
    before = {name: weight.clone() for name, weight in files.model.named_parameters()}
    with pytest.raises(MemxError) as error:
        files.restore(lambda text: None)
    line = error.value.message
    assert "\n" not in line and len(line) < 400 and "--force" in error.value.hint
    for part in wanted:
        assert part in line, line
    for name, weight in files.model.named_parameters():
        assert torch.equal(weight, before[name])


def test_a_whole_state_is_restored(saved):
    files, state = saved
    found = files.restore(lambda text: pytest.fail(text))
    assert found is not None and found.step == 40 and found.run == state.parent.parent.name
    assert begun_value_step(state.parent) == "dense"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "use.safetensors"])
@pytest.mark.parametrize("content", [b"", b"random bytes that are no header at all", None])
def test_files_that_are_cut_off_or_missing(saved, name, content):
    files, state = saved
    path = state / name
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    refused(files, name)
    path.unlink()
    refused(files, name)


@pytest.mark.parametrize(
    ("name", "change", "wanted"),
    [
        ("model", lambda w: w.pop(NORM), f"{NORM} is nothing there, [32] here"),
        ("model", lambda w: w.update(other=torch.zeros(2)), "other is [2] there, nothing here"),
        ("model", lambda w: w.update({NORM: w[NORM][:5].clone()}), f"{NORM} is [5] there, [32] here"),
        ("model", lambda w: w.update({NORM: w[NORM].half()}), f"{NORM} is float16 there, float32 here"),
        ("model", lambda w: w[NORM].fill_(torch.nan), f"{NORM} has values that are NaN or infinite"),
        ("optimizer", lambda w: w.pop(MOMENT), f"{MOMENT} is nothing there"),
        ("optimizer", lambda w: w.update(other=torch.zeros(2)), "other is [2] there"),
        ("optimizer", lambda w: w[MOMENT].select(0, 7).fill_(-torch.inf), f"{MOMENT} has values"),
        ("optimizer", lambda w: w.update({f"{NORM}/step": torch.tensor(3)}), "is int64 there, float32 here"),
        ("use", lambda w: w.pop("rows/0"), "rows/0 is nothing there"),
        (
            "use",
            lambda w: w.update({"rows/0": torch.tensor([1024]), "counts/0": torch.ones(1, dtype=torch.int32)}),
            "rows/0 are no rows",
        ),
        (
            "use",
            lambda w: w.update({"rows/0": torch.tensor([-1]), "counts/0": torch.ones(1, dtype=torch.int32)}),
            "rows/0 are no rows",
        ),
        ("use", lambda w: w.update({"rows/0": torch.tensor([5])}), "rows/0 are no rows"),
        ("use", lambda w: w.update({"last/0": torch.ones(2, dtype=torch.float64)}), "last/0 must have 3 values"),
        ("use", lambda w: w.update({"counts/1": torch.zeros(3)}), "counts/1 is [3] there"),
    ],
)
def test_tensors_that_are_not_the_runs_own(saved, name, change, wanted):
    files, state = saved
    path = state / f"{name}.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    refused(files, path.name, wanted)


@pytest.mark.parametrize("ranks", ["one", "several"])
@pytest.mark.parametrize(
    ("name", "change", "wanted"),
    [
        ("model", lambda w: None, ""),
        ("model", lambda w: w.pop(NORM), f"{NORM} is nothing there, [32] here"),
        ("model", lambda w: w.update(other=torch.zeros(2)), "other is [2] there, nothing here"),
        ("model", lambda w: w.update({NORM: w[NORM][:5].clone()}), f"{NORM} is [5] there, [32] here"),
        ("model", lambda w: w.update({NORM: w[NORM].half()}), f"{NORM} is float16 there, float32 here"),
        ("model", lambda w: w[NORM].fill_(torch.nan), f"{NORM} has values that are NaN or infinite"),
        ("optimizer", lambda w: w.pop(MOMENT), f"{MOMENT} is nothing there"),
        ("optimizer", lambda w: w.update(other=torch.zeros(2)), "other is [2] there"),
        ("optimizer", lambda w: w[MOMENT].fill_(torch.inf), f"{MOMENT} has values"),
        ("use", lambda w: w.pop("rows/0"), "rows/0 is nothing there"),
        ("use", lambda w: w["last/0"].fill_(torch.nan), "last/0 has values"),
    ],
)
def test_several_processes_refuse_such_tensors_too(saved, ranks, name, change, wanted):
    """A state of one process, whose files lie together, or of several, as processes that share out a model read it."""
    files, state = saved
    tensors = load_file(state / f"{name}.safetensors")
    change(tensors)
    save_file(tensors, state / f"{name}.safetensors")
    for kind in ("model", "optimizer") if ranks == "several" else ():
        (state / kind).mkdir()
        (state / f"{kind}.safetensors").rename(state / kind / f"{kind}.safetensors")
    parts = (files.model, files.optimizer, files.usage, SingleProcess())
    if not wanted:
        assert load_sharded_state(state, *parts).step == 40
        return
    with pytest.raises(MemxError) as error:
        load_sharded_state(state, *parts)
    assert wanted in error.value.message and str(state) in error.value.message


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("step", "40", "step must be a whole number"),
        ("step", 41, "step is 41, not that of its folder"),
        ("step", True, "step must be a whole number"),
        ("tokens", None, "tokens must be a whole number"),
        ("seconds", -1.0, "seconds must be a number"),
        ("position", [], "position must be an object"),
        ("before", 5, "before must be an object of figures"),
        ("before", {"answers": {"seen": 5}}, "before must be an object of figures"),
        ("before", {"answers": {}, "text": [1, 2, 3, 4, "x"]}, "before must be an object of figures"),
        ("value_step", "both", "value_step must be sparse, dense or empty"),
        ("run", "tiny-other", "it is a state of the run tiny-other"),
    ],
)
def test_keys_of_the_state(saved, key, value, wanted):
    files, state = saved
    path = state / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    refused(files, "state.json", wanted)


@pytest.mark.parametrize("content", ["", "5", "[]", "{", '{"step": 40}', '{"step": NaN}', '{"step": 1, "step": 1}'])
def test_a_state_that_is_no_such_json(saved, content):
    files, state = saved
    (state / "state.json").write_text(content)
    refused(files, "state.json")


def test_an_older_state_takes_the_place_of_a_damaged_one(saved):
    files, state = saved
    older = Path(shutil.copytree(state, state.with_name("step-00000030")))
    text = json.loads((older / "state.json").read_text())
    (older / "state.json").write_text(json.dumps({**text, "step": 30}))
    (state / "model.safetensors").write_bytes(b"")
    notes: list[str] = []
    found = files.restore(notes.append)
    assert found is not None and found.step == 30
    assert "model.safetensors" in notes[0] and "using the older state of step 30" in notes[0]


def test_a_state_in_the_middle_of_a_window_of_use_is_restored(saved):
    files, state = saved
    used = load_file(state / "use.safetensors")
    used |= {"rows/0": torch.tensor([3, 7]), "counts/0": torch.tensor([2.0, 1.0]).to(used["counts/0"].dtype)}
    save_file(used, state / "use.safetensors")
    assert files.restore(lambda text: pytest.fail(text)) is not None
    assert files.usage.windows["0"].counts.nonzero().flatten().tolist() == [3, 7]


def test_states_of_older_versions_have_no_name_of_their_run(saved):
    files, state = saved
    text = json.loads((state / "state.json").read_text())
    del text["run"], text["value_step"]
    (state / "state.json").write_text(json.dumps(text))
    found = files.restore(lambda text: pytest.fail(text))
    assert found is not None and found.run == ""
