"""Training n-gram memories, alone and beside others: over processes, from host memory, stopped, in a pretrained model.

Whatever is compared by its numbers is trained in float64.
"""

import shutil

import pytest
import torch
from memx.experiments.base_models.load import load_host
from memx.experiments.checkpoints.convert import convert_state
from memx.memory_layers.engram.token_classes import token_classes
from memx.results.store.runs import RunStore
from safetensors.torch import load_file

from tests.exact import float64
from tests.experiments.base_models.llama3 import write_llama3
from tests.experiments.training.test_ranks import (
    folder,
    losses,
    stop_exactly_at_eight,
    train,
    train_exactly,
)
from tests.ranks import run_worlds

ENGRAM = {
    "memory.kind": "engram", "memory.slots": 200, "memory.heads": 2, "memory.value_width": 4, "memory.layers": [1],
    "memory.convolution": True, "training.value_lr": 0.01,
}  # fmt: skip
MIXED = {
    **ENGRAM,
    "memory.also": [
        {"kind": "memory+", "slots": 256, "heads": 2, "top_k": 4, "layers": [0]},
        {"kind": "moe", "layers": [1], "experts": 3, "experts_per_token": 2, "expert_width": 8},
    ],
}


@pytest.mark.parametrize("changes", [ENGRAM, MIXED], ids=["alone", "mixed"])
def test_a_stopped_run_ends_as_a_straight_one_to_the_bit(changes, tmp_path):
    train_exactly(tmp_path / "straight", changes)
    stop_exactly_at_eight(tmp_path / "stopped", changes)
    train_exactly(tmp_path / "stopped", changes, resume=True)
    one, two = (
        load_file(folder(tmp_path / name, changes) / "checkpoint/model.safetensors") for name in ("straight", "stopped")
    )
    assert one.keys() == two.keys() and "model.token_classes.ids" in one
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert losses(tmp_path / "straight", changes)[-1] < losses(tmp_path / "straight", changes)[0]


@pytest.mark.parametrize(
    "lying",
    [
        {"parallel.table": "width"},
        pytest.param({"parallel.table": "rows"}, marks=pytest.mark.slow),
        {"parallel.table": "rows", "parallel.host_values": True},
    ],
    ids=str,
)
def test_two_processes_train_what_one_does(lying, tmp_path):
    # a mixture of experts balances by rank, which is another loss
    changes = {**MIXED, "memory.also": MIXED["memory.also"][:1]}
    train_exactly(tmp_path / "1", changes)
    run_worlds(train_exactly, (2,), {"runs": tmp_path / "2", "changes": {**changes, **lying}})
    assert losses(tmp_path / "2", changes) == pytest.approx(losses(tmp_path / "1", changes), abs=1e-11)
    one, two = (load_file(folder(tmp_path / size, changes) / "checkpoint" / "model.safetensors") for size in "12")
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-9, atol=1e-10)


def test_a_sharded_state_becomes_a_folder_with_its_token_classes(tmp_path):
    run_worlds(stop_exactly_at_eight, (2,), {"runs": tmp_path, "changes": ENGRAM})
    place = folder(tmp_path, ENGRAM)
    convert_state(place / "state", place / "one")
    model, tokenizer = load_host(str(place / "one"))
    expected = token_classes(tokenizer)
    assert torch.equal(model.model.token_classes.ids[: len(expected)], expected)
    assert len(expected.unique()) < len(expected)  # "The" and "the" are one


def test_rows_from_host_memory_are_asked_for_before_the_first_block_and_train_the_same(tmp_path, monkeypatch):
    from memx.memory_layers.engram.layer import EngramLayer
    from memx.memory_layers.tables.host_rows import HostRows

    order: list[str] = []
    start, forward = HostRows.start, EngramLayer.forward
    monkeypatch.setattr(HostRows, "start", lambda self, *given: order.append("asked") or start(self, *given))
    monkeypatch.setattr(EngramLayer, "forward", lambda self, *given: order.append("read") or forward(self, *given))
    changes = {**ENGRAM, "memory.layers": [0, 1], "training.accumulate": 1}
    host = {**changes, "parallel.host_values": True}
    train_exactly(tmp_path / "host", host)
    assert order[:4] == ["asked", "asked", "read", "read"]
    order.clear()
    train_exactly(tmp_path / "device", changes)
    assert set(order) == {"read"}
    assert losses(tmp_path / "host", host) == losses(tmp_path / "device", changes)


def test_a_pretrained_model_gets_one_that_changes_nothing_at_first_and_learns(tmp_path):
    source = write_llama3(tmp_path / "llama")
    changes = {
        **ENGRAM, "finetune.source": str(source), "finetune.train": "memory", "text.source": "python-docs",
        "text.block": 16, "text.blocks": 4, "training.steps": 8,
    }  # fmt: skip
    train_exactly(tmp_path / "runs", changes)
    place = folder(tmp_path / "runs", changes)
    before, after = load_host(str(source))[0].state_dict(), load_file(place / "checkpoint" / "model.safetensors")
    assert all(torch.equal(after[name].float(), weight.float()) for name, weight in before.items() if name in after)
    assert after["model.layers.1.engram.value.weight"].abs().max() > 0
    (first,) = [
        line["before"]["text"][0] for line in RunStore(tmp_path / "runs").run(place.name).metrics() if "before" in line
    ]
    dense = {**changes, "memory.kind": "dense", "memory.slots": 0, "finetune.train": "all"}
    train_exactly(tmp_path / "dense", dense)
    run = RunStore(tmp_path / "dense").run(folder(tmp_path / "dense", dense).name)
    (other,) = [line["before"]["text"][0] for line in run.metrics() if "before" in line]
    assert first == pytest.approx(other, abs=1e-12)


def test_few_rows_of_a_trained_n_gram_table_can_be_finetuned(tmp_path):
    train(tmp_path / "runs", ENGRAM)
    source = folder(tmp_path / "runs", ENGRAM) / "checkpoint"
    changes = {
        "finetune.source": str(source), "finetune.train": "slots", "finetune.rows": 7, "finetune.reference": 4,
        "text.source": "python-docs", "text.block": 16, "text.blocks": 4, "training.steps": 2, "memory.kind": "memory",
    }  # fmt: skip
    with float64():
        train(tmp_path / "few", changes)
    before = load_file(source / "model.safetensors")
    after = load_file(folder(tmp_path / "few", changes) / "checkpoint" / "model.safetensors")
    table = "model.layers.1.engram.table.weight"
    moved = (before[table].double() != after[table].double()).any(-1)
    assert 0 < int(moved.sum()) <= 14
    assert all(torch.equal(before[name].double(), after[name].double()) for name in before if name != table)
    shutil.rmtree(tmp_path)
