"""What the options of several commands have in common."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from ...errors import MemxError


class Dtype(StrEnum):
    """What ops and hosts compute in."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


def check_resume(resume: bool, force: bool) -> None:
    """Raise MemxError if existing runs are to be both resumed and started anew."""
    if resume and force:
        raise MemxError("--resume and --force exclude each other")


def given(flags: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The dotted keys of a config whose options were given, with their values."""
    return [(key, value) for key, value in flags.items() if value is not None and value != []]
