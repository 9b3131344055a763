"""The benchmark of tables in host memory: right before fast, what is counted, its table, mistakes in one line."""

import pytest
import torch
from memx.cli.main import run as memx
from memx.errors import MemxError
from memx.experiments.benchmarks.models.host_offload import LARGE, HostShape, bench_host, host_shape
from memx.memory_layers.tables import host_rows as host_values
from memx.results.bench.compare import read_bench
from memx.results.bench.offload_table import host_tables

SMALL = HostShape(tokens=8, parts=3, layers=2, width=8, hidden=8, heads=2, top_k=4, key_width=8)
WAYS = ["on the device", "host, one by one", "host, 1 ahead", "host, 2 ahead"]


def test_rows_count_what_was_read_and_the_table_shows_every_way():
    rows = bench_host([64, 256], device_name="cpu", steps=2, shape=SMALL)
    values = {(row.kind, row.memory_slots, row.metric): row.value for row in rows}
    slots = SMALL.parts * SMALL.layers * SMALL.tokens * SMALL.heads * SMALL.top_k
    for size in (64, 256):
        for way in WAYS:
            assert values[way, size, "step_ms"] > values[way, size, "update_ms"] > 0
            assert ((way, size, "gather_ms") in values) == (way != WAYS[0])
        read = [values[way, size, "rows_read"] for way in WAYS[1:]]
        assert read[0] == read[1] == read[2] and SMALL.parts * SMALL.layers * SMALL.top_k <= read[0] <= slots
        assert values[WAYS[1], size, "slots_read"] == slots
        assert values[WAYS[1], size, "copied_mb"] == pytest.approx(read[0] * SMALL.width * 4 / 1e6)
    (table,) = host_tables(rows)
    assert [line[:2] for line in table.lines] == [[str(size), way] for size in (64, 256) for way in WAYS]
    assert all(len(line) == len(table.columns) for line in table.lines)


def test_a_way_that_computes_something_else_is_told_and_no_time_is(monkeypatch):
    right = host_values.weighted_sums
    monkeypatch.setattr(host_values, "weighted_sums", lambda *given: right(*given) * 1.001)
    with pytest.raises(RuntimeError, match="wrong results: host 64 slots: host, one by one, host 64 slots: host, 1"):
        bench_host([64], device_name="cpu", steps=1, shape=SMALL)


def test_the_command_saves_and_prints(tmp_path, capsys):
    shape = "tokens=8,parts=2,layers=1,width=8,hidden=8,top_k=4,key_width=8"
    command = ["bench", "offload", "--slots", "64", "--steps", "1", "--device", "cpu", "--shapes", shape]
    assert memx([*command, "--save", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert all(way in printed for way in WAYS) and "waited: time the step waited" in printed
    rows = read_bench(tmp_path)
    assert {row.kind for row in rows} == set(WAYS) and {row.experiment for row in rows} == {"bench-host"}
    assert "layers=1" in rows[0].dataset


def test_mistakes_and_shapes(capsys):
    for slots, told in ((9, "slots 9 is too small for top-k 4"), (1000, "slots 1000 is not a square")):
        with pytest.raises(MemxError, match=told):
            bench_host([slots], device_name="cpu", steps=1, shape=SMALL)
    assert memx(["bench", "offload", "--shapes", "rows=3"]) == 2
    assert "offload has no dimension 'rows'" in capsys.readouterr().err
    assert host_shape((), torch.device("cpu")) == HostShape() and host_shape(("large",), torch.device("cpu")) == LARGE
    assert host_shape(("tokens=2^4",), torch.device("cuda")).tokens == 16
