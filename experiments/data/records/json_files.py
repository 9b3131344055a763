"""A .json or .jsonl file -> a record for each of its objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....errors import MemxError
from ....json_text import BadJson, parse_json
from .record import BadRecord, Record
from .text_files import not_text, open_text

_LIST = 'give a list of objects, [{"…": …}, …], or an object with one such list'
# finds where values end, whatever their limits: each record is then read by itself
_LENIENT = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
_BLANK = re.compile(r"[ \t\n\r]*")
_OBJECTS = re.compile(r"\[[ \t\n\r]*[{\]]")


def read_lines(path: Path, encoding: str | None) -> Iterator[Record | BadRecord]:
    """The records of a file with one JSON object per line; only a line feed ends a line.

    Args:
        path: The file.
        encoding: Its encoding; None is UTF-8.
    """
    with open_text(path, encoding) as file:
        for number, line in enumerate(file, start=1):
            if line.strip(" \t\r\n"):
                yield _record(f"line {number}", line, encoding)


def read_document(path: Path, encoding: str | None) -> Iterator[Record | BadRecord]:
    """The records of a file that is one JSON value; of one that has JSON lines, its lines.

    Args:
        path: The file.
        encoding: Its encoding; None is UTF-8.

    Raises:
        MemxError: The file is no JSON, or has no list of objects or several.
    """
    with open_text(path, encoding) as file:
        text = file.read()
    try:
        _LENIENT.decode(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and _is_json(text.partition("\n")[0]):
            yield from read_lines(path, encoding)
            return
        wrong = not_text(text.split("\n")[error.lineno - 1], encoding)
        reason = f"is {wrong}" if wrong else f"is not JSON ({error.msg.removesuffix(' at')})"
        raise MemxError(f"{path} line {error.lineno} {reason}", hint=_LIST) from None
    except RecursionError:
        raise MemxError(f"{path} is nested too deeply to be a list of records", hint=_LIST) from None
    yield from _entries(path, text, encoding)


def _entries(path: Path, text: str, encoding: str | None) -> Iterator[Record | BadRecord]:
    begin = _list_of(path, text)
    if begin is None:
        yield _record("entry 1", text, encoding)
        return
    at, line, counted = _skip(text, begin + 1), 1, 0
    number, several = 0, "\n" in text.strip()
    while text[at] != "]":
        end = _LENIENT.raw_decode(text, at)[1]
        number, line, counted = number + 1, line + text.count("\n", counted, at), at
        yield _record(f"entry {number} (line {line})" if several else f"entry {number}", text[at:end], encoding)
        at = _skip(text, end)
        at = _skip(text, at + 1) if text[at] == "," else at


def _list_of(path: Path, text: str) -> int | None:
    """Where the list of records begins; None for an object without one, which is a record itself."""
    at = _skip(text, 0)
    if text[at] == "[":
        return at
    if text[at] != "{":
        raise MemxError(f"{path} is not a list of JSON objects", hint=_LIST)
    lists: dict[str, int] = {}
    at = _skip(text, at + 1)
    while text[at] != "}":
        name, end = _LENIENT.raw_decode(text, at)
        at = _skip(text, _skip(text, end) + 1)
        if _OBJECTS.match(text, at):
            if name in lists:
                raise MemxError(f"{path}: the key {name!r} occurs twice", hint=_LIST)
            lists[name] = at
        at = _skip(text, _LENIENT.raw_decode(text, at)[1])
        at = _skip(text, at + 1) if text[at] == "," else at
    if len(lists) > 1:
        names = ", ".join(map(repr, lists))[:200]
        raise MemxError(f"{path} has several lists of objects: {names}", hint="give a file with one of them")
    return next(iter(lists.values()), None)


def _skip(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    assert found is not None, at
    return found.end()


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except BadJson as error:
        return not error.reason.startswith("not JSON")
    return True


def _record(place: str, text: str, encoding: str | None) -> Record | BadRecord:
    if wrong := not_text(text, encoding):
        return BadRecord(place, wrong)
    try:
        value: Any = parse_json(text, finite=False)  # NaN is a missing value in tables that Python writes
    except BadJson as error:
        return BadRecord(place, error.reason)
    return Record(place, value) if isinstance(value, dict) else BadRecord(place, "not a JSON object")
