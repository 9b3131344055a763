"""Launch settings of the Triton kernels: sane defaults, and better ones for a card once `memx bench --tune` found them.

Nothing is tuned while a model trains: block sizes set the order of sums, so a search in passing would give other bits
from run to run. What a search finds is kept in the user's cache by card and Triton version, and read from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from ..files import cache_folder, replace_file
from ..json_text import BadJson, parse_json
from ..private_files import private_folder, stranger_in

Settings = Mapping[str, int]
_MOST = 2**16  # of a block size, or of another number of a launch


class Asked(NamedTuple):
    """The name that a kernel's settings are stored by, and what it runs with now."""

    name: str
    current: Settings


# of a search alone; not context variables, for a backward pass on CUDA runs in a thread of its own
_forced: dict[str, Settings] = {}
_asked: dict[str, Asked] | None = None


def settings(kernel: str, key: Sequence[object], default: Settings, device: torch.device) -> dict[str, int]:
    """The settings of a kernel for a key, what the best ones depend on (sizes, dtype): stored, or the default.

    Both have the same names. A stored entry with other names is of another version of memx, and is not used.
    """
    name = " ".join([kernel, *(str(part).removeprefix("torch.") for part in key)])
    chosen = _forced.get(kernel)
    if chosen is None and device.type == "cuda":
        chosen = _stored(device).get(name)
    if chosen is None or chosen.keys() != default.keys():
        chosen = default
    if _asked is not None:
        _asked[kernel] = Asked(name, dict(chosen))
    return dict(chosen)


def path(device: torch.device) -> Path:
    """Where the settings of a card are kept."""
    import triton

    card = torch.cuda.get_device_name(device).replace(" ", "-").replace("/", "-")
    return cache_folder() / f"tuned-{card}-triton-{triton.__version__}.json"


def store(file: Path, found: Mapping[str, Settings]) -> None:
    """Add settings, by kernel and key, to a file; whole or not at all."""
    merged = {**_load(file), **{name: dict(chosen) for name, chosen in found.items()}}
    private_folder(file.parent)
    replace_file(file, json.dumps(merged, indent=1, sort_keys=True).encode() + b"\n")
    _read.cache_clear()


@contextmanager
def forced(kernel: str, chosen: Settings) -> Iterator[None]:
    """Within it, one kernel runs with these settings; for a search."""
    _forced[kernel] = chosen
    try:
        yield
    finally:
        del _forced[kernel]


@contextmanager
def noted() -> Iterator[dict[str, Asked]]:
    """Within it, what kernels ask for is noted, by kernel."""
    global _asked
    _asked = found = {}
    try:
        yield found
    finally:
        _asked = None


def _stored(device: torch.device) -> dict[str, Settings]:
    """What is kept for a card; nothing for a user without a home."""
    try:
        file = path(device)
    except RuntimeError:
        return {}
    return _read(file)


@lru_cache(maxsize=8)
def _read(file: Path) -> dict[str, Settings]:
    return _load(file)


def _load(file: Path) -> dict[str, Settings]:
    """What a file holds; nothing if it is not there, is damaged, or may be another user's: defaults serve too."""
    try:
        found = parse_json(file.read_bytes()) if not stranger_in(file) else {}
    except (OSError, BadJson):
        return {}
    return {name: one for name, one in found.items() if _is_setting(one)} if isinstance(found, dict) else {}


def _is_setting(found: object) -> bool:
    """Whether an entry of a file is names with numbers that a launch can have."""
    return isinstance(found, dict) and all(type(number) is int and 0 <= number <= _MOST for number in found.values())
