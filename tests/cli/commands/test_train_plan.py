"""`memx train --dry-run --gpus …`: exit codes, JSON, tables, and that it writes nothing."""

import json

import pytest
from memx.cli.main import run as memx


@pytest.mark.parametrize(
    ("flags", "told", "hint"),
    [
        (["--gpus", "8"], "--gpus is only for dry runs", "--dry-run"),
        (["--tokens", "1T"], "--tokens is only for dry runs", "torchrun"),
        (["--dry-run", "--gpu", "h300"], "unknown GPU 'h300'", "h200"),
        (["--dry-run", "--tokens", "many"], "'many' is not a number of tokens", "100B"),
        (
            ["--dry-run", "--gpus", "6", "--set", "parallel.shard=4"],
            "parallel.shard 4 is not a divisor of 6",
            "divisor",
        ),
        (
            ["--dry-run", "--gpus", "3"],
            "width 32 cannot be split evenly over parallel.table_ranks 3",
            "parallel.table=rows",
        ),
        (["--dry-run", "--gpus", "0"], "--gpus", "must be at least 1"),
        (["--dry-run", "--utilization", "2"], "--utilization", "must be at most 1"),
    ],
)
def test_mistakes_are_one_line_and_a_hint(capsys, flags, told, hint):
    assert memx(["train", "tiny", *flags]) == 2
    error = capsys.readouterr().err
    assert told in error and hint in error and "Traceback" not in error


def test_a_plan_as_json(capsys, tmp_path):
    runs = tmp_path / "runs"
    flags = ["--gpus", "256", "--gpu", "H200", "--utilization", "0.3", "--tokens", "100B", "--runs", str(runs)]
    assert memx(["train", "1.3b-64m-1t", "--dry-run", "--json", *flags]) == 0
    (cost,) = json.loads(capsys.readouterr().out)
    plan = cost["plan"]
    assert (plan["gpus"], plan["gpu"], plan["problems"]) == (256, "H200 SXM", [])
    assert plan["tokens"] >= 10**11 and plan["hours"] > 0
    assert any(line.startswith("30% of the peak 989 TFLOP/s") for line in plan["assumed"])
    assert not runs.exists()


def test_tables_say_what_is_held_what_is_assumed_and_what_does_not_run(capsys, tmp_path):
    flags = ["--gpus", "8", "--set", "training.accumulate=16", "--runs", str(tmp_path / "runs")]
    assert memx(["train", "1.3b-64m-1t", "--dry-run", *flags]) == 0
    told = capsys.readouterr().out
    assert "Memory of each GPU in GB (8 x H100 SXM)" in told and "8 by width" in told and "does not run" in told
    assert "does not fit: 246 GB of 80 GB; " in told
    assert "Assumptions (not measured):\n  40% of the peak 989 TFLOP/s" in told
    assert memx(["train", "tiny", "--dry-run", "--gpus", "1"]) == 0
    told = capsys.readouterr().out
    assert "does not" not in told and "GPU hours" in told and "memory.slots" not in told


def test_without_a_plan_nothing_is_assumed(capsys):
    assert memx(["train", "tiny", "--dry-run"]) == 0
    assert "ssumed" not in capsys.readouterr().out
