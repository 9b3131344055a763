"""Settings of a user's files of facts: which columns have the parts of a fact, and the encoding. No torch."""

from __future__ import annotations

import codecs
import re
from typing import Annotated

from pydantic import AfterValidator

from ...errors import MemxError

FACT_COLUMNS = ("subject", "relation", "object", "aliases")
# names that Python has for other things than the encoding of a file
_NO_ENCODINGS = ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "unicode-escape", "undefined", "utf-7")
_PART = re.compile(rf",(?=\s*(?:{'|'.join(FACT_COLUMNS)})\s*=)")  # a column's own name may have commas


def parse_columns(text: str) -> dict[str, str]:
    """Read the columns of facts files as the command line has them.

    Args:
        text: The parts of a fact with their columns: `subject=Name,object=Value,relation==birth place`. A relation that
            begins with `=` is the same in every row.

    Raises:
        MemxError: A part has no `=`, or stands twice.
    """
    columns: dict[str, str] = {}
    for part in _PART.split(text):
        name, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or not column or name in columns:
            raise MemxError(
                f"--columns: {part!r} is not PART=COLUMN" if name not in columns else f"--columns: {name} stands twice",
                hint="use --columns subject=NAME,relation=NAME,object=NAME with the names in your file",
            )
        columns[name] = column
    return columns


def _known_columns(columns: dict[str, str]) -> dict[str, str]:
    for name, column in columns.items():
        if name not in FACT_COLUMNS:
            raise ValueError(f"{name!r} is not a part of a fact; use {', '.join(FACT_COLUMNS)}")
        if not column.strip("= "):
            raise ValueError(f"{name} has no column; give the name of one in your file")
        if column.startswith("=") and name != "relation":
            raise ValueError(f"{name} cannot be the same in every row; give the name of a column in your file")
    return columns


def _known_encoding(encoding: str) -> str:
    try:
        name = codecs.lookup(encoding).name
        "a".encode(encoding)  # which encodings of bytes into bytes refuse
    except (LookupError, UnicodeError, ValueError):
        name = ""
    if not name or name in _NO_ENCODINGS:
        raise ValueError(f"{encoding[:40]!r} is not a known encoding; use one such as cp1252, latin-1 or utf-16")
    return encoding


FactColumns = Annotated[dict[str, str], AfterValidator(_known_columns)]
TextEncoding = Annotated[str, AfterValidator(_known_encoding)]
