"""Tensors of a saved state -> nothing, or one line that names the file and the first tensor that is not the run's."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...errors import MemxError, tensor_file_reason
from .states import damaged
from .tensor_files import Whole

if TYPE_CHECKING:
    from ..models.slot_usage import SlotUsage

_OTHER_MODEL = "resume with the config that it was trained with, or use --force to start over"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file of a state. Raises MemxError, naming it, for one that is damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise damaged(path, tensor_file_reason(error)) from None


def check_alike(
    found: Mapping[str, Tensor | Whole],
    own: Mapping[str, Tensor],
    path: Path,
    *,
    optional: str = "\0",
    lengths: bool = True,
) -> None:
    """Check that the tensors of a file are those that the run has.

    Args:
        found: What the file holds, or what it says of that.
        own: The run's tensors, which may be on the meta device.
        path: The file, or the folder of its parts.
        optional: What names of tensors begin with that may be missing or there.
        lengths: Whether shapes are compared, and not the number of dimensions alone.

    Raises:
        MemxError: A tensor is missing or superfluous, or has another shape or dtype.
    """
    for name in sorted(own.keys() | found.keys()):
        there, here = found.get(name), own.get(name)
        if (there is None or here is None) and name.startswith(optional):
            continue
        if there is None or here is None or _differ(tuple(there.shape), tuple(here.shape), lengths):
            shapes = [list(tensor.shape) if tensor is not None else "nothing" for tensor in (there, here)]
            raise MemxError(
                f"{path} is from a different model: {name} is {shapes[0]} there, {shapes[1]} here", hint=_OTHER_MODEL
            )
        if there.dtype != here.dtype:
            kinds = [str(tensor.dtype).removeprefix("torch.") for tensor in (there, here)]
            raise MemxError(
                f"{path} is from a different run: {name} is {kinds[0]} there, {kinds[1]} here", hint=_OTHER_MODEL
            )


def _differ(there: tuple[int, ...], here: tuple[int, ...], lengths: bool) -> bool:
    return there != here if lengths else len(there) != len(here)


def check_use(found: Mapping[str, Tensor], usage: SlotUsage, path: Path) -> None:
    """Check the statistics of use in a state: as many rows as counts, and each a row of its table.

    Args:
        found: What the file holds.
        usage: The run's statistics.
        path: The file.

    Raises:
        MemxError: It is damaged, or of another run.
    """
    check_alike(found, usage.state_tensors(), path, optional="last/", lengths=False)
    for block, window in usage.windows.items():
        rows, counts = found[f"rows/{block}"], found[f"counts/{block}"]
        inside = not len(rows) or 0 <= int(rows.min()) <= int(rows.max()) < len(window.counts)
        if len(rows) != len(counts) or not inside:
            raise damaged(path, f"rows/{block} are no rows of the table")
        if len(found.get(f"last/{block}", "abc")) != 3:
            raise damaged(path, f"last/{block} must have 3 values")


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise MemxError, naming the first tensor, if a value that was read is NaN or infinite."""
    name = first_not_finite(tensors)
    if name is not None:
        raise damaged(path, f"{name} has values that are NaN or infinite")


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a value that is NaN or infinite; None if all are finite.

    Args:
        tensors: By name; of a DTensor the part of this rank is read. Whole numbers are finite.
    """
    for name, tensor in tensors.items():
        own: Any = tensor
        own = own.to_local() if hasattr(own, "to_local") else own
        # one pass that allocates nothing; a NaN is both the least and the largest
        extremes = own.detach().aminmax() if own.numel() and own.is_floating_point() else ()
        if not all(isfinite(float(extreme)) for extreme in extremes):
            return name
    return None


def copy_weights(model: torch.nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights that were checked into a model."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
