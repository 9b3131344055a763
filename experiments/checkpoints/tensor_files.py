"""Tensors on disk in parts, as the ranks hold them: safetensors by torch.distributed.checkpoint, which reads them back
into any other division, or whole. Nothing is pickled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor

from ...errors import MemxError, tensor_file_reason
from ...files import cannot_write
from ...torch_compat import checkpoint

_AT_ONCE = 16 * 10**9  # bytes of whole tensors that are written at once, unless one is larger
_dcp = checkpoint()
BUFFERS = "buffers.safetensors"  # of a state: what a model keeps beside its weights


class Whole(NamedTuple):
    """What a tensor in parts is as a whole."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Its size."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def write_parts(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write what this rank holds of DTensors, and its share of tensors that all ranks hold; every rank calls this.

    Some tensors at a time, each time to a folder of their own: torch holds what it writes twice more in host memory.
    """
    for number, names in enumerate(_groups(tensors)):
        with _quiet():
            writer = _dcp.HuggingFaceStorageWriter(str(folder / f"{number:05d}"), save_distributed=True)
            _dcp.save({name: tensors[name] for name in names}, storage_writer=writer)


def read_parts(folder: Path, tensors: Mapping[str, Tensor], *, alone: bool = False) -> None:
    """Fill tensors, DTensors or whole ones, in place. alone: this process reads, the others of its world do not."""
    for place, there in _places(folder):
        wanted = {name: tensors[name] for name in there if name in tensors}
        if wanted:
            with _quiet():
                _dcp.load(wanted, storage_reader=_dcp.HuggingFaceStorageReader(str(place)), no_dist=alone)


def whole_tensors(folder: Path) -> dict[str, Whole]:
    """Every tensor that lies in a folder, by name."""
    return {name: whole for _, there in _places(folder) for name, whole in there.items()}


def _places(folder: Path) -> Iterator[tuple[Path, dict[str, Whole]]]:
    """The folders of `write_parts`, or one that holds whole tensors, and what lies in each."""
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdigit()) or [folder]:
        with _quiet():
            found = _dcp.HuggingFaceStorageReader(str(place)).read_metadata().state_dict_metadata
        yield place, {name: Whole(tuple(of.size), of.properties.dtype) for name, of in found.items()}


def _groups(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """Names of tensors to be written at once, the same on every rank."""
    groups: list[list[str]] = []
    room = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if not groups or size > room:
            groups.append([])
            room = _AT_ONCE
        groups[-1].append(name)
        room -= size
    return groups


def disk_errors(target: Path, work: Callable[[], None]) -> None:
    """Do work that writes target. Raises MemxError where the disk is full or forbids it."""
    try:
        work()
    except (OSError, SafetensorError) as error:
        raise cannot_write(target, _os_error(error)) from None
    except _dcp.CheckpointException as error:
        raise cannot_write(target, _os_error(next(iter(error.failures.values()))[0])) from None


@contextmanager
def readable(source: Path) -> Iterator[None]:
    """Inside, a state is read. Raises MemxError for one that is damaged."""
    try:
        yield
    except MemxError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, _dcp.CheckpointException) as error:
        line = tensor_file_reason(error)
        raise MemxError(f"the checkpoint {source} is corrupt: {line}", hint="use --force to start over") from None


def _os_error(error: BaseException) -> OSError:
    return error if isinstance(error, OSError) else OSError(0, str(error))


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, torch does not warn of its own use of its deprecated names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
