"""Kernels broken on purpose: for each the tests of its file fail, and so does the check that opens `memx bench`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


class Mutation(NamedTuple):
    name: str
    path: str
    old: str
    new: str
    tests: str
    op: str


MUTATIONS = [
    Mutation("a bag's last row is masked", "embedding_bag/kernel.py", "here = k < bag_rows\n        there = (",
             "here = k < bag_rows - 1\n        there = (", "test_bags", "embedding_bag"),
    Mutation("a bag's first tile is dropped", "embedding_bag/kernel.py", "range(0, bag_rows, ROWS)",
             "range(ROWS, bag_rows, ROWS)", "test_bags", "embedding_bag"),
    Mutation("a dot's second tile of columns is dropped", "embedding_bag/kernel.py", "range(0, width, COLUMNS)",
             "range(0, COLUMNS, COLUMNS)", "test_bags", "bag_dot"),
    Mutation("a block counts to two rows", "embedding_bag/segment_kernel.py", "first = (start + SPLIT - 1) // SPLIT",
             "first = start // SPLIT", "test_bags", "embedding_bag"),
    Mutation("a block lacks its first tile", "embedding_bag/segment_kernel.py", "range(0, SPLIT, ROWS)",
             "range(ROWS, SPLIT, ROWS)", "test_bags", "embedding_bag"),
    Mutation("a row lacks its tail", "embedding_bag/segment_kernel.py", "tl.where(split, last * SPLIT, end)",
             "tl.where(split, end, end)", "test_bags", "embedding_bag"),
    Mutation("a slot's halves are swapped", "product_topk/kernel.py",
             "_place(pair1).to(tl.int64) * n + _place(pair2)", "_place(pair2).to(tl.int64) * n + _place(pair1)",
             "test_lookup", "product_topk"),
    Mutation("a list's first tile is dropped", "product_topk/kernel.py", "range(0, n, TILE)", "range(TILE, n, TILE)",
             "test_lookup", "product_topk"),
    Mutation("what lies behind a list counts", "product_topk/kernel.py", "tl.where((key < n)[None, :], _packed",
             "tl.where((key < n + 9)[None, :], _packed", "test_lookup", "product_topk"),
    Mutation("the best of a tile are not turned round", "product_topk/kernel.py", "tl.flip(tl.topk(packed, KEPT), 1)",
             "tl.topk(packed, KEPT)", "test_lookup", "product_topk"),
    Mutation("decays are swapped", "sparse_adam/kernel.py", "return decay1, decay2, ahead",
             "return decay2, decay1, ahead", "test_adam", "sparse_adam"),
    Mutation("coasting is not settled", "sparse_adam/kernel.py", "(new + eps[:, None]) + settled",
             "(new + eps[:, None])", "test_adam", "sparse_adam"),
    Mutation("a row's other columns share its noise and place", "sparse_adam/kernel.py",
             "at = row[:, None] * width", "at = place[:, None] * width", "test_adam", "sparse_adam"),
    Mutation("a query sees what comes after it", "attention_spectrogram/kernel.py", "t[:, None] <= (old + i)",
             "t[:, None] <= (old + i + 1)", "test_attention_spectrogram", "attention_spectrogram"),
    Mutation("a frame is dropped", "attention_spectrogram/kernel.py", "range(frames)", "range(1, frames)",
             "test_attention_spectrogram", "attention_spectrogram"),
    Mutation("sine and cosine are swapped", "attention_spectrogram/kernel.py",
             "real = tl.dot(attention, second_cos", "real = tl.dot(attention, second_sin",
             "test_attention_spectrogram", "attention_spectrogram"),
    Mutation("a head's rows are read from the next", "evict_gather/kernel.py", "place % heads * strides",
             "(place + 1) % heads * strides", "test_evict_gather", "evict_gather"),
    Mutation("rows past the count are copied", "evict_gather/kernel.py", "row < tl.load(counts + place)",
             "row <= tl.load(counts + place)", "test_evict_gather", "evict_gather"),
    Mutation("a query does not see its own key", "ragged_attention/kernel.py", "seen &= back >= 0", "seen &= back > 0",
             "test_ragged_attention", "ragged_attention"),
    Mutation("sums are not rescaled", "ragged_attention/kernel.py", "sums = sums * kept[:, None]", "sums = sums",
             "test_ragged_attention", "ragged_attention"),
]  # fmt: skip


def run(folder: Path, *command: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)


def gate(folder: Path, op: str) -> subprocess.CompletedProcess:
    """The check of `memx bench` alone, at shapes that fill no tile, with the interpreter mended as in the tests."""
    code = (
        f"import runpy; runpy.run_path('{ROOT / 'tests' / 'triton' / 'interpreter.py'}')['mend']();"
        "import sys, torch, memx;"
        "from memx.experiments.benchmarks.ops.correctness import check_implementations as check;"
        "from memx.kernels.registry import OPS; cpu = torch.device('cpu');"
        f"assert memx.__file__.startswith('{folder}'), memx.__file__;"
        f"(op,) = [op for op in OPS if op.name == '{op}'];"
        "checks = [check(op, shape, torch.float32, cpu)['triton'] for shape in op.odd_shapes];"
        "print(checks); sys.exit(0 if all(one.right for one in checks) else 7)"
    )
    return run(folder, sys.executable, "-c", code)


def copy(folder: Path) -> Path:
    leave = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "runs", "figures", "__pycache__", "reference")
    return shutil.copytree(ROOT, folder / "memx", ignore=leave)


@pytest.mark.slow
@pytest.mark.parametrize("op", sorted({mutation.op for mutation in MUTATIONS}))
def test_the_check_passes_what_is_whole(op, tmp_path):
    copy(tmp_path)
    result = gate(tmp_path, op)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_broken_kernel_is_found(mutation, tmp_path):
    path = copy(tmp_path) / "kernels" / mutation.path
    source = path.read_text("utf-8")
    assert mutation.old in source
    path.write_text(source.replace(mutation.old, mutation.new), "utf-8")
    checked = gate(tmp_path, mutation.op)
    assert checked.returncode == 7, checked.stdout + checked.stderr
    tests = str(tmp_path / "memx" / "tests" / "triton" / f"{mutation.tests}.py")
    tested = run(tmp_path, str(Path(sys.executable).parent / "pytest"), "-q", "-x", "-p", "no:cacheprovider", tests)
    assert tested.returncode == 1, tested.stdout[-3000:]
