"""What the tests of the pages share: the workspace, and stand-ins for the hub and for what takes minutes."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from .sandbox import Sandbox
from .workspace import Workspace


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory, tiny_run) -> Workspace:
    """Everything that commands read. Made by one worker; the others use it too, and write nothing in it."""
    base = tmp_path_factory.getbasetemp()
    together = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made = Workspace(together / "workspace")
    with FileLock(together / "workspace.lock"):
        if not (together / "workspace.done").exists():
            made.make(tiny_run[0].folder)
            (together / "workspace.done").touch()
    return made


@pytest.fixture
def box(tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """An empty folder with the workspace's files in it, and stand-ins for what cannot be here."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    _stand_in_for_the_hub(monkeypatch, workspace)
    _stand_in_for_minutes(monkeypatch, workspace)
    monkeypatch.chdir(tmp_path)
    return Sandbox(tmp_path / "box", workspace)


def _stand_in_for_the_hub(monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> None:
    """A tiny model and six texts in place of those of the hub and of packages; other names are refused as ever."""
    from memx.experiments.base_models import load
    from memx.experiments.data.corpus.readers import sources
    from memx.experiments.data.corpus.readers.files import FileTexts
    from memx.experiments.qa import cost

    usual, model = load._resolve, workspace.kinds / "model"

    def resolve(name: str) -> tuple[str, str]:
        elsewhere = name in load.PACKAGED or (load._HUB_NAME.fullmatch(name) and not Path(name).exists())
        return (str(model), "") if elsewhere else usual(name)

    def texts(source, damage):
        return FileTexts(source.model_copy(update={"path": str(workspace.files / "my-texts")}), damage)

    monkeypatch.setattr(load, "_resolve", resolve)
    monkeypatch.setattr(sources, "HubTexts", texts)
    monkeypatch.setattr(cost, "check_harness", lambda config: None)  # lm-eval is an extra


def _stand_in_for_minutes(monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> None:
    """Ops at their smallest shapes, layers and models timed at small ones in this process, and no processes to convert."""
    from memx.experiments.benchmarks import ceilings
    from memx.experiments.benchmarks.models import host_offload, layer_step, training_step
    from memx.experiments.benchmarks.ops import run as ops
    from memx.experiments.checkpoints import convert

    small = tuple(dataclasses.replace(op, shapes=op.odd_shapes[:1] or op.shapes[:1]) for op in ops.OPS)
    monkeypatch.setattr(ops, "OPS", small)
    monkeypatch.setattr(ceilings, "_COPIED", {"cpu": 2**20})
    monkeypatch.setattr(ceilings, "_SIDE", {"cpu": 64})

    def here(function, *arguments):
        return function(*arguments)

    for module in (host_offload, layer_step, training_step):
        if hasattr(module, "in_own_process"):
            monkeypatch.setattr(module, "in_own_process", here)

    def converted(state: Path, target: Path) -> Path:
        shutil.copytree(workspace.kinds / "run" / "checkpoint", target, dirs_exist_ok=True)
        return target

    monkeypatch.setattr(convert, "newest_state", lambda folder: next(iter(sorted(folder.iterdir()))))
    monkeypatch.setattr(convert, "convert_state", converted)
