"""A record of a file, a record that cannot be used, and what is done about those."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ....errors import MemxError

_SHOWN = 5


class Record(NamedTuple):
    """A record: its place in the file, as `line 3`, `row 3` or `entry 3`, and its values by column."""

    place: str
    values: dict[str, Any]


class BadRecord(NamedTuple):
    """A record that cannot be used: its place in the file, and what is wrong in plain words.

    values: those that a row which is too short has, of its first columns; it is good where the others may be empty.
    """

    place: str
    reason: str
    values: dict[str, Any] | None = None


class BadRecords:
    """Collects the bad records of a file; they end the run, unless the user skips them.

    Args:
        path: The file.
        skip_with: What skips them, as `--set data.skip_bad_rows=true`; empty if nothing does.
        encode_with: What sets another encoding, as `--set data.encoding=cp1252`; empty if nothing does.

    Attributes:
        count: How many there are.
        advice: What else to do about them, for the hint.
    """

    def __init__(self, path: Path | str, skip_with: str = "", encode_with: str = "") -> None:
        self.path, self.skip_with, self.encode_with = path, skip_with, encode_with
        self.count = 0
        self.advice = ""
        self._first: list[BadRecord] = []

    def add(self, bad: BadRecord) -> None:
        """Count a bad record; the first five are kept."""
        self.count += 1
        if len(self._first) < _SHOWN:
            self._first.append(bad)

    def good(self, records: Iterable[Record | BadRecord]) -> Iterator[Record]:
        """The good records; the bad ones are added.

        Args:
            records: All records of the file.
        """
        for record in records:
            if isinstance(record, BadRecord):
                self.add(record)
            else:
                yield record

    def notes(self, *, skip: bool) -> list[str]:
        """What to say of the bad records once all are read.

        Args:
            skip: Whether the user skips them.

        Returns:
            One note, or none if no record is bad.

        Raises:
            MemxError: There are bad records, and they are not to be skipped.
        """
        if not self.count:
            return []
        shown = "; ".join(f"{bad.place}: {bad.reason}" for bad in self._first)
        more = f"; and {self.count - _SHOWN:,} more" if self.count > _SHOWN else ""
        listing = f"{self.count:,} bad row{'s' if self.count > 1 else ''} ({shown}{more})"
        if skip:
            return [f"{self.path}: skipped {listing}"]
        raise MemxError(f"{self.path}: {listing}", hint=self._hint())

    def _hint(self) -> str:
        skip = f", or skip them with {self.skip_with}" if self.skip_with else ""
        if any(bad.reason.startswith("not UTF-8") for bad in self._first):
            name = Path(self.path).name
            read = f", or read it with {self.encode_with}" if self.encode_with else ""
            return f"save it as UTF-8: iconv -f WINDOWS-1252 -t UTF-8 {name} > utf8-{name}{read}{skip}"
        return f"{self.advice or 'fix them'}{skip}"
