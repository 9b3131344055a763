"""What stands in for the hub, for installed models and for what takes minutes, while a printed command runs."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from .workspace import LANDS, Workspace


def stand_in(monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> None:
    """Patch memx until the test ends; the command line itself, and every check of what it is given, stay as they are."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    _for_models(monkeypatch, workspace.kinds / "deep-model")
    _for_data(monkeypatch, workspace.files / "my-texts")
    _for_benchmarks(monkeypatch)
    _for_processes(monkeypatch, workspace.kinds / "run" / "checkpoint")


def _for_models(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    """A tiny model in place of those of the hub and of packages; other names are refused as ever."""
    from memx.experiments.base_models import load

    usual = load._resolve

    def resolve(name: str) -> tuple[str, str]:
        elsewhere = name in load.PACKAGED or (load._HUB_NAME.fullmatch(name) and not Path(name).exists())
        return (str(model), "") if elsewhere else usual(name)

    monkeypatch.setattr(load, "_resolve", resolve)


def _for_data(monkeypatch: pytest.MonkeyPatch, texts: Path) -> None:
    """Six texts and ten questions in place of data sets of the hub; lm-eval, an extra, is not looked for."""
    from memx.experiments.data.corpus.readers import sources
    from memx.experiments.data.corpus.readers.files import FileTexts
    from memx.experiments.qa import cost
    from memx.experiments.qa import sources as questions

    def read_texts(source: Any, damage: Any) -> FileTexts:
        return FileTexts(source.model_copy(update={"path": str(texts)}), damage)

    def read_questions(source: None, name: str, hub: Any) -> list[dict[str, Any]]:
        start = "what" if hub.arguments["split"] == "validation" else "which"
        return [{"question": f"{start} is the capital of {land}", "answer": [town]} for land, town in LANDS]

    monkeypatch.setattr(sources, "HubTexts", read_texts)
    monkeypatch.setattr(questions, "read_rows", read_questions)
    monkeypatch.setattr(cost, "check_harness", lambda config: None)


def _for_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ops at their smallest shapes, and all that is timed in this process, without cleaning its memory first."""
    from memx.experiments.benchmarks import ceilings, timing
    from memx.experiments.benchmarks.models import host_offload, layer_step, training_step
    from memx.experiments.benchmarks.ops import run as ops

    small = tuple(dataclasses.replace(op, shapes=op.odd_shapes[:1] or op.shapes[:1]) for op in ops.OPS)
    monkeypatch.setattr(ops, "OPS", small)
    monkeypatch.setattr(ceilings, "_COPIED", {"cpu": 2**20})
    monkeypatch.setattr(ceilings, "_SIDE", {"cpu": 64})
    monkeypatch.setattr(timing.gc, "collect", lambda *generation: 0)
    for module in (host_offload, layer_step, training_step):
        if hasattr(module, "in_own_process"):
            monkeypatch.setattr(module, "in_own_process", lambda function, *given, **named: function(*given, **named))


def _for_processes(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    """A finished run's model in place of what `memx convert` puts together from the files of several processes."""
    from memx.experiments.checkpoints import convert

    def converted(state: Path, target: Path) -> Path:
        shutil.copytree(checkpoint, target, dirs_exist_ok=True)
        return target

    monkeypatch.setattr(convert, "newest_state", lambda folder: max(folder.iterdir()))
    monkeypatch.setattr(convert, "convert_state", converted)
