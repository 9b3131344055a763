"""What `memx bench --save` keeps: nothing of another run is lost, nor what was measured before something went wrong."""

import dataclasses
import json
import multiprocessing

import pytest
from memx.cli.main import run as memx
from memx.experiments.benchmarks import ceilings as bench_ceilings
from memx.experiments.benchmarks import timing as bench_time
from memx.experiments.benchmarks.benchmark import WrongResults
from memx.experiments.benchmarks.eviction import prefill_decode
from memx.experiments.benchmarks.models import layer_step as step_bench
from memx.experiments.benchmarks.models import training_step as bench_model
from memx.experiments.benchmarks.ops import run as bench
from memx.kernels.embedding_bag import OP as BAG
from memx.results.store.rows import read_rows

SHAPES = ({"B": 8, "K": 4, "N": 64, "D": 8},)
QUICK = ["--seconds", "0.01", "--compile", "none", "--device", "cpu"]


@pytest.fixture(autouse=True)
def small_op(monkeypatch):
    monkeypatch.setattr(bench, "OPS", (dataclasses.replace(BAG, shapes=SHAPES),))
    monkeypatch.setattr(bench_ceilings, "_COPIED", {"cpu": 2**20})
    monkeypatch.setattr(bench_ceilings, "_SIDE", {"cpu": 64})


def ops_of(folder):
    return {row.dataset.split()[0] for row in read_rows(folder / "rows.jsonl")}


@pytest.mark.parametrize("name", ["rows.jsonl", "run.json"])
def test_another_run_is_not_replaced_without_force(name, tmp_path, capsys):
    (tmp_path / name).write_text("something else")
    assert memx(["bench", "ops", "embedding_bag", *QUICK, "--save", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "already contains a benchmark" in captured.err and "--force" in captured.err and not captured.out
    assert (tmp_path / name).read_text() == "something else" and len(list(tmp_path.iterdir())) == 1
    assert memx(["bench", "ops", "embedding_bag", *QUICK, "--save", str(tmp_path), "--force"]) == 0
    assert ops_of(tmp_path) == {"ceilings", "embedding_bag"}


def test_a_folder_that_cannot_be_is_told_before_anything_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "measure_ceilings", lambda *given: pytest.fail("it measured"))
    (tmp_path / "file").write_text("")
    assert memx(["bench", "ops", "embedding_bag", *QUICK, "--save", str(tmp_path / "file")]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_a_stop_keeps_what_was_measured(tmp_path, monkeypatch):
    def stopped(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(step_bench, "bench_step", stopped)
    assert memx(["bench", *QUICK, "--save", str(tmp_path / "b")]) == 130
    assert ops_of(tmp_path / "b") == {"ceilings", "embedding_bag"}
    assert json.loads((tmp_path / "b" / "environment.json").read_text())["device"] == "cpu"


def test_a_failing_step_keeps_what_was_measured(tmp_path, capsys, monkeypatch):
    def fails(*given, **named):
        raise WrongResults("the memory layer differs from float64 by 1.0e+00")

    monkeypatch.setattr(step_bench, "bench_step", fails)
    after = []
    monkeypatch.setattr(bench_model, "bench_model", lambda *given, **named: after.append("model") or [])
    monkeypatch.setattr(prefill_decode, "bench_evict", lambda *given, **named: [])
    assert memx(["bench", *QUICK, "--save", str(tmp_path / "b")]) == 1
    printed = capsys.readouterr()
    assert "the memory layer differs" in printed.err
    assert after == ["model"] and "embedding_bag" in printed.out
    assert ops_of(tmp_path / "b") == {"ceilings", "embedding_bag"}


def test_too_many_threads_are_refused(capsys):
    assert memx(["bench", "ops", "embedding_bag", *QUICK, "--threads", "100000"]) == 2
    assert "cores" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["zero", "binary", "floor"])
def test_damaged_rows_are_one_line(damage, tmp_path, capsys):
    assert memx(["bench", "ops", "embedding_bag", *QUICK, "--save", str(tmp_path / "b")]) == 0
    file = tmp_path / "b" / "rows.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    timed = next(row for row in rows if row["metric"] == "forward_ms")
    timed |= {"value": 0} if damage == "zero" else {"floor_ms": "soon"}
    file.write_text("\n".join(map(json.dumps, rows)))
    if damage == "binary":
        file.write_bytes(b"\xff\xfe\x00")
    capsys.readouterr()
    for command in (["bench", "compare", str(file), str(file)],
                    ["plot", "ops", str(tmp_path / "b")]):  # fmt: skip
        assert memx(command) == 2, command
        assert len(capsys.readouterr().err.strip().splitlines()) <= 2


def kill_own_process(*given):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of Python 3.12, on forks beside threads
def test_a_killed_contestant_is_left_out(monkeypatch):
    monkeypatch.setattr(bench_time, "get_context", lambda kind: multiprocessing.get_context("fork"))
    monkeypatch.setattr(step_bench, "measure", kill_own_process)
    monkeypatch.setattr(step_bench, "baseline_names", lambda peers: ["memx"])
    heard = []
    assert step_bench.bench_step([1024], device_name="cpu", threads=1, steps=1, progress=heard.append) == []
    assert "skipped" in heard[-1]
