"""The benchmark of a training step: right before fast, every contestant trains, mistakes are one line."""

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.benchmarks.models import layer_baselines as step_contestants
from memx.experiments.benchmarks.models import layer_step as step_bench
from memx.experiments.benchmarks.models.layer_baselines import BASELINES, PlainMemory, StepShape, baseline_names
from memx.experiments.benchmarks.models.layer_step import bench_step, check_step, measure
from memx.memory_layers.layer import MemoryLayer
from memx.results.bench.step import step_figure, step_table

SMALL = StepShape(tokens=16, width=8, heads=2, top_k=4, key_width=8)


def test_the_layer_and_its_plain_twin_are_right():
    assert check_step(torch.device("cpu")) < 1e-5


def test_a_wrong_layer_is_told_before_any_time(monkeypatch):
    right = MemoryLayer.read
    monkeypatch.setattr(MemoryLayer, "read", lambda self, slots, weights: 1.01 * right(self, slots, weights))
    with pytest.raises(RuntimeError, match="wrong results: the memory layer differs from float64 by 1"):
        bench_step([4096], device_name="cpu", threads=1, steps=1)


def test_a_layer_that_gives_nan_is_wrong(monkeypatch):
    right = MemoryLayer.read
    monkeypatch.setattr(MemoryLayer, "read", lambda self, slots, weights: torch.nan * right(self, slots, weights))
    with pytest.raises(RuntimeError, match="wrong results: the memory layer differs from float64 by nan"):
        bench_step([4096], device_name="cpu", threads=1, steps=1)


def test_the_twin_computes_the_same_function():
    torch.manual_seed(0)
    ours, plain = (kind(8, 64, heads=2, top_k=4).double() for kind in (MemoryLayer, PlainMemory))
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(20, 8, dtype=torch.float64)
    torch.testing.assert_close(ours(x), plain(x))


@pytest.mark.parametrize("name", baseline_names(peers=False))
def test_every_contestant_changes_its_table(name):
    torch.manual_seed(0)
    baseline = BASELINES[name](SMALL, 64, torch.device("cpu"))
    tables = [p for p in baseline.layer.parameters() if p.shape == (64, 8)]
    before = [table.detach().clone() for table in tables]
    for _ in range(2):
        baseline.layer(torch.randn(16, 8)).pow(2).sum().backward()
        baseline.update()
    assert tables and all(not torch.equal(old, new) for old, new in zip(before, tables, strict=True))


def test_rows_and_table_and_figure(monkeypatch):
    monkeypatch.setattr(step_bench, "baseline_names", lambda peers: ["memx", "embedding_bag + fused AdamW"])
    threads = torch.get_num_threads()
    monkeypatch.setattr(step_bench, "in_own_process", lambda work, *given, preload: measure(*given))
    rows = bench_step([64, 256], device_name="cpu", threads=1, steps=2, shape=SMALL)
    torch.set_num_threads(threads)
    assert {(row.kind, row.memory_slots) for row in rows} == {
        (kind, slots) for kind in ("memx", "embedding_bag + fused AdamW") for slots in (64, 256)
    }
    assert all(row.value > 0 for row in rows)
    table = step_table(rows)
    assert [line[0] for line in table.lines] == ["memx", "embedding_bag + fused AdamW"]
    drawn = step_figure(rows).axes[0].get_lines()
    assert [len(line.get_xdata()) for line in drawn] == [2, 2]


def test_each_runs_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(step_bench, "baseline_names", lambda peers: ["memx"])
    rows = bench_step([1024], device_name="cpu", threads=1, steps=1)
    assert {row.metric for row in rows} == {"forward_ms", "forward_backward_ms", "step_ms", "peak_memory_gb"}


def test_mistakes_are_one_line(monkeypatch):
    with pytest.raises(MemxError, match="slots 256 is too small for top-k 32"):
        bench_step([256], device_name="cpu", threads=1, steps=1)
    with pytest.raises(MemxError, match="slots 1000 is not a square"):
        bench_step([1000], device_name="cpu", threads=1, steps=1)
    monkeypatch.setattr(step_contestants, "find_spec", lambda name: None)
    with pytest.raises(
        MemxError, match="--third-party needs packages that are not installed: product_key_memory, PEER_pytorch"
    ):
        baseline_names(peers=True)
    assert "PEER-pytorch + AdamW" not in baseline_names(peers=False)
