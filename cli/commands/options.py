"""What options of several commands take."""

from __future__ import annotations

from enum import StrEnum


class Dtype(StrEnum):
    """What ops and hosts compute in."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"
