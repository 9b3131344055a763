"""A .parquet file -> its columns, and a record for each of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....errors import MemxError
from .columns import check_columns
from .record import BadRecord, Record

if TYPE_CHECKING:
    from pyarrow import RecordBatch
    from pyarrow.parquet import ParquetFile

_BATCH = 512  # rows decoded at once


class Parquet:
    """A table of a .parquet file.

    Args:
        path: The file.

    Attributes:
        columns: Its columns.
        notes: What to say about it.

    Raises:
        MemxError: The file is damaged, has a column twice, or pyarrow is not installed.
        OSError: The file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        with self._open() as file:
            try:
                names = list(file.schema_arrow.names)
            except Exception as error:  # pyarrow raises many kinds for a damaged file
                raise self._damaged(error) from None
        self.columns = check_columns(path, names)

    def __iter__(self) -> Iterator[Record | BadRecord]:
        """The records of the rows."""
        row = 0
        with self._open() as file:
            batches = file.iter_batches(_BATCH, use_threads=False)
            while True:
                try:
                    batch = next(batches, None)
                except Exception as error:  # as above
                    raise self._damaged(error, f" from row {row + 1} on") from None
                if batch is None:
                    return
                for row, values in enumerate(_rows(batch), start=row + 1):  # noqa: B020
                    yield self._record(f"row {row}", values)

    def _record(self, place: str, values: list[Any]) -> Record | BadRecord:
        for value in values:
            if isinstance(value, _Unreadable):
                return BadRecord(place, value.reason)
        return Record(place, {name: value for name, value in zip(self.columns, values, strict=True) if name})

    def _open(self) -> ParquetFile:
        try:
            from pyarrow.parquet import ParquetFile
        except ImportError:
            raise MemxError(
                "reading .parquet files needs the package pyarrow", hint="pip install 'memx[data]'"
            ) from None
        with self.path.open("rb"):  # so that a missing permission is told as such
            pass
        try:
            return ParquetFile(self.path)
        except Exception as error:  # as above
            raise self._damaged(error) from None

    def _damaged(self, error: Exception, where: str = "") -> MemxError:
        reason = " ".join(str(error).split())[:120]
        return MemxError(f"{self.path} is not a valid parquet file{where}: {reason}", hint="write the file again")


class _Unreadable:
    """Stands for a value that Python cannot hold, as a text that is not UTF-8 or a year above 9999."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def _rows(batch: RecordBatch) -> Iterator[list[Any]]:
    columns = [_values(column) for column in batch.columns]
    for row in range(batch.num_rows):
        yield [column[row] for column in columns]


def _values(column: Any) -> list[Any]:
    try:
        return column.to_pylist()
    except Exception:  # pyarrow raises many kinds for values that Python cannot hold
        return [_value(one) for one in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return _Unreadable("a text that is not UTF-8")
    except Exception as error:  # as above
        return _Unreadable(f"a value that cannot be read ({' '.join(str(error).split())[:80]})")
