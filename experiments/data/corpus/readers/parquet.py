"""A range of rows of a .parquet file -> documents, each with the row after it; row groups are read in small batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .....errors import MemxError
from .document import CorruptRecords, Document, text_digest

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_BATCH = 64  # rows decoded at once
_BUFFER = 2**18


def count_rows(path: Path, name: str, damage: CorruptRecords) -> int:
    """Rows of a file; 0 after a report if it is no sound parquet file."""
    file = _open(path, name, damage)
    if file is None:
        return 0
    with file:
        return file.metadata.num_rows


def read_rows(
    path: Path, name: str, first: int, stop: int | None, field: str, damage: CorruptRecords
) -> Iterator[tuple[Document, int]]:
    """Documents of the rows first..stop (None: to the end) of a column; row groups outside are not read."""
    file = _open(path, name, damage)
    if file is None:
        return
    with file:
        if field not in file.schema_arrow.names:
            columns = ", ".join(file.schema_arrow.names)[:200]
            damage.report(name, 0, f"no column {field!r} (columns: {columns})")
            return
        for group, begin, end in _groups(file, first, stop):
            for row, text in _texts(file, group, begin, field, name, damage):
                if row >= end:
                    break
                if row < first:
                    continue
                reason = _wrong(text)
                if reason:
                    damage.report(name, row, reason, lambda row=row: f"row {row + 1:,}")
                elif text.strip():
                    yield Document(text, text_digest(text)), row + 1


def _open(path: Path, name: str, damage: CorruptRecords) -> ParquetFile | None:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise MemxError("reading .parquet files needs the package pyarrow", hint="pip install 'memx[data]'") from None
    try:
        file = ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER)  # or a whole column of a row group is held
    except Exception as error:  # pyarrow raises many kinds for a damaged file
        damage.report(name, -1, f"not a valid parquet file ({_first_line(error)})")
        return None
    try:
        _ = file.schema_arrow
    except Exception as error:  # as above
        file.close()
        damage.report(name, -1, f"not a valid parquet file ({_first_line(error)})")
        return None
    return file


def _groups(file: ParquetFile, first: int, stop: int | None) -> Iterator[tuple[int, int, int]]:
    """Row groups that overlap the rows first..stop: number, first row, and the row to stop before."""
    at = 0
    for group in range(file.num_row_groups):
        begin, at = at, at + file.metadata.row_group(group).num_rows
        if at > first and (stop is None or begin < stop):
            yield group, begin, at if stop is None else min(at, stop)


def _texts(
    file: ParquetFile, group: int, row: int, field: str, name: str, damage: CorruptRecords
) -> Iterator[tuple[int, Any]]:
    """(row, value) of a row group whose first row is `row`; what cannot be decoded is reported and ends it."""
    batches = file.iter_batches(_BATCH, row_groups=[group], columns=[field], use_threads=False)
    begin = row
    while True:
        try:
            values = next(batches).column(0).to_pylist()
        except StopIteration:
            return
        except Exception as error:  # as above
            damage.report(name, begin, f"cannot be read ({_first_line(error)})", lambda: f"row group {group}")
            return
        yield from enumerate(values, start=row)
        row += len(values)


def _wrong(value: Any) -> str:
    if not isinstance(value, str):
        return "no text"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "invalid Unicode (a lone surrogate)"
    return ""


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
