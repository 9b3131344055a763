"""Launch settings: any that fit give the same results; a search finds better ones, keeps them and reads them again."""

import json

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.benchmarks.ops.tune import search, tune_ops
from memx.kernels import tuning
from memx.kernels.embedding_bag import OP, embedding_bag
from memx.kernels.op import interpreted
from memx.kernels.tuning import forced, noted, settings, store

CARD = torch.device("cuda", 0)
DEFAULT = {"ROWS": 8, "num_warps": 4}


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "path", lambda device: tmp_path / "cache" / "tuned.json")
    tuning._read.cache_clear()
    yield tmp_path / "cache" / "tuned.json"
    tuning._read.cache_clear()


def test_what_was_stored_is_used_on_cuda_alone(file):
    key = (128, torch.bfloat16)
    assert settings("bag", key, DEFAULT, CARD) == DEFAULT
    store(file, {"bag 128 bfloat16": {"ROWS": 2, "num_warps": 8}, "bag 64 bfloat16": {"ROWS": 1, "num_warps": 1}})
    assert settings("bag", key, DEFAULT, CARD) == {"ROWS": 2, "num_warps": 8}
    assert settings("bag", (128, torch.float32), DEFAULT, CARD) == DEFAULT
    assert settings("bag", key, DEFAULT, torch.device("cpu")) == DEFAULT


def test_settings_of_another_version_and_damaged_files_are_not_used(file):
    store(file, {"bag 1": {"ROWS": 2}})
    assert settings("bag", (1,), DEFAULT, CARD) == DEFAULT
    file.write_text("{ not JSON")
    tuning._read.cache_clear()
    assert settings("bag", (1,), DEFAULT, CARD) == DEFAULT
    store(file, {"bag 1": {"ROWS": 4, "num_warps": 1}})
    assert json.loads(file.read_text()) == {"bag 1": {"ROWS": 4, "num_warps": 1}}
    assert settings("bag", (1,), DEFAULT, CARD)["ROWS"] == 4


DAMAGED = ('{"bag 1": 5}', '{"bag 1": {"ROWS": 1e9, "num_warps": 4}}', "[1]", '{"bag 1": {"ROW')


@pytest.mark.parametrize("found", DAMAGED)
def test_what_no_search_has_written_is_not_used(file, found):
    file.parent.mkdir()
    file.write_text(found)
    assert settings("bag", (1,), DEFAULT, CARD) == DEFAULT


def test_settings_that_another_user_can_write_are_not_used(file):
    store(file, {"bag 1": {"ROWS": 2, "num_warps": 8}})
    file.chmod(0o666)
    tuning._read.cache_clear()
    assert settings("bag", (1,), DEFAULT, CARD) == DEFAULT


def test_a_user_without_a_home_has_the_defaults(monkeypatch):
    monkeypatch.setattr(tuning, "path", lambda device: (_ for _ in ()).throw(RuntimeError("no home")))
    assert settings("bag", (1,), DEFAULT, CARD) == DEFAULT


def draw(device):
    generator = torch.Generator().manual_seed(0)
    values, weights = torch.randn(9, 70, generator=generator), torch.randn(4, 20, generator=generator)
    return values.to(device), torch.randint(9, (4, 20), generator=generator).to(device), weights.to(device)


@pytest.mark.parametrize("chosen", [{"ROWS": 1, "COLUMNS": 128}, {"ROWS": 32, "COLUMNS": 16}], ids=str)
def test_any_blocks_give_the_same_results(chosen, device):
    inputs = draw(device)
    with noted() as asked:
        expected = embedding_bag(*inputs, impl="triton")
    assert asked["bag_sums"].name == "bag_sums 20 70 float32"
    with forced("bag_sums", {**chosen, "num_warps": 4}), noted() as asked:
        torch.testing.assert_close(embedding_bag(*inputs, impl="triton"), expected)
    assert asked["bag_sums"].current == {**chosen, "num_warps": 4}


def test_a_search_walks_to_better_settings_and_past_wrong_ones(device):
    inputs, tried = draw(device), []

    def call():
        embedding_bag(*inputs, impl="triton")

    def milliseconds():
        with noted() as asked:
            call()
        tried.append(asked["bag_sums"].current)
        return 1.0 + abs(tried[-1]["ROWS"] - 4) + abs(tried[-1]["num_warps"] - 8)

    (tuned,) = search("embedding_bag", call, milliseconds, lambda: True)
    assert (tuned.after["ROWS"], tuned.after["num_warps"]) == (4, 8)
    assert tuned.name == "bag_sums 20 70 float32" and tuned.after_ms == 1.0 < tuned.before_ms
    assert not list(search("embedding_bag", call, milliseconds, lambda: False))


@pytest.mark.skipif(not interpreted(), reason="there is CUDA")
def test_tuning_needs_cuda():
    with pytest.raises(MemxError, match="needs a CUDA device"):
        tune_ops([OP], torch.float32, torch.device("cpu"))
