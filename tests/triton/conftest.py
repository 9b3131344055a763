"""The Triton kernels: on CUDA (`pytest -m gpu`), or on the CPU in a process of its own that Triton interprets them in.

`TRITON_INTERPRET=1 pytest tests/triton` is what tests/kernels/test_interpreter.py runs; it shows that arithmetic, masks
and indices are right, not that there are no races.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from memx.kernels.op import interpreted

if interpreted():
    from .interpreter import mend

    mend()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and not interpreted():
            item.add_marker(pytest.mark.gpu)


@pytest.fixture
def device() -> torch.device:
    """Where Triton kernels run here."""
    return torch.device("cpu" if interpreted() else "cuda")
