"""Files of text: opened with every byte that is not text marked, so that it is refused in the record that has it."""

from __future__ import annotations

import codecs
import io
import re
from pathlib import Path
from typing import TextIO

from ....errors import MemxError
from .compressed import open_bytes

_MARKED = re.compile("[\ud800-\udfff]")  # bytes that are not text, as surrogateescape marks them
_HIGH = re.compile(rb"[\x80-\xff]{3}")
_NOT_TEXT = {
    b"PK\x03\x04": "is a spreadsheet or zip file, not text",
    b"PAR1": "is a parquet file, not text",
    b"\x1f\x8b": "is compressed with gzip",
    b"\x28\xb5\x2f\xfd": "is compressed with Zstandard",
}
_RENAME = {"is compressed with gzip": "rename it to end in .gz", "is compressed with Zstandard": "rename it: .zst"}


def open_text(path: Path, encoding: str | None = None, newline: str = "\n") -> TextIO:
    r"""Open a file of text, decompressed by its name. Bytes that are not text become lone surrogates.

    Args:
        path: The file.
        encoding: Its encoding; None is UTF-8 with or without a byte order mark.
        newline: "\n" to end lines there only, "" to end them as CSV does.

    Raises:
        MemxError: The file is no text at all, or in UTF-16.
        OSError: The file cannot be opened.
    """
    file = open_bytes(path)
    try:
        if encoding is None:
            _check_start(path, file.read(4))
            file.seek(0)
        return io.TextIOWrapper(file, encoding or "utf-8-sig", errors="surrogateescape", newline=newline)
    except BaseException:
        file.close()
        raise


def not_text(text: str, encoding: str | None = None) -> str:
    """What is wrong with text that `open_text` gave, or "" if nothing is.

    Args:
        text: The text of a record.
        encoding: The encoding that the file was opened with.
    """
    if "\0" in text:
        return "a NUL byte"
    if text.isascii() or not _MARKED.search(text):
        return ""
    if encoding is not None:
        return f"not {encoding}"
    data = text.encode("utf-8", "surrogateescape")
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return "not UTF-8"
    # letters of Western languages stand between ASCII ones
    return "not UTF-8" if _HIGH.search(data) else "not UTF-8; it looks like Windows-1252 or Latin-1"


def _check_start(path: Path, start: bytes) -> None:
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise MemxError(
            f"{path} is UTF-16, not UTF-8", hint=f"save it as UTF-8: iconv -f UTF-16 -t UTF-8 {path.name} > NEW"
        )
    for magic, what in _NOT_TEXT.items():
        if start.startswith(magic):
            raise MemxError(f"{path} {what}", hint=_RENAME.get(what, "give its name the ending of its format"))
