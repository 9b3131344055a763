"""Names of columns: checked once for a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ....errors import MemxError


def check_columns(path: Path, names: Sequence[str]) -> list[str]:
    """The names of a table's columns, without blanks around them.

    Args:
        path: The file.
        names: The names as the file has them; empty ones are columns to leave out.

    Raises:
        MemxError: Two columns have one name, capitals and blanks aside.
    """
    found = [" ".join(name.split()) for name in names]
    seen: dict[str, str] = {}
    for name in found:
        if not name:
            continue
        if (other := seen.get(name.casefold())) is not None:
            both = repr(name) if name == other else f"{other!r} and {name!r}"
            raise MemxError(
                f"{path} has two columns of one name: {both}", hint="rename one of them, or remove the column"
            )
        seen[name.casefold()] = name
    return found
