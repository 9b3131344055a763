"""A .csv or .tsv file -> its columns, and a record for each of its rows."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ....errors import MemxError
from .columns import check_columns
from .record import BadRecord, Record
from .text_files import not_text, open_text

_LONGEST = 2**25  # characters of a cell
_SEPARATORS = ",;\t|"
_NAMES = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}
_SEP = re.compile(r'"?sep=([,;\t|])"?\s*', re.IGNORECASE)  # a first line that Excel writes
_QUOTE_HINT = 'write a quote inside a quoted cell as ""'


class Table:
    """A table of text.

    Args:
        path: The file.
        encoding: Its encoding; None is UTF-8.
        usual: What separates the columns of a file with its ending.

    Attributes:
        columns: Its columns.
        notes: What to say about it.

    Raises:
        MemxError: The file has no header, or a column twice.
        OSError: The file cannot be read.
    """

    def __init__(self, path: Path, encoding: str | None, usual: str) -> None:
        self.path, self.encoding = path, encoding
        csv.field_size_limit(max(csv.field_size_limit(), _LONGEST))
        self.separator = _separator(path, encoding, usual)
        self.notes: list[str] = []
        if self.separator != usual:
            self.notes.append(f"{path}: columns are separated by {_NAMES[self.separator]}")
        self.columns = self._header()

    def __iter__(self) -> Iterator[Record | BadRecord]:
        """The records of the rows; rows without any text are left out."""
        with open_text(self.path, self.encoding, newline="") as file:
            reader = csv.reader(file, strict=True, delimiter=self.separator)
            header = True
            while True:
                start = reader.line_num + 1
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    yield self._bad_quotes(start, reader.line_num, str(error))
                    continue
                if cells is None:
                    return
                if not any(cell.strip() for cell in cells) or _is_sep(cells, self.separator, start):
                    continue
                if header:
                    header = False
                else:
                    yield self._record(f"line {start}", cells)

    def _header(self) -> list[str]:
        with open_text(self.path, self.encoding, newline="") as file:
            reader = csv.reader(file, strict=True, delimiter=self.separator)
            try:
                for cells in reader:
                    if any(cell.strip() for cell in cells) and not _is_sep(cells, self.separator, reader.line_num):
                        if wrong := not_text("".join(cells), self.encoding):
                            raise MemxError(
                                f"{self.path} line {reader.line_num}: {wrong}", hint="save the file as UTF-8"
                            )
                        return check_columns(self.path, cells)
            except csv.Error as error:
                raise MemxError(f"{self.path} line {reader.line_num}: {error}", hint=_QUOTE_HINT) from None
        raise MemxError(f"{self.path} is empty", hint="give a header with the names of the columns, and rows")

    def _record(self, place: str, cells: list[str]) -> Record | BadRecord:
        if wrong := not_text("".join(cells), self.encoding):
            return BadRecord(place, wrong)
        values = {name: cell for name, cell in zip(self.columns, cells, strict=False) if name}
        if len(cells) == len(self.columns):
            return Record(place, values)
        short = values if len(cells) < len(self.columns) else None
        return BadRecord(place, f"{len(cells)} cells for {len(self.columns)} columns", short)

    def _bad_quotes(self, start: int, end: int, message: str) -> BadRecord:
        place = f"line {start}"
        if "unexpected end" in message or (start < end and "limit" in message):
            # what follows the open quote is lost, so that nothing after this row can be trusted
            raise MemxError(f"{self.path} {place}: a quote is opened and not closed", hint=_QUOTE_HINT)
        if "limit" in message:
            return BadRecord(place, f"a cell of more than {_LONGEST:,} characters")
        return BadRecord(place, 'a quoted cell goes on after its closing quote; write a quote inside it as ""')


def _is_sep(cells: list[str], separator: str, line: int) -> bool:
    return line == 1 and bool(_SEP.fullmatch(separator.join(cells)))


def _separator(path: Path, encoding: str | None, usual: str) -> str:
    """The usual separator if the header and the row below agree on it, else the one that gives the most columns."""
    with open_text(path, encoding, newline="") as file:
        lines = [line for line in islice(file, 100) if line.strip()][:20]
    if lines and (said := _SEP.fullmatch(lines[0])):
        return said[1]
    best, most = usual, (False, 1)
    for separator in [usual, *(one for one in _SEPARATORS if one != usual)]:
        try:
            rows = list(islice(csv.reader(lines, strict=True, delimiter=separator), 2))
        except csv.Error:
            continue
        agree = len({len(row) for row in rows}) == 1
        if agree and len(rows[0]) > 1 and separator == usual:
            return usual
        if rows and len(rows[0]) > 1 and (agree, len(rows[0])) > most:
            best, most = separator, (agree, len(rows[0]))
    return best
