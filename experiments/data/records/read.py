"""A file of records, of any of the formats -> its columns and its records."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from ....errors import MemxError
from .json_files import read_document, read_lines
from .parquet import Parquet
from .record import BadRecord, Record
from .sheets import Sheet
from .tables import Table

_TEXT = (".csv", ".tsv", ".jsonl", ".json")
_SHEETS = (".xlsx", ".xls", ".ods")
SUFFIXES = (*_TEXT, ".parquet", *_SHEETS)
ENDINGS = (*SUFFIXES, *(suffix + packed for suffix in _TEXT for packed in (".gz", ".zst")))


class _Format(Protocol):
    columns: list[str]
    notes: list[str]

    def __iter__(self) -> Iterator[Record | BadRecord]: ...


class Records:
    """The records of a file. They can be read more than once, each time from the beginning.

    Attributes:
        path: The file.
        columns: The names of a table's columns; None where each record has its own, as in JSON.
        notes: What to say about how the file is read, as "columns are separated by ';'".
    """

    def __init__(self, path: Path, encoding: str | None, suffix: str) -> None:
        self.path, self.encoding, self._suffix = path, encoding, suffix
        self.columns: list[str] | None = None
        self.notes: list[str] = []
        self._table: _Format | None = None
        with explained(path, encoding):
            self._state = _state(path)
            if self._state[0] == 0:
                raise MemxError(f"{path} is empty", hint="give a file with at least one record")
            self._table = _table(path, encoding, suffix)
        if self._table is not None:
            self.columns = [name for name in self._table.columns if name]
            self.notes = self._table.notes

    def __iter__(self) -> Iterator[Record | BadRecord]:
        """Every record or bad record, in the order of the file.

        Raises:
            MemxError: The rest of the file cannot be read, or the file changed meanwhile.
        """
        with explained(self.path, self.encoding):
            if self._table is not None:
                yield from self._table
            else:
                read = read_lines if self._suffix.startswith(".jsonl") else read_document
                yield from read(self.path, self.encoding)
            if _state(self.path) != self._state:
                raise MemxError(
                    f"{self.path} changed while it was read", hint="wait until it is written, and try again"
                )


def read_records(path: Path | str, *, encoding: str | None = None) -> Records:
    """Open a file of records by its ending: JSON, JSON lines, CSV, TSV, Parquet or a spreadsheet.

    Args:
        path: The file. Text may be compressed: .gz or .zst.
        encoding: The encoding of a file of text, by Python's name; None is UTF-8.

    Returns:
        Its records. Reading them gives a `Record`, or a `BadRecord` for one that cannot be used.

    Raises:
        MemxError: The file is not there, cannot be read, is damaged as a whole, or its format is not known.
    """
    path = Path(path).expanduser()
    suffix = suffix_of(path)
    with explained(path):
        there, folder, regular = path.exists(), path.is_dir(), path.is_file()
    if not there:
        raise MemxError(f"no file {path}", hint=f"check the path, or give a file that ends in {', '.join(SUFFIXES)}")
    if folder:
        raise MemxError(f"{path} is a folder, not a file", hint="give the file in it")
    if suffix is None:
        raise MemxError(f"the format of {path} is not known", hint=f"give a file that ends in {', '.join(ENDINGS)}")
    if not regular:
        raise MemxError(f"{path} is not a regular file", hint="write its content to a file first")
    return Records(path, encoding, suffix)


def suffix_of(path: Path) -> str | None:
    """The ending by which a file is read, with that of its compression; None if it is none of `ENDINGS`."""
    name = path.name.lower()
    return max((ending for ending in ENDINGS if name.endswith(ending)), key=len, default=None)


@contextmanager
def explained(path: Path, encoding: str | None = None) -> Iterator[None]:
    """Turn what reading a file raises into one line for the user.

    Args:
        path: The file.
        encoding: Its encoding; None is UTF-8.
    """
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise MemxError(
            f"cannot read {path}: its compressed data is damaged or cut off",
            hint="wait until it is written, or compress it again",
        ) from None
    except OSError as error:
        raise MemxError(
            f"cannot read {path}: {error.strerror or error}", hint="check the path and its permissions"
        ) from None
    except (UnicodeError, LookupError) as error:
        if encoding is None:
            raise
        raise MemxError(f"cannot read {path} as {encoding}: {error}"[:200], hint="give its encoding") from None
    except MemoryError:
        raise MemxError(f"{path} does not fit into memory", hint="split it into several files") from None


def _table(path: Path, encoding: str | None, suffix: str) -> _Format | None:
    if suffix in _SHEETS:
        return Sheet(path)
    if suffix == ".parquet":
        return Parquet(path)
    return None if suffix.startswith(".json") else Table(path, encoding, "\t" if suffix.startswith(".tsv") else ",")


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
