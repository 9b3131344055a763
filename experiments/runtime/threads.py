"""The CPU threads of a run: those that it began with, as sums over threads and so its bits depend on them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from .events import Note, Report


def run_threads(asked: int | None, info: Mapping[str, Any], usual: int, report: Report) -> int:
    """How many threads of torch a run computes with.

    Args:
        asked: What its config says, which is the same each time; None for nothing.
        info: What its run.json says, if it has begun before.
        usual: What it takes if neither says anything.
        report: Gets a note where a run keeps another number than the usual one, or cannot keep it.

    Returns:
        The number of threads.
    """
    recorded = info.get("threads")
    if asked is None and isinstance(recorded, int) and not isinstance(recorded, bool) and recorded > 0:
        if recorded != usual:
            report(Note(f"computing with {recorded} CPU threads, as when the run began"))
        usual = recorded
    elif recorded is not None and asked is None:
        report(Note(f"run.json has no valid number of threads; computing with {usual}"))
    threads = asked or usual
    limit = os.environ.get("OMP_THREAD_LIMIT", "")
    if limit.isdigit() and 0 < int(limit) < threads:
        report(Note(f"OMP_THREAD_LIMIT={limit} allows fewer than the run's {threads} threads: last digits may differ"))
    return threads


@contextmanager
def restored_threads() -> Iterator[None]:
    """Set the number of torch's CPU threads back to what it was before the block."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
