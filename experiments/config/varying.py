"""The keys `sweep` and `variants`: what each may hold, and how many runs both may make."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Annotated, Any

from pydantic import AfterValidator

from ...errors import shown

MOST_POINTS = 2000
_LONGEST_NAME = 100
_FIXED = ("name", "experiment", "variant", "sweep", "variants", "extends", "command")  # of all points together


def _name_of_variant(name: str) -> str:
    if not name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise ValueError(f"a variant cannot be named {shown(name)}; use 1 to {_LONGEST_NAME} characters on one line")
    return name


Sweep = dict[str, tuple[Any, ...]]
Variants = dict[Annotated[str, AfterValidator(_name_of_variant)], dict[str, Any]]


def check_varied(sweep: Mapping[str, tuple[Any, ...]], variants: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError for a sweep and variants that make no sense together.

    Args:
        sweep: Dotted key -> its values.
        variants: Name -> dotted keys and values.
    """
    for key, values in sweep.items():
        if not values:
            raise ValueError(f"sweep.{shown(key)[1:-1]} has no values; list at least one")
        seen: set[str] = set()
        for value in values:
            if repr(value) in seen:
                raise ValueError(f"sweep.{shown(key)[1:-1]} has {shown(value)} twice; remove one")
            seen.add(repr(value))
    for where, keys in {"sweep": sweep, **{f"variant {shown(name)}": keys for name, keys in variants.items()}}.items():
        for key in keys:
            if key in _FIXED:
                raise ValueError(f"{where} cannot change {key}; remove it there")
    for name, changes in variants.items():
        for key in changes.keys() & sweep.keys():
            raise ValueError(f"variant {shown(name)} sets {key}, which the sweep varies; remove one of them")
    count = prod(map(len, sweep.values())) * max(1, len(variants))
    if count > MOST_POINTS:
        raise ValueError(f"sweep: {count:,} runs are more than {MOST_POINTS:,}; list fewer values")
