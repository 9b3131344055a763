"""A user's own facts: a file of records with subject, relation, object and, if there, aliases -> facts.

Bad rows are reported with their places; they end the run unless the caller says to skip them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ....errors import MemxError
from ..records.read import read_records, suffix_of
from ..records.record import BadRecord, BadRecords, Record
from ..records.values import NotText, text_of, texts_of
from .columns import REQUIRED, Columns, hint
from .record import Fact


class FactsFile(NamedTuple):
    """The facts of a file, and what was noticed on the way; `used`: the chosen columns that it has."""

    facts: list[Fact]
    notes: list[str]
    used: frozenset[str] = frozenset()


def is_facts_file(source: str) -> bool:
    """Whether a source names a file rather than a table."""
    path = Path(source)
    return suffix_of(path) is not None or "/" in source or "\\" in source or path.exists()


def read_facts_file(
    source: str,
    *,
    skip_bad_rows: bool = False,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
) -> FactsFile:
    """Read a file of facts.

    Args:
        source: The file: JSON, JSON lines, CSV, TSV, Parquet or a spreadsheet. aliases, other right answers, are a list
            or in one cell separated by `|`.
        skip_bad_rows: Whether to skip rows that are no facts, with a note.
        columns: part of a fact -> column that has it, as in `data.columns`; where the file has no such column, the one
            that is named as the part.
        encoding: The encoding of a file of text; None is UTF-8.

    Raises:
        MemxError: The file is missing, empty or malformed, or has bad rows that are not to be skipped.
    """
    records = read_records(source, encoding=encoding)
    reader = _Reader(source, columns or {}, records.columns)
    bad = BadRecords(source, "--set data.skip_bad_rows=true", "--set data.encoding=cp1252")
    facts: list[Fact] = []
    for record in bad.good(map(reader.completed, records)):
        fact = reader.fact(record)
        bad.add(fact) if isinstance(fact, BadRecord) else facts.append(fact)
    bad.advice = reader.advice
    notes = [*records.notes, *bad.notes(skip=skip_bad_rows)]
    if not facts:
        raise MemxError(f"{source} contains no usable facts", hint=f"give at least one row with {', '.join(REQUIRED)}")
    if unknown := reader.ignored():
        used = ", ".join(dict.fromkeys([*reader.names_used, "aliases"]))
        notes.append(f"{source}: ignored columns {', '.join(unknown)[:300]}; used are {used}")
    return FactsFile(facts, notes, frozenset(reader.used))


class _Reader:
    """Reads facts from records. JSON objects may have other keys in each line: their columns are found for each set."""

    def __init__(self, source: str, chosen: Mapping[str, str], header: list[str] | None) -> None:
        self.chosen = chosen
        self.advice = ""
        self.used: set[str] = set()
        self.names_used: dict[str, None] = {}
        self._names: dict[str, None] = {}
        self._found: dict[tuple[str, ...], Columns] = {}
        if header is not None and (missing := self._columns(tuple(header)).missing):
            lacking = f"{source} has no column {', '.join(missing)}; it has {', '.join(header)}"
            raise MemxError(lacking[:300], hint=hint(header, table=True))

    def completed(self, record: Record | BadRecord) -> Record | BadRecord:
        """A row of a table that ends before columns which may be empty, as if they were; any other as it is."""
        if isinstance(record, Record) or record.values is None:
            return record
        complete = not self._columns(tuple(record.values)).missing
        return Record(record.place, record.values) if complete else record

    def fact(self, record: Record) -> Fact | BadRecord:
        """The fact of a record, or what is wrong with it."""
        values = record.values
        columns = self._columns(tuple(values))
        if columns.twice:
            return BadRecord(record.place, f"two keys of one name: {columns.twice[0]!r} and {columns.twice[1]!r}")
        if columns.missing:
            self.advice = self.advice or hint(list(values), table=False)
            return BadRecord(record.place, f"no {', '.join(columns.missing)}")
        cells: dict[str, str | None] = {"relation": columns.relation}
        part = ""
        try:
            for part, column in columns.of.items():
                if part != "aliases" and not (part == "relation" and columns.relation):
                    cells[part] = text_of(values[column])
            part = "aliases"
            aliases = texts_of(values[columns.of[part]]) if part in columns.of else ()
        except NotText as error:
            return BadRecord(record.place, f"{part}: {error}")
        if empty := [name for name in REQUIRED if not cells[name]]:
            return BadRecord(record.place, f"empty {' and '.join(empty)}")
        return Fact(str(cells["subject"]), str(cells["relation"]), str(cells["object"]), aliases)

    def ignored(self) -> list[str]:
        """The names of columns that play no part."""
        return [name for name in self._names if name not in self.names_used and name != "aliases"]

    def _columns(self, names: tuple[str, ...]) -> Columns:
        if names not in self._found:
            if len(self._found) > 1000:  # of a file whose objects hardly share their keys
                self._found.clear()
            found = self._found[names] = Columns(names, self.chosen)
            self.used |= found.used
            self._names |= dict.fromkeys(names)
            self.names_used |= dict.fromkeys(found.of.values())
        return self._found[names]
