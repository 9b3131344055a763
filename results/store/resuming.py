"""The command that continues a stopped run."""

from __future__ import annotations

import shlex
from pathlib import Path

from ...errors import MemxError
from .runs import Run, run_config

_DEFAULT_RUNS = Path("results/runs")
_COMMANDS = ("train", "evolve-namm")  # which read the config of a run back


def resume_command(run: Run) -> str:
    """The command that continues a run in its own folder.

    Args:
        run: The run, which need not have begun.

    Returns:
        The command line; empty if the run's config alone does not give it.
    """
    try:
        config = run_config(run)
    except MemxError:  # damaged: there is nothing to continue with
        return ""
    command = str(config.get("command") or "train")
    if not config or command not in _COMMANDS:
        return ""
    if (config.get("match") or {}).get("resize") == "width":  # a matched run; its width cannot be matched again
        return ""
    where = [] if run.folder.parent == _DEFAULT_RUNS else ["--runs", str(run.folder.parent)]
    return shlex.join(["memx", command, "--config", str(run.folder / "config.yaml"), *where, "--resume"])


def resume_hint(run: Run) -> str:
    """What to do about a run that is not finished, as the hint of an error.

    Args:
        run: The run.
    """
    command = resume_command(run)
    return f"continue it with: {command}" if command else "run its command again with --resume to continue it"
