"""A file of JSON objects, one a line, that a run appends to as it goes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import MemxError
from ...files import cannot_write, write_atomically
from ...json_text import BadJson, parse_json
from .run_info import damaged, read_file

Line = dict[str, Any]


class JsonLines:
    """A file of JSON lines. A process that is killed may leave half of a last line, which readers leave out."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line. A number that is not finite, which JSON has no word for, becomes null.

        Raises:
            MemxError: The disk is full or forbids it.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_text(line))
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def lines(self) -> list[Line]:
        """All whole lines, in the order in which they came; none if there is no file.

        Raises:
            MemxError: The file cannot be read, or a line but the last is damaged; the message has its number.
        """
        return [line for _, line in self.numbered()]

    def numbered(self) -> list[tuple[int, Line]]:
        """The same with the number of each line, from 1 on."""
        return list(_whole_lines(self.path, read_file(self.path) or b""))

    def write(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Make these the lines of the file, whole or not at all. Raises MemxError as `append` does."""
        write_atomically(self.path, "".join(map(_text, lines)))

    def rewind(self) -> list[Line]:
        """Remove half of a last line, so that a resumed run can append; returns the whole lines."""
        lines = self.lines()
        if self.path.is_file():
            self.write(lines)
        return lines


def without_null(value: Any) -> Any:
    """A line without the keys whose value is null."""
    if isinstance(value, dict):
        return {key: without_null(one) for key, one in value.items() if one is not None}
    return value


def _whole_lines(path: Path, data: bytes) -> Iterator[tuple[int, Line]]:
    # a line ends with \n alone: JSON may hold the other characters that str.splitlines takes for an end
    texts = data.split(b"\n")
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        try:
            line = parse_json(text, finite=False)  # older versions wrote NaN
        except BadJson as error:
            if number == len(texts):  # no end of line: a kill cut it off
                return
            raise _bad_line(path, number, error.reason) from None
        if not isinstance(line, dict):
            raise _bad_line(path, number, "no JSON object")
        yield number, line


def _bad_line(path: Path, number: int, reason: str) -> MemxError:
    return damaged(path, f"line {number} is damaged: {reason}")


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps(_finite(line), allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
