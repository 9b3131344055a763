"""A saved state of a run over several processes -> one folder as transformers reads it, a tensor at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from ...errors import MemxError
from ...files import put_in_place
from ...leftovers import temporary_beside
from ...results.store.resuming import resume_hint
from ...results.store.runs import Run
from .state_tensors import check_finite, read_tensors
from .states import saved_states
from .tensor_files import BUFFERS, Whole, disk_errors, read_parts, readable, whole_tensors

_LARGEST = 5 * 10**9  # bytes of a file, unless one tensor is larger; as transformers does


def convert_state(folder: Path, target: Path, *, replace: bool = True) -> Path:
    """Write the newest state in a folder as safetensors, config and tokenizer to target, whole or not at all.

    One process does this, with at most one file's tensors in memory. Raises MemxError if there is no such state, or if
    target is there and may not be replaced.
    """
    source = newest_state(folder)
    temporary = temporary_beside(target)

    def write() -> None:
        temporary.mkdir(parents=True)
        for path in (source / "transformers").iterdir():
            shutil.copyfile(path, temporary / path.name)
        with readable(source):
            _write_files(source / "model", temporary)
        put_in_place(temporary, target, replace=replace)

    try:
        disk_errors(target, write)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def newest_state(folder: Path) -> Path:
    """The newest state of several processes in a folder. Raises MemxError if there is none."""
    states = [state for state in saved_states(folder) if (state / "model").is_dir()]
    if not states:
        done = (folder.parent / "checkpoint").is_dir()
        hint = f"the run is finished: use {folder.parent / 'checkpoint'}" if done else resume_hint(Run(folder.parent))
        raise MemxError(f"{folder} has no sharded checkpoint (of several processes)", hint=hint)
    return states[-1]


def _write_files(source: Path, target: Path) -> None:
    wholes, buffers = whole_tensors(source), source.with_name(BUFFERS)
    files = _files(wholes)
    index: dict[str, str] = {}
    for number, names in enumerate(files, start=1):
        name = "model.safetensors" if len(files) == 1 else f"model-{number:05d}-of-{len(files):05d}.safetensors"
        tensors = {name: torch.empty(wholes[name].shape, dtype=wholes[name].dtype) for name in names}
        read_parts(source, tensors, alone=True)
        check_finite(tensors, source)
        if number == len(files) and buffers.exists():
            tensors |= read_tensors(buffers)
        save_file(tensors, target / name, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, name)
    if len(files) > 1:
        listed = {"metadata": {"total_size": sum(whole.bytes for whole in wholes.values())}, "weight_map": index}
        (target / "model.safetensors.index.json").write_text(json.dumps(listed, indent=2))


def _files(wholes: dict[str, Whole]) -> list[list[str]]:
    """Tensors by file, in their order."""
    files: list[list[str]] = [[]]
    room = _LARGEST
    for name, whole in wholes.items():
        if files[-1] and whole.bytes > room:
            files.append([])
            room = _LARGEST
        files[-1].append(name)
        room -= whole.bytes
    return files
