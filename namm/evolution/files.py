"""An evolution on disk: a folder with its numbers (safetensors) and evolution.json, which names and vouches for them.

The numbers are written beside the old ones; renaming evolution.json is the moment at which the new state counts, and
only then do the old numbers go. A kill at any time leaves one state whole. Nothing in it is ever run.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat, NonNegativeInt, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as read_arrays
from safetensors.numpy import save as array_bytes

from ...errors import MemxError, plain_reason, tensor_file_reason
from ...files import cannot_write, replace_file
from ...json_text import BadJson, parse_json
from ...version import __version__
from .cma_state import Array, Covariance, StepSize
from .history import State
from .search import Evolution

FORMAT = 1
RECORD = "evolution.json"
_TURNED = "|transposed"  # an array that lies in memory by columns: products of it round otherwise than by rows
_COPY = "copy the folder again, or start over"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Settings(_Strict):
    n: PositiveInt
    population: PositiveInt
    sigma: FiniteFloat
    seed: NonNegativeInt
    covariance: Covariance
    step_size: StepSize
    eigen_every: int | None


class _Found(_Strict):
    fitness: FiniteFloat
    generation: NonNegativeInt


class _Record(_Strict):
    format: int
    memx: str
    cma: str
    arrays: str
    sha256: str
    settings: _Settings
    rng: dict[str, Any]
    generation: NonNegativeInt
    stage: NonNegativeInt
    began: NonNegativeInt
    stopped: list[str]
    validated: _Found | None
    best: _Found | None


def save_evolution(evolution: Evolution, folder: str | PathLike[str]) -> None:
    """Save the state of an evolution to a folder; after an interruption either the old or the new state is complete.

    Args:
        evolution: The evolution. Between `ask` and `tell` its state before `ask` is written.
        folder: The folder; made if it does not exist.

    Raises:
        MemxError: The folder cannot be written.
    """
    folder, state = Path(folder), evolution.state()
    data = array_bytes(dict(_to_file(name, array) for name, array in state.arrays.items()))
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"evolution-{state.rest['generation']:08d}-{sha256[:8]}.safetensors"
    head = {"format": FORMAT, "memx": __version__, "cma": version("cma"), "arrays": name, "sha256": sha256}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / name, data)
        replace_file(folder / RECORD, (json.dumps({**head, **state.rest}, indent=2) + "\n").encode())
        for old in (*folder.glob("evolution-*.safetensors"), *folder.glob(".evolution*")):
            if old.name != name:
                old.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from None


def load_evolution(folder: str | PathLike[str]) -> Evolution:
    """Load a state that `save_evolution` wrote; it continues bit for bit as the saved evolution would have.

    Args:
        folder: The folder of `save_evolution`.

    Returns:
        The evolution.

    Raises:
        MemxError: The folder has no state, is damaged, or was written by another format version or version of cma.
    """
    folder = Path(folder)
    try:
        record = _understand((folder / RECORD).read_bytes())
        data = (folder / Path(record.arrays).name).read_bytes()
        if hashlib.sha256(data).hexdigest() != record.sha256:
            raise ValueError(f"{record.arrays} does not match its checksum in {RECORD}")
        arrays = dict(_from_file(name, array) for name, array in read_arrays(data).items())
        rest = record.model_dump(exclude={"format", "memx", "cma", "arrays", "sha256"})
        return Evolution.of_state(State(arrays, rest))
    except (FileNotFoundError, NotADirectoryError) as error:
        lacking = f"contains no {Path(error.filename).name}" if folder.is_dir() else "is not a folder"
        raise MemxError(f"no saved evolution: {folder} {lacking}", hint="use another folder, or start over") from None
    except OSError as error:
        raise MemxError(f"cannot read {folder}: {error.strerror or error}", hint="check the file permissions") from None
    except SafetensorError as error:
        reason = f"a file of its arrays is damaged ({tensor_file_reason(error)})"
        raise MemxError(f"cannot load the evolution in {folder}: {reason}", hint=_COPY) from None
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise MemxError(f"cannot load the evolution in {folder}: {error}", hint=_COPY) from None


def _understand(text: bytes) -> _Record:
    """What evolution.json says. Raises ValueError with one line if it is damaged or another version's."""
    try:
        content = parse_json(text)
    except BadJson as error:
        raise ValueError(f"{RECORD}: {error.reason}") from None
    if not isinstance(content, dict) or "format" not in content:
        raise ValueError(f"{RECORD} does not describe an evolution")
    if content["format"] != FORMAT:
        raise ValueError(f"its format version is {content['format']}, this memx ({__version__}) reads {FORMAT}")
    if content.get("cma") != version("cma"):  # whose attributes a state consists of
        raise ValueError(f"it was saved with cma {content.get('cma')}, but cma {version('cma')} is installed")
    try:
        return _Record.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{RECORD}: {'.'.join(map(str, first['loc']))}: {plain_reason(first)}") from None


def _to_file(name: str, array: Array) -> tuple[str, Array]:
    if array.ndim == 2 and not array.flags.c_contiguous and array.flags.f_contiguous:
        return name + _TURNED, array.T
    return name, np.ascontiguousarray(array).reshape(array.shape)


def _from_file(name: str, array: Array) -> tuple[str, Array]:
    return (name.removesuffix(_TURNED), array.T) if name.endswith(_TURNED) else (name, array)
