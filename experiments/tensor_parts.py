"""Tensors on disk in parts, as the ranks hold them: safetensors by torch.distributed.checkpoint, which reads them back
into any other division, or whole. Nothing is pickled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed import checkpoint

from ..errors import MemxError
from ..results.files import cannot_write

_dcp: Any = checkpoint  # whose names its module does not list


class Whole(NamedTuple):
    """What a tensor in parts is as a whole."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Its size."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def write_parts(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write what this rank holds of DTensors, and its share of tensors that all ranks hold; every rank calls this."""
    if tensors:
        with _quiet():
            _dcp.save(dict(tensors), storage_writer=_dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True))


def read_parts(folder: Path, tensors: Mapping[str, Tensor], *, alone: bool = False) -> None:
    """Fill tensors, DTensors or whole ones, in place. alone: this process reads, the others of its world do not."""
    if tensors:
        with _quiet():
            reader = _dcp.HuggingFaceStorageReader(str(folder))
            _dcp.load(dict(tensors), storage_reader=reader, no_dist=alone)


def whole_tensors(folder: Path) -> dict[str, Whole]:
    """Every tensor that lies in a folder, by name."""
    with _quiet():
        metadata = _dcp.HuggingFaceStorageReader(str(folder)).read_metadata()
    return {name: Whole(tuple(of.size), of.properties.dtype) for name, of in metadata.state_dict_metadata.items()}


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
        line = " ".join(str(error).split())[:200]
        raise MemxError(f"the state {source} is damaged: {line}", hint="--force starts the run anew") from None


def _os_error(error: BaseException) -> OSError:
    return error if isinstance(error, OSError) else OSError(0, str(error))


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, torch does not warn of its own use of its deprecated names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
