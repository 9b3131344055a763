"""What stands in for the hub, for installed models and for what takes minutes, while a printed command runs."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from memx.results.store.rows import Row, read_rows

from .workspace import LANDS, REFERENCE, Workspace

_DRAWN: dict[Any, Any] = {}  # what `memx plot` has drawn in this process, by what it was asked for


def stand_in(monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> None:
    """Patch memx until the test ends; the command line, and its checks of what it is given, stay as they are."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    _for_models(monkeypatch, workspace.kinds / "deep-model")
    _for_namms(monkeypatch, workspace.kinds)
    _for_data(monkeypatch, workspace.files / "my-texts")
    _for_benchmarks(monkeypatch)
    _for_pictures(monkeypatch)
    _for_sweeps(monkeypatch)
    _for_processes(monkeypatch, workspace.kinds / "run" / "checkpoint")


def _for_models(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    """A tiny model in place of those of the hub and of packages; other names are refused as ever."""
    from memx.experiments.base_models import load, model_folder

    usual = model_folder.find_model_folder

    def find(name: str) -> tuple[str, str]:
        hub = model_folder._HUB_NAME.fullmatch(name) and not Path(name).exists()
        return (str(model), "") if name in model_folder.PACKAGED or hub else usual(name)

    monkeypatch.setattr(load, "find_model_folder", find)


def _for_namms(monkeypatch: pytest.MonkeyPatch, kinds: Path) -> None:
    """Tiny NAMMs in place of those that come with memx; the evolved one for every name of the hub, which takes all."""
    import huggingface_hub
    from memx import hub
    from memx.namm.saved import places

    api = SimpleNamespace(create_repo=lambda repo, **given: f"https://huggingface.co/{repo}",
                          upload_folder=lambda **given: None)  # fmt: skip
    monkeypatch.setattr(places, "SHIPPED", kinds / "shipped")
    monkeypatch.setattr(hub, "_reachable", lambda endpoint: True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **given: str(kinds / "namm" / "namm"))
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda token=None: api)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")


def _for_data(monkeypatch: pytest.MonkeyPatch, texts: Path) -> None:
    """Six texts and ten questions in place of data sets of the hub; lm-eval, an extra, is not looked for."""
    from memx.experiments.data.corpus.readers import sources
    from memx.experiments.data.corpus.readers.files import FileTexts
    from memx.experiments.data.records.record import Record
    from memx.experiments.qa import cost
    from memx.experiments.qa import sets as questions

    def read_texts(source: Any, damage: Any) -> FileTexts:
        return FileTexts(source.model_copy(update={"path": str(texts)}), damage)

    def read_questions(hub: Any) -> list[Record]:
        start = "what" if hub.arguments["split"] == "validation" else "which"
        rows = [{"question": f"{start} is the capital of {land}", "answer": [town]} for land, town in LANDS]
        return [Record(f"row {number}", row) for number, row in enumerate(rows, start=1)]

    monkeypatch.setattr(sources, "HubTexts", read_texts)
    monkeypatch.setattr(questions, "hub_records", read_questions)
    monkeypatch.setattr(cost, "check_harness", lambda config: None)


def _for_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the repository in place of what takes time to measure; every check of what to measure stays."""
    from memx.experiments.benchmarks import run
    from memx.experiments.benchmarks.eviction import prefill_decode, settings
    from memx.experiments.benchmarks.models import host_offload, layer_baselines
    from memx.experiments.benchmarks.ops import resources
    from memx.experiments.benchmarks.ops import run as ops

    def compiled(variant: Any, capability: int) -> SimpleNamespace:
        counts = dict.fromkeys(("registers", "spills", "shared", "programs", "load_bits"), 0)
        return SimpleNamespace(name=variant.name, capability=capability, matrix="", **counts)

    def timed(bench: Any, op: Any, shape: Any, *, compiled: bool) -> list[Row]:
        return [row for row in measured("bench") if row.dataset.startswith(f"{op.name} ")]

    monkeypatch.setattr(resources, "measure", compiled)
    monkeypatch.setattr(ops, "measure_ceilings", lambda stopwatch, dtype: None)
    monkeypatch.setattr(ops, "_ceiling_rows", lambda ceilings, common: [])
    monkeypatch.setattr(ops, "check_edges", lambda bench, op: [])
    monkeypatch.setattr(ops, "bench_op", timed)
    small = tuple(dataclasses.replace(op, shapes=op.odd_shapes[:1] or op.shapes[:1]) for op in ops.OPS)
    monkeypatch.setattr(ops, "OPS", small)
    of_rows = [one if one.table in ("bench", "bench-host") else _from_rows(one) for one in run.benchmarks()]
    monkeypatch.setattr(run, "benchmarks", lambda: of_rows)
    monkeypatch.setattr(settings, "CONTEXT", {"cpu": 512})
    monkeypatch.setattr(host_offload, "HOST_SLOTS", {"cpu": (1024,)})
    shape = partial(host_offload.HostShape, tokens=32, width=16, hidden=16, key_width=16)
    monkeypatch.setattr(host_offload, "HostShape", shape)
    monkeypatch.setattr(layer_baselines, "find_spec", lambda package: package)  # the extra peers
    monkeypatch.setattr(prefill_decode, "check_peers", lambda: None)


@cache
def measured(table: str) -> list[Row]:
    """The rows of benchmarks that the repository has."""
    names = ("bench/bench", "step/step", "evict/prefill", "evict/generate", "namm/generation")
    return [row for name in names for row in read_rows(REFERENCE / f"{name}.rows.jsonl") if row.experiment == table]


def _from_rows(benchmark: Any) -> Any:
    """A benchmark that gives the repository's rows, and checks what it is asked for as ever."""

    def run(names: Any, config: Any, device: Any, progress: Any) -> Iterator[list[Row]]:
        yield measured(benchmark.table)

    return dataclasses.replace(benchmark, run=run)


def _for_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figure twice of the same rows, and no map of evicted tokens: other tests look at them."""
    from memx.cli.commands.plot import pictures
    from memx.results.eviction import files

    usual = pictures.draw

    def draw(name: str, request: Any) -> Any:
        below = [list(one.iterdir()) if one.is_dir() and one.name == "runs" else [one] for one in request.sources]
        sources = sorted(str(path.resolve()) for paths in below for path in paths)
        named = [one.name == "runs" for one in request.sources]
        key = (name, request.experiment, repr(request.options), *named, *sources)
        if key not in _DRAWN:
            _DRAWN[key] = usual(name, request)
        return _DRAWN[key]

    monkeypatch.setattr(pictures, "draw", draw)
    monkeypatch.setattr(files, "_png", lambda report: b"picture")


def _for_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two points of a sweep in place of all."""
    from memx.experiments.config import points

    usual = points.plan
    monkeypatch.setattr(points, "plan", lambda *given, **named: usual(*given, **named)[:2])


def _for_processes(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    """A finished run's model in place of what `memx convert` puts together from the files of several processes."""
    from memx.experiments.checkpoints import convert

    def converted(state: Path, target: Path, *, replace: bool = True) -> Path:
        shutil.copytree(checkpoint, target, dirs_exist_ok=True)
        return target

    monkeypatch.setattr(convert, "newest_state", lambda folder: max(folder.iterdir()))
    monkeypatch.setattr(convert, "convert_state", converted)
