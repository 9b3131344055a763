"""The first sheet of an Excel or OpenDocument file -> its columns, and a record for each of its rows."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....errors import MemxError
from .columns import check_columns
from .record import BadRecord, Record
from .values import NotText, text_of

_MOST = 30_000_000  # cells: all those between the first and the last one are held in memory
_CELL = re.compile(rb"""<(?:\w+:)?(?:c|row)\s[^>]*?\br=["']([A-Z]{0,3})(\d{1,7})["']""")  # a row has no letters


class Sheet:
    """The first sheet of a workbook. Its first row with any value has the names of the columns.

    Args:
        path: The file.

    Attributes:
        columns: Its columns.
        notes: What to say about it.

    Raises:
        MemxError: The file is damaged, empty, too large, has a column twice, or python-calamine is not installed.
        OSError: The file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        rows = self._read()
        self._first, header = next(
            ((number, row) for number, row in enumerate(rows, start=1) if any(cell != "" for cell in row)), (0, [])
        )
        if not header:
            raise MemxError(f"{path} is empty", hint="give a first row with the names of the columns, and rows")
        try:
            self.columns = check_columns(path, [text_of(cell) or "" for cell in header])
        except NotText as error:
            raise MemxError(f"{path} row {self._first}: a column name: {error}", hint="rename the column") from None
        self._rows = rows

    def __iter__(self) -> Iterator[Record | BadRecord]:
        """The records of the rows; rows without any value are left out."""
        for number, row in enumerate(self._rows[self._first :], start=self._first + 1):
            values = {name: None if cell == "" else cell for name, cell in zip(self.columns, row, strict=True) if name}
            if any(value is not None for value in values.values()):
                yield Record(f"row {number}", values)

    def _read(self) -> list[list[Any]]:
        try:
            import python_calamine
        except ImportError:
            raise MemxError(
                f"reading {self.path.suffix} files needs the package python-calamine", hint="pip install 'memx[data]'"
            ) from None
        with self.path.open("rb"):  # so that a missing permission is told as such
            pass
        self._check_size()
        try:
            with python_calamine.load_workbook(self.path) as book:
                # a hidden sheet or a chart is not what a person sees first
                kinds = python_calamine.SheetVisibleEnum.Visible, python_calamine.SheetTypeEnum.WorkSheet
                shown = [one.name for one in book.sheets_metadata if (one.visible, one.typ) == kinds]
                names = shown or book.sheet_names
                rows = list(book.get_sheet_by_name(names[0]).iter_rows()) if names else []
        except (Exception, BaseException) as error:
            # a fault inside the Rust library is no Exception
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            reason = " ".join(str(error).split())[:120]
            if isinstance(error, python_calamine.WorksheetNotFound):  # its words are the name alone
                reason = f"its sheet {reason!r} is missing"
            raise MemxError(f"{self.path} is not a valid spreadsheet: {reason}", hint="save the file again") from None
        if len(names) > 1:
            self.notes.append(f"{self.path}: read the first of {len(names)} sheets, {names[0]!r}")
        return rows

    def _check_size(self) -> None:
        """Refuse a sheet with a cell so far away that the cells before it fill the memory."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                for name in archive.namelist():
                    if name.lower().endswith(".xml"):
                        with archive.open(name) as file:
                            _check_cells(self.path, file)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
            return  # the library that reads it says what is wrong


def _check_cells(path: Path, file: Any) -> None:
    column = row = 0
    rest = b""
    while part := file.read(2**20):
        text = rest + part
        for letters, digits in _CELL.findall(text):
            number = 0
            for letter in letters:
                number = number * 26 + letter - 64
            column, row = max(column, number), max(row, int(digits))
        if column * row > _MOST:
            raise MemxError(
                f"{path} has a sheet of {row:,} rows and {column:,} columns",
                hint="delete the cells far away from the table, or save it as .csv",
            )
        rest = text[-200:]
