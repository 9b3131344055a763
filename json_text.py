"""JSON text that a user or a damaged disk may have written -> values, or one plain reason why it is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

DIGITS = 400  # of an integer: more than any count, id or seed has
LEVELS = 100  # of lists and objects inside each other
_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SHOWN = 60


class BadJson(ValueError):
    """Text that is refused.

    Args:
        reason: What is wrong with it, in plain words.
        line: The line of the text, from 1 on; 0 if it is not known.

    Attributes:
        reason: The reason.
        line: The line.
    """

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


def parse_json(text: str | bytes, *, finite: bool = True) -> Any:
    """Read a JSON value, with limits that hold on every machine.

    Args:
        text: The text; bytes are UTF-8, with or without a byte order mark.
        finite: Whether NaN, Infinity and numbers too large for a float are refused.

    Returns:
        The value.

    Raises:
        BadJson: The text is no JSON, has a key twice, a number that is not finite, an integer of more than 400 digits,
            more than 100 levels, or half of a character.
    """
    text = _decoded(text)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_finite_float if finite else float,
            parse_constant=_refused_constant if finite else float,
        )
    except json.JSONDecodeError as error:
        raise BadJson(_plain(text, error), error.lineno) from None
    except RecursionError:
        raise BadJson(f"nested deeper than {LEVELS} levels") from None
    # few texts can break these limits, so most values are not walked through
    halves = _SURROGATE_ESCAPE.search(text) is not None
    if halves or text.count("[") + text.count("{") > LEVELS:
        _check_values(value, halves)
    return value


def _decoded(text: str | bytes) -> str:
    if isinstance(text, str):
        if _SURROGATE.search(text):
            raise BadJson("a lone surrogate (half of a character)")
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadJson("not UTF-8", text.count(b"\n", 0, error.start) + 1) from None


def _plain(text: str, error: json.JSONDecodeError) -> str:
    if not text.strip():
        return "not JSON (there is no text)"
    what = error.msg.removesuffix(" at").removesuffix(" starting")
    return f"not JSON ({what} at character {error.colno})"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                shown = key if len(key) <= _SHOWN else key[:_SHOWN] + "…"
                raise BadJson(f"the key {shown!r} occurs twice")
            seen.add(key)
    return found


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise BadJson(f"an integer of more than {DIGITS} digits")
    return int(digits)


def _finite_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        shown = digits if len(digits) <= _SHOWN else digits[:_SHOWN] + "…"
        raise BadJson(f"{shown} is too large a number")
    return number


def _refused_constant(name: str) -> float:
    raise BadJson(f"{name} is not a JSON number")


def _check_values(value: Any, halves: bool) -> None:
    """Refuse values that are nested too deep and, if asked, texts with half of a character."""
    level, depth = [value], 0
    while level:
        if halves and any(isinstance(one, str) and _SURROGATE.search(one) for one in level):
            raise BadJson("a lone surrogate (half of a character)")
        if depth >= LEVELS and any(isinstance(one, dict | list) for one in level):
            raise BadJson(f"nested deeper than {LEVELS} levels")
        level = [inside for one in level for inside in _inside(one)]
        depth += 1


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, list):
        yield from value
