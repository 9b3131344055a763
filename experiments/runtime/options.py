"""Where a command writes its runs, and what it does with those that exist. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Where runs go, and what to do with those that are there.

    lengthen: whether a run that is to be resumed may start from one of other steps, as the user's own does.
    """

    runs: Path
    resume: bool = False
    force: bool = False
    jobs: int = 1
    lengthen: bool = True
