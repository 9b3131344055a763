"""`memx doctor`: all checks of this installation, those without torch first."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

from .check import Check, guarded
from .packages import BASE, extra_checks, package_checks
from .places import FOLDERS, HUB, folder_checks, hub_check

_MACHINE = (("Devices", "device_checks"), ("Ops, each against float64", "op_checks"),
            ("NAMMs that come with memx", "namm_checks"))  # fmt: skip
_REINSTALL = "pip install --force-reinstall memx, in a new environment"


def examine(runs: Path, progress: Callable[[str], None] = lambda text: None) -> list[Check]:
    """Check packages, folders, the hub, devices, ops and NAMMs.

    Args:
        runs: The folder of runs.
        progress: Gets a line before what takes seconds.

    Returns:
        The checks, in the order in which they are shown. One that cannot be made is a failed check.
    """
    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(guarded, HUB, "hub", "check HF_ENDPOINT", lambda: [hub_check()])
        checks = guarded(BASE, "packages", _REINSTALL, package_checks)
        checks += guarded(BASE, "extras", _REINSTALL, extra_checks)
        found = guarded(FOLDERS, "folders", "check their permissions", lambda: folder_checks(runs))
        progress("importing torch, trying each op")
        for group, name in _MACHINE:
            found += guarded(group, group.partition(",")[0], _REINSTALL, _of_machine(name))
        return [*checks, *found, *asked.result()]


def _of_machine(name: str) -> Callable[[], list[Check]]:
    """A function of `machine`, which imports torch: also that may fail."""
    return lambda: getattr(import_module(".machine", __package__), name)()
