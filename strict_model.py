"""The base of all configs: a frozen pydantic model that refuses unknown keys, and numbers and texts that are none.

A number is finite and no truth value, and text only where YAML makes one of it: it reads 1e-3, without a dot, as text.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from .errors import shown

LARGEST = 10**12  # of any number of a config, up or down; most keys have lower limits
_EXPONENT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+", re.ASCII)


class StrictModel(BaseModel):
    """A config or a section of one: frozen, and it refuses unknown keys and values that only look like numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    largest: ClassVar[float] = LARGEST

    @field_validator("*", mode="before")
    @classmethod
    def _plain_value(cls, value: Any, info: ValidationInfo) -> Any:
        return _checked(cls.model_fields[info.field_name or ""].annotation, value, cls.largest)


class WrittenModel(StrictModel):
    """What memx counts and writes itself: of sizes in bytes and of counts of tokens, none is too large."""

    largest: ClassVar[float] = math.inf


def _checked(kind: Any, value: Any, largest: float) -> Any:
    """The value, with numbers as numbers, if each number and text in it is one. Raises ValueError if not."""
    allowed, inside = _scalars(kind), _inside(kind)
    if isinstance(value, str):
        if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError(f"{shown(value)} has a character that no text file can hold")
        if allowed & {int, float} and str not in allowed:
            return _number(allowed, float(value) if _EXPONENT.fullmatch(value) else value, value, largest)
        return value
    if isinstance(value, bool | int | float):
        return _number(allowed, value, value, largest) if allowed & {int, float} else value
    if isinstance(value, Mapping) and (kind is Any or inside is not Any):  # not a section, whose keys check themselves
        return {_checked(str, key, largest): _checked(inside, one, largest) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_checked(inside, one, largest) for one in value]
    return value


def _number(allowed: frozenset[type], value: Any, written: Any, largest: float) -> Any:
    if value is True or value is False:
        if bool in allowed:
            return value
    elif isinstance(value, int | float):
        if not math.isfinite(value if isinstance(value, float) else 0):
            raise ValueError(f"must be a finite number, not {shown(written)}")
        if abs(value) > largest:
            bound = f"at most {largest:,}" if value > 0 else f"at least {-largest:,}"
            raise ValueError(f"must be {bound}, not {shown(written)}")
        if isinstance(value, float) and float not in allowed and value.is_integer():
            return int(value)
        return value or (0.0 if isinstance(value, float) else 0)  # -0.0 would make another run than 0.0
    raise ValueError(f"must be a {'number' if float in allowed else 'whole number'}, not {shown(written)}")


@cache
def _scalars(kind: Any) -> frozenset[type]:
    """Which of int, float, bool and str a key takes itself."""
    if kind in (int, float, bool, str):
        return frozenset([kind])
    if get_origin(kind) is Annotated:
        return _scalars(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return frozenset().union(*(_scalars(part) for part in get_args(kind)))
    return frozenset()


@cache
def _inside(kind: Any) -> Any:
    """The kind of the entries of a list or of a table; Any for other keys."""
    if get_origin(kind) in (Union, types.UnionType):
        found = [_inside(part) for part in get_args(kind)]
        return next((one for one in found if one is not Any), Any)
    if get_origin(kind) in (tuple, list):
        return get_args(kind)[0]
    if get_origin(kind) is dict:
        return get_args(kind)[1]
    return Any
