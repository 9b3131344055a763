"""Every file of tests/triton, in two processes in which Triton interprets its kernels on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parent.parent / "triton").glob("test_*.py"))


@pytest.mark.parametrize("paths", [FILES[::2], FILES[1::2]], ids=lambda paths: " ".join(path.stem for path in paths))
def test_kernels_are_right_when_interpreted(paths):
    command = [str(Path(sys.executable).parent / "pytest"), "-v", "-x", "-p", "no:cacheprovider", *map(str, paths)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=FILES[0].parent.parent.parent)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    lines = result.stdout.splitlines()
    for path in paths:
        assert any(f"{path.name}::" in line and "PASSED" in line for line in lines), result.stdout[-2000:]
    assert "SKIPPED" not in result.stdout and "skipped" not in lines[-1], result.stdout[-2000:]
