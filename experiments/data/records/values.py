"""Values of records -> text as a person would write it; what is no text is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

CELL = 2_000  # characters, at most, of a subject, a relation, an object or an alias
CELLS = 1_000  # texts, at most, of a list


class NotText(ValueError):
    """A value that is neither text nor a number; says what it is."""


def text_of(value: Any, *, most: int | None = CELL) -> str | None:
    """The text of a value, with single spaces.

    Args:
        value: A value of a record.
        most: The largest number of characters; None for any.

    Returns:
        The text: a number as a person would write it, a date as 1998-07-24. None for a missing or empty value.

    Raises:
        NotText: The value is no text, number or date, or has too many characters.
    """
    text = value if isinstance(value, str) else _written(value)
    text = " ".join(text.split()) if text is not None else ""
    if "\0" in text:
        raise NotText("a NUL byte")
    if most is not None and len(text) > most:
        raise NotText(f"{len(text):,} characters, more than {most:,}")
    return text or None


def texts_of(value: Any, *, separator: str = "|", most: int | None = CELL) -> tuple[str, ...]:
    """The different texts of a list, or of one cell where a character separates them. Missing ones are left out.

    Args:
        value: A value of a record.
        separator: What separates the texts of one cell.
        most: The largest number of characters of a text; None for any.

    Raises:
        NotText: A value is no text, number or date, or there are too many or too long ones.
    """
    if isinstance(value, str):
        value = value.split(separator)
    elif not isinstance(value, list | tuple):
        value = [value]
    found = tuple(dict.fromkeys(text for one in value if (text := text_of(one, most=most)) is not None))
    if len(found) > CELLS:
        raise NotText(f"{len(found):,} texts, more than {CELLS:,}")
    return found


def _written(value: Any) -> str | None:
    """A value that is not text, as text; None if it is missing."""
    if value is None:
        return None
    if isinstance(value, bool):
        raise NotText(f"{'true' if value else 'false'} is not text")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Decimal):
        if value.is_nan():
            return None
        if value.is_infinite():
            raise NotText("an infinite number is not text")
        return format(value, "f")
    if value != value:  # missing values of tables, as pandas' NaT
        return None
    if isinstance(value, datetime):
        if value.tzinfo is None and value.time() == time():
            return value.date().isoformat()
        return value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    raise NotText(f"{_kind(value)} is not text")


def _number(value: float) -> str | None:
    if math.isnan(value):
        return None
    if math.isinf(value):
        raise NotText("an infinite number is not text")
    if value.is_integer():
        return format(Decimal(repr(value)).to_integral_value(), "f").removeprefix("-0") or "0"
    return format(Decimal(repr(value)), "f")


def _kind(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, bytes):
        return "binary data"
    return f"a value of type {type(value).__name__}"
