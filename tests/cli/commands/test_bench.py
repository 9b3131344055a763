"""`memx bench` on the command line: exit codes, files, JSON, comparisons of runs, and its figures."""

import dataclasses
import json

import pytest
from memx.cli.main import run as memx
from memx.experiments.benchmarks import ceilings as bench_ceilings
from memx.experiments.benchmarks.ops import run as bench
from memx.kernels.embedding_bag import OP as BAG
from memx.kernels.registry import OPS
from memx.results.bench.compare import comparison, differences, read_bench
from memx.results.plots import draw
from memx.results.selection import PlotRequest
from memx.results.store.rows import Row, read_rows, write_rows

SHAPES = ({"B": 8, "K": 4, "N": 64, "D": 8}, {"B": 16, "K": 4, "N": 64, "D": 8})
QUICK = ["ops", "embedding_bag", "--seconds", "0.01", "--compile", "none", "--device", "cpu"]


def make_small(patch):
    """One op at small shapes, and ceilings of small things."""
    patch.setattr(bench, "OPS", (dataclasses.replace(BAG, shapes=SHAPES),))
    patch.setattr(bench_ceilings, "_COPIED", {"cpu": 2**20})
    patch.setattr(bench_ceilings, "_SIDE", {"cpu": 64})


@pytest.fixture(autouse=True)
def small_op(monkeypatch):
    make_small(monkeypatch)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two runs, of one op."""
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        for name in ("old", "new"):
            assert memx(["bench", *QUICK, "--save", str(folder / name)]) == 0
    return folder


def mistake(capsys, *arguments: str) -> str:
    assert memx(["bench", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.strip().splitlines()) <= 2
    return captured.err


def test_the_list(capsys, monkeypatch):
    monkeypatch.setattr(bench, "OPS", OPS)
    assert memx(["bench", "list"]) == 0
    listed = [line[:25].strip() for line in capsys.readouterr().out.splitlines()]
    eviction = [f"eviction {part}" for part in ("prefill", "decode", "generate")]
    assert listed == [*(f"ops {op.name}" for op in OPS), "step", "offload", *eviction, "evolution", "model"]
    assert memx(["bench", "list", "--json"]) == 0
    assert "N=262144" in json.loads(capsys.readouterr().out)["embedding_bag"]


def test_a_run_prints_its_tables_and_ceilings(capsys):
    assert memx(["bench", *QUICK]) == 0
    out, progress = capsys.readouterr()
    for line in ("speed of copies", "checking at odd shapes", "D=8: checking against", "D=8: timing torch"):
        assert line in progress  # what takes time on a large shape is said before it begins
    for said in ("embedding_bag on cpu", "B=16 K=4 N=64 D=8", "gather and sum", "Peaks measured in this run"):
        assert said in out


def test_rows_as_json_in_half_precision(capsys):
    assert memx(["bench", *QUICK, "--shapes", "B=4,N=32", "--dtype", "bfloat16", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["metric"] for row in rows} >= {"correct", "forward_ms", "backward_ms", "copy_gbps", "matmul_tflops"}
    assert {row["model"] for row in rows} == {"bfloat16"}
    assert {row["dataset"] for row in rows} == {"ceilings", "embedding_bag B=4 K=4 N=32 D=8"}


def test_what_is_saved(saved):
    assert sorted(path.name for path in (saved / "old").iterdir()) == ["environment.json", "rows.jsonl"]
    assert json.loads((saved / "old" / "environment.json").read_text())["threads"] >= 1
    assert read_bench(saved / "old") == read_rows(saved / "old" / "rows.jsonl")


def test_a_wrong_op_fails_and_shows_no_speed(capsys, monkeypatch, tmp_path):
    wrong = dataclasses.replace(
        BAG, shapes=SHAPES[:1], odd_shapes=(), run=lambda v, s, w, impl="auto": 1.01 * BAG.reference(v, s, w)
    )
    monkeypatch.setattr(bench, "OPS", (wrong,))
    assert memx(["bench", "--seconds", "0.01", "--save", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "FAIL" in captured.out and "gather and sum" not in captured.out
    assert "failed: wrong results: embedding_bag B=8 K=4 N=64 D=8: torch" in captured.err
    assert {row.metric for row in read_rows(tmp_path / "rows.jsonl")} == {"correct", "copy_gbps", "matmul_tflops"}


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["ops", "embeding_bag"], "no op 'embeding_bag'", "'embedding_bag'"),
        (["ops", "embedding_bag", "--shapes", "M=3"], "embedding_bag has no dimension 'M'", "B, K, N, D"),
        (["ops", "--shapes", "huge"], "'huge' is not a shape", "small, large"),
        (["--dtype", "int8"], "--dtype", "--help"),
        (["--device", "tpu"], "no device 'tpu'", "cpu"),
        (["compare", "a"], "Missing argument 'OLD'", "memx bench compare --help"),
        (["embeding_bag"], "no subcommand 'embeding_bag'", "`memx bench ops embedding_bag`"),
        (["evicton"], "no subcommand 'evicton'", "`memx bench eviction`"),
        (["--against", "nowhere"], "no rows at nowhere", "--save"),
        (["step", "--slots", "1000"], "slots 1000 is not a square", "1024"),
        (["ops", "embedding_bag", "--tune", "--device", "cpu"], "--tune needs a CUDA device", ""),
    ],
)
def test_mistakes(capsys, arguments, message, hint):
    told = mistake(capsys, *arguments)
    assert message in told and hint in told


def test_a_run_against_a_saved_one(capsys, saved):
    assert memx(["bench", *QUICK, "--against", str(saved / "old"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["differences"] == []
    assert all(line["verdict"] in ("slower", "faster", "same") for line in found["comparison"])


def test_two_saved_runs(capsys, saved):
    assert memx(["bench", "compare", str(saved / "new"), str(saved / "old" / "rows.jsonl")]) == 0
    out = capsys.readouterr().out
    assert "new/old" in out and "B=16 K=4 N=64 D=8" in out and "not the same" not in out


def timed(value: float, **changes) -> Row:
    facts = dict(
        run="bench", experiment="bench", kind="torch", model="float32", dataset="embedding_bag N=4",
        metric="forward_ms", value=value, low=0.99 * value, high=1.01 * value, n=9, device="cpu, 2 threads",
        threads=2, processor="a", floor_ms=1.0,
    )  # fmt: skip
    return Row(**{**facts, **changes})


@pytest.mark.parametrize(("value", "verdict"), [(2.0, "slower"), (0.5, "faster"), (1.03, "same")])
def test_verdicts(value, verdict):
    assert comparison([timed(value)], [timed(1.0)]).facts[0]["verdict"] == verdict
    wide = dict(low=0.1, high=9.0)
    assert comparison([timed(value, **wide)], [timed(1.0)]).facts[0]["verdict"] == "same"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "cuda"}, "device: cpu, 2 threads -> cuda"),
        ({"processor": "b"}, "processor: a -> b"),
        ({"threads": 1}, "threads: 2 -> 1"),
        ({"model": "bfloat16"}, "dtype: float32 -> bfloat16"),
    ],
)
def test_unlike_runs_get_no_verdict(capsys, tmp_path, change, said):
    new, old = [timed(2.0, floor_ms=4.0, **change)], [timed(1.0)]
    assert differences(new, old) == [said]
    (fact,) = comparison(new, old).facts
    assert fact["verdict"] is None and fact["ratio"] == 2.0 and fact["normalised_ratio"] == pytest.approx(0.5)
    for name, rows in (("new", new), ("old", old)):
        write_rows(tmp_path / f"{name}.jsonl", rows)
    assert memx(["bench", "compare", str(tmp_path / "new.jsonl"), str(tmp_path / "old.jsonl")]) == 0
    assert f"not the same {said}" in capsys.readouterr().out


def test_runs_with_nothing_in_common(capsys, tmp_path):
    for name, kind in (("new", "a"), ("old", "b")):
        write_rows(tmp_path / f"{name}.jsonl", [timed(1.0, kind=kind)])
    told = mistake(capsys, "compare", str(tmp_path / "new.jsonl"), str(tmp_path / "old.jsonl"))
    assert "nothing" in told or "no op, shape and implementation in common" in told


def test_the_figures(capsys, saved, tmp_path):
    arguments = ["plot", "ops", str(saved / "new"), "--out", str(tmp_path), "--formats", "svg"]
    assert memx(arguments) == 0
    names = ["ops-bars.svg", "ops-roofline.svg", "ops.rows.jsonl"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    roofline, bars = ((tmp_path / name).read_text() for name in ("ops-roofline.svg", "ops-bars.svg"))
    for said in ("Forward pass", "Backward pass", "embedding_bag", "matmul ", "copy "):
        assert said in roofline
    for said in ("embedding_bag, forward", "embedding_bag, backward", "gather and sum", "B=16 K=4 N=64 D=8"):
        assert said in bars


def test_an_op_that_computes_nothing_is_in_the_bars(tmp_path):
    """A copy has no FLOPs to stand on a roofline, and no backward pass."""
    rows = [timed(2.0, bytes=100, flops=8), timed(3.0, dataset="copy N=4", bytes=100, flops=0)]
    rows += [timed(50.0, kind="device", dataset="ceilings", metric=metric) for metric in ("copy_gbps", "matmul_tflops")]
    write_rows(tmp_path / "rows.jsonl", rows)
    draw("ops", PlotRequest([tmp_path], tmp_path / "out", "b", ("svg",)))
    assert "copy has no FLOPs" in (tmp_path / "out" / "b-roofline.svg").read_text()
    assert ">copy<" in (tmp_path / "out" / "b-bars.svg").read_text()


def test_no_ops_no_figures(capsys, tmp_path):
    write_rows(tmp_path / "rows.jsonl", [timed(1.0, experiment="bench-step", dataset="step tokens=4")])
    assert memx(["plot", "ops", str(tmp_path)]) == 2


def test_training_steps(capsys, monkeypatch):
    from memx.experiments.benchmarks.models import layer_step as step_bench

    monkeypatch.setattr(step_bench, "baseline_names", lambda peers: ["memx"])
    monkeypatch.setattr(step_bench, "in_own_process", lambda work, *given, preload: work(*given))
    small = ["--shapes", "tokens=16,width=8,top_k=4"]
    assert memx(["bench", "step", *small, "--slots", "64", "--steps", "1", "--threads", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {(row["kind"], row["memory_slots"]) for row in rows} == {("memx", 64)}
    assert rows[0]["dataset"] == "step tokens=16 width=8 heads=4 top_k=4"


def test_models(capsys, tmp_path):
    small = ["--shapes", "layers=1,width=16,heads=2,vocabulary=300,batch=2,sequence=16,experts=2"]
    arguments = ["bench", "model", *small, "--slots", "1024", "--steps", "1", "--device", "cpu"]
    assert memx([*arguments, "--save", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "tokens/s" in out and "memory+" in out
    assert {row.kind for row in read_rows(tmp_path / "rows.jsonl")} == {
        "dense",
        "memory",
        "memory+",
        "ultramem",
        "engram",
        "peer",
        "moe",
    }
