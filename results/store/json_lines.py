"""A file of JSON objects, one a line, that a run appends to as it goes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...files import cannot_write, write_atomically

Line = dict[str, Any]


class JsonLines:
    """A file of JSON lines. A process that is killed may leave half of a last line, which readers leave out."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line.

        Raises:
            MemxError: The disk is full or forbids it.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def lines(self) -> list[Line]:
        """All whole lines, in the order in which they came; none if there is no file."""
        try:
            texts = self.path.read_text("utf-8").splitlines()
        except OSError:
            return []
        lines = []
        for text in texts:
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break
        return lines

    def write(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Make these the lines of the file, whole or not at all. Raises MemxError as `append` does."""
        write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in lines))

    def rewind(self) -> list[Line]:
        """Remove half of a last line, so that a resumed run can append; returns the whole lines."""
        lines = self.lines()
        if self.path.is_file():
            self.write(lines)
        return lines
