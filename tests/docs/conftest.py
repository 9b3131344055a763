"""What the tests of the pages share: the workspace, and a folder to run a command in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filelock import FileLock

from .sandbox import Sandbox
from .stand_ins import stand_in
from .workspace import Workspace


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory, tiny_run) -> Workspace:
    """Everything that commands read. Made by one worker; the others use it too, and write nothing in it."""
    base = tmp_path_factory.getbasetemp()
    together = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made = Workspace(together / "workspace")
    with FileLock(together / "workspace.lock"), pytest.MonkeyPatch.context() as monkeypatch:
        if not (together / "workspace.done").exists():
            stand_in(monkeypatch, made)
            made.make(tiny_run[0].folder)
            (together / "workspace.done").touch()
    return made


@pytest.fixture
def box(tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """An empty folder with the workspace's files in it, and stand-ins for what cannot be here."""
    stand_in(monkeypatch, workspace)
    monkeypatch.chdir(tmp_path)
    return Sandbox(tmp_path / "box", workspace)
