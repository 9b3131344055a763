"""A NAMM on disk: a folder with its numbers (namm.safetensors) and with what they mean (namm.json).

The JSON holds the SHA-256 of the numbers, so that halves of two NAMMs are never taken for one. A folder is written
beside its place, flushed to the disk and renamed. Nothing in it is ever run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from ...errors import MemxError, plain_reason, tensor_file_reason
from ...files import cannot_write, put_in_place
from ...json_text import BadJson, parse_json
from ...leftovers import sweep, temporary_beside
from ...version import __version__
from .base import Rule
from .features import AGES, BINS, DECAY, FEATURES, HOP, N_FFT, OLD_EPS, SMALLEST_DEVIATION
from .keep import Grouping
from .network import Namm, Scorer
from .scorer import BAM_PARAMETERS, count, layer_sizes

FORMAT = 1  # raise it when a NAMM of before would be read wrongly
TENSORS, DESCRIPTION = "namm.safetensors", "namm.json"
# what the numbers of a NAMM mean; one made with others would load and decide nonsense
CONSTANTS: dict[str, Any] = {
    "n_fft": N_FFT,
    "hop": HOP,
    "window": "hann periodic",
    "decay": DECAY,
    "age base": 50_000,
    "ages": AGES,
    "smallest deviation": SMALLEST_DEVIATION,
    "features": "age, spectrum",
    "parameters": "of each layer: weight (in x out), bias",
}
# a file without a smallest deviation is of an older memx, which added a constant to the variance
_OLD_CONSTANTS = {name: value for name, value in CONSTANTS.items() if name != "smallest deviation"} | {"eps": OLD_EPS}


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    threshold: float
    budget: float | None
    grouping: Grouping


class _Description(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: int
    memx: str
    name: str
    scorer: Scorer
    hidden: tuple[PositiveInt, ...]
    strict: bool
    rule: _Rule
    every: PositiveInt
    constants: dict[str, Any]
    host: str | None
    tasks: tuple[str, ...]
    sha256: str


def save(namm: Namm, path: str | PathLike[str], *, host: str | None = None, tasks: Sequence[str] = ()) -> None:
    """Save a NAMM to a folder; a NAMM that is already there is replaced.

    Args:
        namm: The NAMM. Its numbers are written as float32.
        path: The folder; made if it does not exist.
        host: Name of the model that the NAMM was evolved on; a note for readers of the file.
        tasks: Names of the tasks that it was evolved on; also a note.

    Raises:
        MemxError: The folder contains other files, the NAMM is not valid (`load` would refuse it), or the folder cannot
            be written.

    Example:
        ```python
        import memx

        memx.namm.save(memx.namm.Namm(every=64), "my-namm")
        namm = memx.namm.load("my-namm")
        ```
    """
    folder = Path(path).resolve()  # through links, which stay
    tensors = {"parameters": namm.parameters, "mean": namm.mean, "variance": namm.variance}
    data = tensor_bytes({name: tensor.detach().cpu().float().contiguous() for name, tensor in tensors.items()})
    text = _describe(namm, host, tasks, hashlib.sha256(data).hexdigest())
    try:
        _unpack(text, data)
    except ValueError as error:
        raise MemxError(
            f"this NAMM cannot be saved: {error}", hint="fix it first: memx.namm.load would reject the file"
        ) from None
    try:
        _check_place(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _put_in_place(folder, {TENSORS: data, DESCRIPTION: text.encode()})
    except OSError as error:
        raise cannot_write(folder, error) from None


def load(path: str | PathLike[str]) -> Namm:
    """Load a NAMM that `save` or `memx evolve-namm` wrote.

    Args:
        path: The folder, such as `results/runs/RUN/namm`.

    Returns:
        The NAMM, bit for bit as it was saved, with its tensors on the CPU.

    Raises:
        MemxError: The folder does not exist, is damaged, or has another format version or other constants.

    Example:
        ```python
        from dataclasses import replace

        import memx

        memx.namm.save(memx.namm.Namm(every=64), "my-namm")
        namm = memx.namm.load("my-namm")
        smaller = replace(namm, rule=memx.namm.Rule(budget=0.25))  # keep a quarter of the tokens
        ```
    """
    folder = Path(path)
    try:
        text, data = (folder / DESCRIPTION).read_text("utf-8"), (folder / TENSORS).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        lacking = f"contains no {Path(error.filename).name}" if folder.is_dir() else "is not a folder"
        raise MemxError(
            f"no NAMM: {folder} {lacking}", hint="give a folder written by memx.namm.save, e.g. RUN/namm"
        ) from None
    except OSError as error:
        raise MemxError(f"cannot read {folder}: {error.strerror or error}", hint="check the file permissions") from None
    except UnicodeDecodeError:
        text, data = "", b""  # no JSON either
    try:
        return _unpack(text, data)
    except ValueError as error:
        raise MemxError(
            f"cannot load the NAMM in {folder}: {error}", hint="copy the folder again, or save the NAMM again"
        ) from None


def _describe(namm: Namm, host: str | None, tasks: Sequence[str], sha256: str) -> str:
    rule = _Rule.model_construct(
        threshold=namm.rule.threshold, budget=namm.rule.budget, grouping=namm.rule.grouping
    )  # checked when it is read back
    described = _Description.model_construct(
        format=FORMAT,
        memx=__version__,
        name=namm.name,
        scorer=namm.scorer,
        hidden=tuple(namm.hidden),
        strict=namm.strict,
        rule=rule,
        every=namm.every,
        constants=_OLD_CONSTANTS if namm.eps == OLD_EPS else CONSTANTS,
        host=host,
        tasks=tuple(tasks),
        sha256=sha256,
    )
    return described.model_dump_json(indent=2, warnings=False) + "\n"


def _unpack(text: str, data: bytes) -> Namm:
    """The NAMM of both files' contents. Raises ValueError with one line on what is wrong."""
    described = _understand(text)
    if hashlib.sha256(data).hexdigest() != described.sha256:
        raise ValueError(f"{TENSORS} does not match its checksum in {DESCRIPTION}")
    scorer, hidden = described.scorer, described.hidden
    wanted = BAM_PARAMETERS if scorer == "bam" else count(layer_sizes((FEATURES, *hidden, 1)))
    try:
        tensors = read_tensors(data)
    except SafetensorError as error:
        raise ValueError(f"{TENSORS} is corrupt: {tensor_file_reason(error)}") from None
    for name, length in (("parameters", wanted), ("mean", BINS), ("variance", BINS)):
        _check_vector(name, tensors.get(name), length)
    if (tensors["variance"] < 0).any():
        raise ValueError("a variance is negative")
    rule = described.rule
    try:
        return Namm(
            parameters=tensors["parameters"],
            mean=tensors["mean"],
            variance=tensors["variance"],
            rule=Rule(rule.threshold, rule.budget, rule.grouping),
            every=described.every,
            scorer=scorer,
            hidden=hidden,
            strict=described.strict,
            name=described.name,
            eps=0.0 if "smallest deviation" in described.constants else OLD_EPS,
        )
    except MemxError as error:
        raise ValueError(error.message) from None


def _understand(text: str) -> _Description:
    """What namm.json says. Raises ValueError with one line if it is damaged or means something else than here."""
    try:
        content = parse_json(text)
    except BadJson as error:
        raise ValueError(f"{DESCRIPTION}: {error.reason}") from None
    if not isinstance(content, dict) or "format" not in content:
        raise ValueError(f"{DESCRIPTION} does not describe a NAMM")
    if content["format"] != FORMAT:
        raise ValueError(f"its format version is {content['format']}, this memx ({__version__}) reads {FORMAT}")
    constants = content.get("constants")
    if not isinstance(constants, dict):
        raise ValueError(f"{DESCRIPTION} has no constants")
    known = CONSTANTS
    if "smallest deviation" not in constants:
        known, constants = _OLD_CONSTANTS, {"eps": OLD_EPS, **constants}
    for name in sorted({*constants, *known}):
        theirs, ours = (json.dumps(given[name]) if name in given else "nothing" for given in (constants, known))
        if theirs != ours:
            raise ValueError(f"its constant {name!r} is {theirs}, this memx uses {ours}")
    try:
        described = _Description.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{DESCRIPTION}: {'.'.join(map(str, first['loc']))}: {plain_reason(first)}") from None
    if described.rule.threshold != described.rule.threshold:
        raise ValueError(f"{DESCRIPTION}: the threshold is not a number")
    return described


def _check_vector(name: str, vector: Tensor | None, length: int) -> None:
    if vector is None:
        raise ValueError(f"{TENSORS} contains no {name}")
    if vector.shape != (length,):
        raise ValueError(f"{name} has shape {list(vector.shape)}, not [{length}]")
    if vector.dtype != torch.float32:
        raise ValueError(f"{name} is {vector.dtype}, not float32")
    if not vector.isfinite().all():
        raise ValueError(f"{name} contains values that are not finite")


def _check_place(folder: Path) -> None:
    """Raise MemxError unless nothing, an empty folder or a NAMM's files alone are there."""
    if not folder.exists():
        return
    if not folder.is_dir() or any(file.name not in (TENSORS, DESCRIPTION) for file in folder.iterdir()):
        raise MemxError(
            f"{folder} exists and is not a saved NAMM", hint="use a new or empty folder, or one with a saved NAMM"
        )


def _put_in_place(folder: Path, files: dict[str, bytes]) -> None:
    """Give a folder of such files its name; what had the name goes."""
    sweep(folder.parent)  # what killed processes left
    made = temporary_beside(folder)
    try:
        made.mkdir()
        for name, data in files.items():
            (made / name).write_bytes(data)
        put_in_place(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
