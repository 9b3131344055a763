"""`memx bench`: what is wrong is named and not timed; shapes, ceilings, times, memory and rows; what models cost."""

import dataclasses
import functools
import os
from pathlib import Path

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.benchmarks import ceilings as bench_ceilings
from memx.experiments.benchmarks import timing as bench_time
from memx.experiments.benchmarks.benchmark import BenchConfig
from memx.experiments.benchmarks.ceilings import measure_ceilings
from memx.experiments.benchmarks.models import training_step as bench_model
from memx.experiments.benchmarks.models.training_step import ModelShape
from memx.experiments.benchmarks.models.training_step import bench_model as measure_models
from memx.experiments.benchmarks.ops import correctness as bench_check
from memx.experiments.benchmarks.ops import implementations as bench_ways
from memx.experiments.benchmarks.ops import run as bench
from memx.experiments.benchmarks.ops.correctness import check_implementations, check_op, check_where_it_fits
from memx.experiments.benchmarks.ops.shapes import shapes_of
from memx.experiments.benchmarks.run import run_bench
from memx.experiments.benchmarks.timing import PeakMemory, Stopwatch
from memx.kernels.embedding_bag import OP as BAG
from memx.kernels.product_topk import OP as TOPK
from memx.kernels.sparse_adam import OP as ADAM

CPU = torch.device("cpu")
SHAPE = {"B": 8, "K": 4, "N": 64, "D": 8}
SMALL = dataclasses.replace(BAG, shapes=(SHAPE,))


def broken(change):
    """An embedding bag whose first output entry is changed in one of two implementations."""

    def run(values, slots, weights, impl="auto"):
        out = BAG.reference(values, slots, weights)
        return out if impl == "torch" else out + change * torch.eye(*out.shape)

    return dataclasses.replace(SMALL, run=run, implementations=("other", "torch"))


@pytest.fixture(autouse=True)
def small_ceilings(monkeypatch):
    monkeypatch.setattr(bench_ceilings, "_COPIED", {"cpu": 2**20})
    monkeypatch.setattr(bench_ceilings, "_SIDE", {"cpu": 64})


@pytest.fixture
def small_ops(monkeypatch):
    monkeypatch.setattr(bench, "OPS", (SMALL,))


@pytest.mark.parametrize("change", [1e-3, torch.nan, torch.inf])
def test_each_implementation_is_judged_on_its_own(change):
    checks = check_implementations(broken(change), SHAPE, torch.float32, CPU)
    assert {name: check.right for name, check in checks.items()} == {"other": False, "torch": True}
    assert checks["other"].verdict.startswith("FAIL") and ">" in checks["other"].verdict


def test_a_wrong_gradient_is_wrong():
    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, *given):
            return 1.01 * given[0]

    wrong = dataclasses.replace(SMALL, run=lambda v, s, w, impl="auto": BAG.run(Scaled.apply(v), s, w))
    error, limit = check_op(wrong, SHAPE, torch.float32, CPU)
    assert error > 100 * limit


def test_a_reference_that_overflows_allows_nothing():
    """float16 sums beyond 65504 are inf in the plain definition, which must not pass for a large tolerance."""

    def large(*given):
        values, slots, weights = BAG.make_inputs(*given)
        return values * 3e4, slots, weights * 10

    op = dataclasses.replace(SMALL, make_inputs=large, run=lambda v, s, w, impl="auto": BAG.reference(v, s, w) * 0.9)
    error, limit = check_op(op, SHAPE, torch.float16, CPU)
    assert not error <= limit and limit < 0.1


def test_what_raises_is_told_and_wrong():
    def run(*given, impl="auto"):
        raise ValueError("no such instruction\nand more")

    checks = check_implementations(
        dataclasses.replace(SMALL, run=run, implementations=("torch",)), SHAPE, torch.float32, CPU
    )
    assert not checks["torch"].right and checks["torch"].verdict == "FAIL ValueError: no such instruction"


def test_what_is_not_for_such_inputs_is_left_out(monkeypatch):
    def run(*given, impl="auto"):
        if impl == "other":
            raise MemxError("not for float32")
        return BAG.reference(*given)

    monkeypatch.setattr(bench, "OPS", (dataclasses.replace(SMALL, run=run, implementations=("other", "torch")),))
    heard = []
    found = run_bench(BenchConfig(["embedding_bag"], "cpu", seconds=0.001, compile="none"), heard.append)
    assert not found.wrong and all(row.kind != "other" for row in found.rows)
    assert any("skipped, inputs not supported: other" in line for line in heard)


def test_the_check_shrinks_until_it_fits(monkeypatch):
    real = check_implementations

    def little_memory(op, shape, dtype, device):
        if shape["N"] > 16:
            raise torch.OutOfMemoryError("full")
        return real(op, shape, dtype, device)

    monkeypatch.setattr(bench_check, "check_implementations", little_memory)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    shape, checks = check_where_it_fits(SMALL, SHAPE, torch.float32, CPU)
    assert shape["N"] == 16 and checks["torch"].right


def test_shapes():
    assert shapes_of(BAG, [], torch.float32, CPU) == list(BAG.shapes)
    assert shapes_of(BAG, ["large"], torch.float32, CPU) == list(BAG.large_shapes)
    (changed,) = shapes_of(BAG, ["N=2^6, D=7,B=2**2"], torch.float32, CPU)
    assert changed == BAG.shapes[-1] | {"N": 64, "D": 7, "B": 4}
    assert len(shapes_of(BAG, ["small", "N=64"], torch.float32, CPU)) == len(BAG.shapes) + 1


@pytest.mark.parametrize(
    ("op", "text", "message", "hint"),
    [
        (BAG, "M=4", "embedding_bag has no dimension 'M'", "B, K, N, D"),
        (BAG, "tiny", "'tiny' is not a shape", "small, large"),
        (BAG, "N=many", "'N=many' is not a valid size", "2^12"),
        (BAG, "N=-4", "'N=-4' is not a valid size", "2^12"),
        (TOPK, "k=500,n=16", "product_topk cannot run at", "memx bench list"),
        (BAG, "N=0", "'N=0' is not a valid size", "2^12"),
    ],
)
def test_mistaken_shapes(op, text, message, hint):
    with pytest.raises(MemxError, match=message) as error:
        shapes_of(op, [text], torch.float32, CPU)
    assert hint in error.value.hint


@pytest.mark.parametrize("names", [["step"], ["model"], ["embedding_bag", "step"]])
def test_mistakes_come_before_any_time(monkeypatch, names):
    monkeypatch.setattr(bench, "measure_ceilings", lambda *given: pytest.fail("something was timed"))
    with pytest.raises(MemxError, match=r"(step|model) has no dimension 'N'"):
        run_bench(BenchConfig(names, device="cpu", shapes=["N=64"]))
    with pytest.raises(MemxError, match="is not a square"):
        run_bench(BenchConfig(names, device="cpu", slots=[1000]))


def test_ceilings_are_positive():
    for dtype in (torch.float32, torch.bfloat16):
        ceilings = measure_ceilings(Stopwatch(CPU, 0.001), dtype)
        assert ceilings.bandwidth > 0 and ceilings.matmul > 0
        assert ceilings.floor(100, 0) == 100 / ceilings.bandwidth and ceilings.floor(0, 100) == 100 / ceilings.matmul


def test_a_slow_call_is_not_repeated_for_long(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(bench_time.time, "perf_counter", lambda: now[0])
    assert Stopwatch(CPU, 0.1).time(lambda: now.__setitem__(0, now[0] + 1.0)).n == 3
    assert Stopwatch(CPU, 0.1).time(lambda: now.__setitem__(0, now[0] + 0.01)).n in (10, 11)


def test_peak_memory_is_that_of_the_block():
    torch.ones(2**24).sum()  # 64 MiB before it do not count
    with PeakMemory(CPU) as memory:
        torch.ones(2**23).sum()
    assert memory.bytes is None or 30e6 < memory.bytes < 60e6


def test_no_peak_memory_where_nobody_counts(monkeypatch):
    monkeypatch.setattr(bench_time.sys, "platform", "plan9")
    with PeakMemory(CPU) as memory:
        torch.ones(2)
    assert memory.bytes is None


@pytest.mark.parametrize("op", [BAG, TOPK, ADAM], ids=lambda op: op.name)
def test_both_passes_of_every_way(op):
    """A kept graph gives the same gradients each time, those of a new one."""
    inputs = bench_check.inputs_of(op, op.shapes[0], torch.float32, CPU)
    for implementation in bench_ways.implementations_of(op, CPU, op.available(CPU), compiled=False):
        bench_ways.forward_call(implementation, inputs)()
        if op.gradients:
            again = bench_ways.backward_call(op, implementation, inputs)
            for first, second in zip(again(), again(), strict=True):
                torch.testing.assert_close(first, second)
            assert len(bench_ways.training_call(op, implementation, inputs)()) == len(op.gradients)


def test_rows_of_an_op(small_ops):
    heard = []
    found = run_bench(BenchConfig(["embedding_bag"], "cpu", seconds=0.001, compile="none"), heard.append)
    assert not found.wrong and heard
    values = {(row.kind, row.metric): row for row in found.rows}
    for metric in ("correct", "forward_ms", "backward_ms"):
        assert values["torch, compiled backward" if BAG.label("torch", CPU) != "torch" else "torch", metric].value > 0
    timed = values["gather and sum", "backward_ms"]
    assert timed.model_extra["rival"] and timed.low <= timed.value <= timed.high
    assert timed.model_extra["bytes"] == BAG.backward_bytes(SHAPE, torch.float32) and timed.model_extra["floor_ms"] > 0
    assert values["device", "copy_gbps"].value > 0 and values["device", "matmul_tflops"].value > 0
    assert {"memx", "commit", "packages", "device", "processor", "cpu", "threads", "command", "date"} <= set(
        found.environment
    )


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_the_definition_compiled(small_ops, monkeypatch, backend):
    """Whatever torch makes of the graphs: its usual backend runs a C++ compiler for each."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    if bench_ways.cannot_compile(CPU):
        pytest.skip("no C++ compiler")
    heard = []
    found = run_bench(BenchConfig(["embedding_bag"], "cpu", seconds=0.001), heard.append)
    assert {row.metric for row in found.rows if row.kind == "torch.compile"} >= {"forward_ms", "backward_ms"}, heard


def test_without_a_compiler_it_says_so(small_ops, monkeypatch):
    monkeypatch.setattr(bench_ways.shutil, "which", lambda name: None)
    heard = []
    found = run_bench(BenchConfig(["embedding_bag"], "cpu", seconds=0.001), heard.append)
    assert "torch.compile skipped: no C++ compiler found" in heard
    assert all(row.kind != "torch.compile" for row in found.rows)


def test_a_rival_that_fails_is_left_out(monkeypatch):
    def fails(*given):
        raise RuntimeError("too large")

    monkeypatch.setattr(bench, "OPS", (dataclasses.replace(SMALL, rivals={"other": fails}),))
    heard = []
    found = run_bench(BenchConfig(["embedding_bag"], "cpu", seconds=0.001, compile="none"), heard.append)
    assert any("other skipped: RuntimeError: too large" in line for line in heard)
    assert not found.wrong and all(row.kind != "other" for row in found.rows)


def test_what_is_wrong_has_no_time(monkeypatch):
    monkeypatch.setattr(bench, "OPS", (dataclasses.replace(broken(1e-3), odd_shapes=()),))
    found = run_bench(BenchConfig(["embedding_bag"], "cpu", seconds=0.001, compile="none"))
    assert found.wrong == [f"embedding_bag {' '.join(f'{k}={v}' for k, v in SHAPE.items())}: other"]
    assert {row.metric for row in found.rows} == {"correct", "copy_gbps", "matmul_tflops"}


def test_what_is_wrong_at_an_edge_alone_has_no_time(monkeypatch):
    """An implementation that drops what fills no block of 8 columns is right at every shape that is timed."""

    def cut(values, slots, weights, impl="auto"):
        return SMALL.reference(values, slots, weights) * (torch.arange(values.shape[1]) < values.shape[1] // 8 * 8)

    edge = {"B": 3, "K": 2, "N": 5, "D": 13}
    op = dataclasses.replace(SMALL, run=cut, odd_shapes=(edge,), implementations=("torch",), loops="")
    monkeypatch.setattr(bench, "OPS", (op,))
    found = run_bench(BenchConfig(["embedding_bag"], "cpu", seconds=0.001, compile="none"))
    assert found.wrong == ["embedding_bag B=3 K=2 N=5 D=13: torch"]
    assert {row.metric for row in found.rows} == {"correct", "copy_gbps", "matmul_tflops"}


def test_models_of_every_kind():
    shape = ModelShape(layers=2, width=16, heads=2, vocabulary=300, batch=2, sequence=16, experts=2)
    rows = measure_models([1024], shape=shape, device_name="cpu", steps=1)
    values = {(row.kind, row.metric): row.value for row in rows}
    for kind in ("dense", "memory", "memory+", "peer", "moe"):
        parts = sum(values[kind, f"{part}_ms"] for part in ("forward", "backward", "optimizer"))
        assert values[kind, "step_ms"] == pytest.approx(parts)
        assert values[kind, "tokens_per_second"] == pytest.approx(32e3 / values[kind, "step_ms"])
    assert {row.memory_slots for row in rows if row.kind != "engram"} == {0, 1024}  # whose rows are narrower


def test_models_that_cannot_be(monkeypatch):
    with pytest.raises(MemxError, match=r"dense model with 0 slots: width 15 with 4 heads"):
        bench_model.model_configs([1024], ModelShape(width=15), CPU)
    with pytest.raises(MemxError, match="slots 1000 is not a square"):
        bench_model.model_configs([1000], ModelShape(), CPU)


def test_compiled_code_is_kept_where_no_other_user_can_write(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is put back
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    bench_ways.keep_compiled_code_private()
    place = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert place == tmp_path / "memx" / "inductor" and not place.stat().st_mode & 0o022
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "own"))
    bench_ways.keep_compiled_code_private()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "own")
