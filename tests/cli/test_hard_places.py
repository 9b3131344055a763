"""Each command that writes, where it cannot: a disk of 8 KB, a folder of another user, and two of each at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from memx import namm
from memx.cli.main import run as memx
from memx.experiments.distributed.process_group import without_torchrun
from memx.namm.policies.base import Rule
from memx.namm.policies.network import Namm
from memx.results.store.rows import Row, read_rows, write_rows

from ..experiments.evolution.tiny_evolution import settings, write_host
from ..experiments.qa.taught_model import nq_files
from ..ranks import Ended, end_worlds

QUICK = ("training.steps=4", "training.threads=1", "evaluation.final_questions=10", "data.biographies=20")
SETS = [part for setting in QUICK for part in ("--set", setting)]
BENCH = ["bench", "ops", "embedding_bag", "--seconds", "0.01", "--compile", "none", "--device", "cpu"]
CHEAP = ["prepare", "config"]
COMMANDS = [*CHEAP, *(pytest.param(one, marks=pytest.mark.slow) for one in
            ("plot", "train", "evict", "eval", "eval-namm", "evolve-namm", "bench"))]  # fmt: skip


@pytest.fixture(scope="module")
def inputs() -> Iterator[Path]:
    """What the commands read, where every user can."""
    with tempfile.TemporaryDirectory(prefix="memx-inputs-") as folder:
        root = Path(folder)
        write_host(root / "host")
        nq_files(root)
        parameters = 0.3 * torch.randn(4172, generator=torch.Generator().manual_seed(0))
        namm.save(Namm(parameters, rule=Rule(budget=0.4), every=64), root / "namm")
        lines = [json.dumps({"text": f"document {number} " + "word and word " * 40}) for number in range(40)]
        (root / "corpus.jsonl").write_text("\n".join(lines) + "\n")
        for slots in (0, 1024):
            rows = [
                Row(run=f"r{slots}", experiment="e", kind="memory" if slots else "dense", model="m", dataset=tier,
                    metric=metric, value=3.0, n=9, low=1, high=4, memory_slots=slots, parameters_total=9)
                for tier in ("seen", "rephrased", "unseen") for metric in ("exact_match", "nll")
            ]  # fmt: skip
            write_rows(root / f"{slots}.rows.jsonl", rows)
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        yield root


def command(name: str, inputs: Path, out: Path) -> list[str]:
    """A command that writes below `out`."""
    host = str(inputs / "host")
    evolution = [part for key, value in settings(inputs / "host", **{"evolution.generations": 2})
                 for part in ("--set", f"{key}={json.dumps(value)}")]  # fmt: skip
    small = ["--length", "200", "--prompts", "1", "--threads", "1", "--set", "documents=1", "--set", "resamples=100"]
    return {
        "train": ["train", "tiny", *SETS, "--runs", str(out)],
        "prepare": ["prepare", str(inputs / "corpus.jsonl"), "--out", str(out / "prepared"), "--tokenizer", host],
        "eval": ["eval", host, "--task", "nq", "--file", f"nq={inputs}", "--shots", "1", "--limit", "2",
                 "--runs", str(out)],
        "eval-namm": ["eval-namm", str(inputs / "namm"), "--model", host, *small, "--task", "key_values",
                      "--runs", str(out)],
        "evolve-namm": ["evolve-namm", *evolution, "--runs", str(out)],
        "evict": ["evict", "a river and a mill " * 20, "--model", host, "--out", str(out / "evicted"),
                  "--interval", "64", "--new-tokens", "2"],
        "bench": [*BENCH, "--save", str(out / "saved")],
        "plot": ["plot", "memory", str(inputs), "--out", str(out / "figures"), "--formats", "png,svg"],
        "config": ["config", "copy", "tiny", str(out / "copy.yaml")],
    }[name]  # fmt: skip


def run_there(given: list[str], user: int = 0) -> int:
    """Run memx as this process, as another user if one is given; its exit code."""
    import dataclasses

    from memx.experiments.benchmarks import ceilings
    from memx.experiments.benchmarks.ops import run as bench
    from memx.kernels.embedding_bag import OP

    bench.OPS = (dataclasses.replace(OP, shapes=({"B": 8, "K": 4, "N": 64, "D": 8},)),)
    ceilings._COPIED, ceilings._SIDE = {"cpu": 2**20}, {"cpu": 64}
    if user:
        os.environ["XDG_CACHE_HOME"] = os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp()
        Path(os.environ["XDG_CACHE_HOME"]).chmod(0o777)
        os.seteuid(user)
    try:
        with without_torchrun():
            return memx(given)
    finally:
        if user:
            os.seteuid(0)  # so that this rank can tell how it ended


def refused(ended: Ended, message: str) -> None:
    """One error of one line, and a hint."""
    lines = ended.printed.splitlines()
    told = [line for line in lines if line.startswith(("error: ", "hint: "))]
    assert ended.result == 2 and len(told) == 2 and message in told[0], ended.printed + ended.error
    assert "Traceback" not in ended.printed


@contextmanager
def small_disk(kilobytes: int) -> Iterator[Path]:
    """A disk of so many kilobytes. Skips the test where there can be none."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder]
        if (
            os.geteuid() != 0
            or shutil.which("mount") is None
            or subprocess.run(mounted, capture_output=True).returncode
        ):
            pytest.skip("no disk can be mounted here")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_of_8_kb_is_one_line_and_holds_nothing_half_written(name, inputs):
    with small_disk(8) as disk:
        given = command(name, inputs, disk / "out")
        (disk / "out").mkdir()
        (disk / "out" / "filler").write_bytes(bytes(4096))
        (ended,) = end_worlds(run_there, (1,), dict(given=given), seconds=170)[1]
        left = [path for path in (disk / "out").rglob("*") if path.is_file() and path.name != "filler"]
        if ended.result == 0:  # it is small enough
            assert name in ("config", "bench")
            return
        refused(ended, "cannot write")
        kept = ("answers.jsonl", "prompts.jsonl", "config.yaml", "run.json", ".lock")  # of an evaluation that began
        assert not [path for path in left if path.name not in kept], left


def others_can_import() -> bool:
    """Whether another user can read what a command imports while it runs."""
    places = [Path(sys.prefix), Path(sys.modules["memx"].__file__).resolve().parent]
    return all(one.stat().st_mode & 0o001 for place in places for one in (place, *place.parents))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(not others_can_import(), reason="another user cannot read this checkout")
@pytest.mark.parametrize("name", CHEAP)
def test_the_folder_of_another_user_is_one_line(name, inputs):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        given = command(name, inputs, Path(folder))
        (ended,) = end_worlds(run_there, (1,), dict(given=given, user=65534), seconds=170)[1]
        refused(ended, "Permission denied")
        assert not list(Path(folder).iterdir())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_cannot_be_written_is_one_line(name, inputs):
    with small_disk(8) as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        (ended,) = end_worlds(run_there, (1,), dict(given=command(name, inputs, disk)), seconds=170)[1]
        refused(ended, "Read-only file system")


@pytest.mark.parametrize("name", COMMANDS)
def test_of_two_at_once_one_is_refused_or_both_leave_the_same(name, inputs, tmp_path):
    given = command(name, inputs, tmp_path / "out")
    (tmp_path / "out").mkdir()
    ended = end_worlds(run_there, (2,), dict(given=given), seconds=170)[2]
    assert 0 in [one.result for one in ended], [one.printed for one in ended]
    for one in ended:
        if one.result != 0:
            assert one.result == 2 and any(
                part in one.printed for part in ("exists", "in use by another", "another process", "already contains")
            ), one.printed
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert left and not [path for path in left if path.name.startswith(".memx-")]
    for path in left:
        if path.name.endswith("rows.jsonl"):
            assert read_rows(path)
    if name in CHEAP:
        assert memx(given) == 2  # and it is not replaced
