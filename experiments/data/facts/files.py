"""A user's own facts: .csv, .jsonl or .parquet with subject, relation, object and, if there, aliases -> facts.

Bad rows are reported with their line numbers; they end the run unless the caller says to skip them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ....errors import MemxError
from ....files import line_not_utf8
from .record import Fact

COLUMNS = ("subject", "relation", "object")
SUFFIXES = (".csv", ".jsonl", ".parquet")
_SHOWN = 5


class FactsFile(NamedTuple):
    """The facts of a file, and what was noticed on the way."""

    facts: list[Fact]
    notes: list[str]


class BadRow(NamedTuple):
    """A row that is no fact: its line number in the file and why."""

    line: int
    reason: str


def is_facts_file(source: str) -> bool:
    """Whether a source names a file rather than a table."""
    return Path(source).suffix.lower() in SUFFIXES


def read_facts_file(source: str, *, skip_bad_rows: bool = False) -> FactsFile:
    """Read a file of facts. Raises MemxError if it is missing, empty or malformed, or has bad rows not to be skipped.

    aliases: other right answers, as a list, or in one cell separated by `|`.
    """
    path = Path(source)
    if not path.is_file():
        raise MemxError(f"no facts file {source}", hint="give an existing .csv, .jsonl or .parquet file")
    facts: list[Fact] = []
    bad: list[BadRow] = []
    columns: set[str] = set()
    try:
        for line, row in _READERS[path.suffix.lower()](path):
            fact = row if isinstance(row, BadRow) else _fact(line, row)
            columns |= set() if isinstance(row, BadRow) else row.keys()
            bad.append(fact) if isinstance(fact, BadRow) else facts.append(fact)
    except UnicodeDecodeError:
        raise MemxError(f"{source} line {line_not_utf8(path)} is not UTF-8", hint="save the file as UTF-8") from None
    except OSError as error:
        raise MemxError(
            f"cannot read {source}: {error.strerror or error}", hint="check the path and its permissions"
        ) from None
    if bad and not skip_bad_rows:
        raise MemxError(f"{source}: {_listing(bad)}", hint="fix them, or skip them with --set data.skip_bad_rows=true")
    if not facts:
        raise MemxError(f"{source} contains no usable facts", hint=f"give at least one row with {', '.join(COLUMNS)}")
    notes = [f"{source}: skipped {_listing(bad)}"] if bad else []
    if unknown := sorted(columns - {*COLUMNS, "aliases"}):
        notes.append(
            f"{source}: ignored columns {', '.join(map(str, unknown))}; used are {', '.join(COLUMNS)}, aliases"
        )
    return FactsFile(facts, notes)


def _fact(line: int, row: dict[str, Any]) -> Fact | BadRow:
    cells = {name: "" if row.get(name) is None else " ".join(str(row[name]).split()) for name in COLUMNS}
    empty = [name for name, cell in cells.items() if not cell]
    if empty:
        return BadRow(line, f"empty {' and '.join(empty)}")
    aliases = row.get("aliases")
    if not (aliases is None or isinstance(aliases, str) or hasattr(aliases, "__iter__")):
        return BadRow(line, f"aliases {aliases!r} are not text or a list")
    spellings = aliases.split("|") if isinstance(aliases, str) else list(aliases) if aliases is not None else []
    cleaned = (" ".join(str(alias).split()) for alias in spellings)
    return Fact(**cells, aliases=tuple(dict.fromkeys(alias for alias in cleaned if alias)))


def _read_csv(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        line = 1
        try:
            header = [name.strip().lower() for name in next(reader, [])]
            _check_columns(path, header)
            line = reader.line_num + 1
            for cells in reader:
                start, line = line, reader.line_num + 1
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) > len(header) or len(cells) < 3:
                    yield start, BadRow(start, f"{len(cells)} cells for {len(header)} columns")
                else:
                    yield start, dict(zip(header, cells, strict=False))
        except csv.Error as error:
            raise MemxError(f"{path} line {line}: {error}", hint='write a quote inside a quoted cell as ""') from None


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    with path.open(encoding="utf-8-sig") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                yield line, BadRow(line, f"not JSON ({error.msg})")
                continue
            missing = [name for name in COLUMNS if name not in row] if isinstance(row, dict) else list(COLUMNS)
            yield line, BadRow(line, f"no {', '.join(missing)}") if missing else row


def _read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    import pandas

    try:
        table = pandas.read_parquet(path)
    except ImportError:
        raise MemxError("reading .parquet files needs the package pyarrow", hint="pip install 'memx[data]'") from None
    except Exception as error:  # pyarrow raises many kinds for a corrupt file
        raise MemxError(
            f"{path} is not a valid parquet file: {' '.join(str(error).split())[:120]}", hint="write the file again"
        ) from None
    _check_columns(path, [str(name) for name in table.columns])
    for line, row in enumerate(table.to_dict("records"), start=1):
        yield line, {key: None if isinstance(value, float) and value != value else value for key, value in row.items()}


def _check_columns(path: Path, header: list[str]) -> None:
    missing = [name for name in COLUMNS if name not in header]
    if not any(header):
        raise MemxError(f"{path} is empty", hint=f"give the columns {', '.join(COLUMNS)} and at least one row")
    if missing:
        hint = f"rename or add columns; it has {', '.join(header)}"[:200]
        if len(header) == 1 and set(";\t|") & set(header[0]):
            hint = "separate the columns with commas"
        raise MemxError(f"{path} has no column {', '.join(missing)}", hint=hint)


def _listing(bad: list[BadRow]) -> str:
    shown = "; ".join(f"line {row.line}: {row.reason}" for row in bad[:_SHOWN])
    more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return f"{len(bad)} bad row{'s' if len(bad) > 1 else ''} ({shown}{more})"


_READERS = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
