"""The one exception that memx raises for a user's mistake: a message and a hint; plain words for validation errors."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

# pydantic's kinds of mistakes; {…} are values of their context
_REASONS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a section of keys and values",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "model_attributes_type": "must be a section of keys and values",
    "model_type": "must be a section of keys and values",
    "multiple_of": "must be a multiple of {multiple_of}",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "string_too_long": "must have at most {max_length} characters",
    "string_type": "must be text",
    "string_unicode": "must be UTF-8 text",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entries",
    "tuple_type": "must be a list",
}


_SHOWN = 80  # characters of a value in a message
_BITS = 300  # of an integer that is shown with its digits


class MemxError(Exception):
    """A mistake that the user can correct. The command line prints it without a traceback and exits with code 2.

    Args:
        message: One line: what is wrong, and where.
        hint: What to do about it.

    Attributes:
        message: The message.
        hint: The hint; empty if there is none.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint  # an attribute, which pickle carries along to other processes


def shown(value: Any, limit: int = _SHOWN) -> str:
    """A user's value for a message, in the words of YAML and never longer than the limit.

    Args:
        value: Any value.
        limit: The most characters of it.
    """
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > _BITS:
        return f"a number of about {int(value.bit_length() * 0.30103):,} digits"
    if isinstance(value, str):
        value = value[: limit + 1]  # so that its repr is as short
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer in it is too long, or a list too deep
        text = f"a {type(value).__name__}"
    return text if len(text) <= limit else text[:limit] + "…"


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint "did you mean …?" with the name that is most like it; an empty text if none is.

    Args:
        name: What the user wrote.
        names: What there is.
    """
    match = closest(name, names)
    return f"did you mean {match!r}?" if match else ""


def closest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The name that is most like another; None if none is at least `cutoff` alike (1: the same)."""
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)), None)


def plain_reason(mistake: Mapping[str, Any]) -> str:
    """One line for a mistake that pydantic reports, as "must be at least 1, not 0".

    Args:
        mistake: An entry of `ValidationError.errors()`.

    Returns:
        The reason without the key's path; a validator's own message is returned as it is.
    """
    kind, message = mistake["type"], mistake["msg"]
    if kind in ("missing", "extra_forbidden"):
        return "is missing" if kind == "missing" else "is not a known key"
    if kind in ("value_error", "assertion_error"):
        return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    reason = _REASONS[kind].format(**mistake.get("ctx", {})) if kind in _REASONS else message
    return f"{reason}, not {shown(mistake['input'])}"


def tensor_file_reason(error: BaseException) -> str:
    """What is wrong with a safetensors file, in plain words and one line.

    Args:
        error: What the safetensors library or the system raised as the file was read.
    """
    line = " ".join(str(error).split())
    if "header" in line.lower():  # whose fault the library tells in the terms of its own parser
        return "the header that lists its tensors is damaged"
    return line[:200]
