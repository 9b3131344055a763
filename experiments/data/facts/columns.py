"""Columns of a facts file -> the parts of a fact that they have, as the user said or as they are named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ....errors import closest
from ...config.scale import FACT_COLUMNS

REQUIRED = FACT_COLUMNS[:3]
# what columns of these parts are called elsewhere
_USUAL = {
    "subject": ("subject", "name", "entity", "title", "item", "head", "country", "person", "term"),
    "relation": ("relation", "property", "predicate", "attribute", "field", "key", "type"),
    "object": ("object", "value", "answer", "target", "tail", "definition"),
    "aliases": ("aliases", "alias", "synonyms", "other names", "also known as"),
}


class Columns:
    """Where the parts of a fact are.

    Args:
        names: The columns of a table, or the keys of a JSON object.
        chosen: The config's `data.columns`: part -> column; a relation that begins with `=` is the same for all.

    Attributes:
        of: part -> the name of its column in the file.
        relation: The relation of all rows, if the config gives one.
        missing: The required parts without a column.
        twice: Two keys that differ in capitals or blanks only and would both be a part; none is None.
        used: The parts of `chosen` that the file has.
    """

    def __init__(self, names: Iterable[str], chosen: Mapping[str, str]) -> None:
        known: dict[str, str] = {}
        self.twice: tuple[str, str] | None = None
        self.relation: str | None = None
        self.of: dict[str, str] = {}
        self.used: set[str] = set()
        wanted = {*FACT_COLUMNS, *map(_plain, chosen.values())}
        for name in names:
            other = known.setdefault(_plain(name), name)
            if other != name and (self.twice is None or _plain(name) in wanted):
                self.twice = (other, name)
        for part in FACT_COLUMNS:
            column = chosen.get(part, "")
            if part == "relation" and column.startswith("="):
                self.relation = " ".join(column[1:].split())
                self.used.add(part)
            elif column and _plain(column) in known:
                self.of[part] = known[_plain(column)]
                self.used.add(part)
            elif part in known:
                self.of[part] = known[part]
        if self.twice is not None and self.twice[0] not in self.of.values():  # both are left out
            self.twice = None
        self.missing = [part for part in REQUIRED if part not in self.of and not (part == "relation" and self.relation)]


def hint(names: Sequence[str], *, table: bool) -> str:
    """What to do where a file lacks columns: an option with the best guesses among those that it has.

    Args:
        names: The columns of the file.
        table: Whether they are its first row; else they are the keys of one of its objects.
    """
    free = [name for name in names if name and not any(mark in name for mark in "=,'\"\\`$")]
    if table and len(names) < 2:
        return f"give a file whose first row has the names of the columns {', '.join(REQUIRED)}"
    guesses: dict[str, str] = {}
    known = set()
    for part in FACT_COLUMNS:
        alike = {_plain(name): name for name in free}
        found = next((alike[usual] for usual in _USUAL[part] if usual in alike), None)
        if found is None and (near := closest(part, alike, cutoff=0.75)):
            found = alike[near]
        if found is not None:
            guesses[part] = found
            known.add(part)
            free.remove(found)
    for part in REQUIRED:
        if part not in guesses and free and not (part == "relation" and len(free) < 2 and "object" not in guesses):
            guesses[part] = free.pop(0)
    if "relation" not in guesses and "object" in guesses:  # a table of one relation
        guesses["relation"] = "=" + _plain(guesses["object"])
    if any(part not in guesses for part in REQUIRED):
        return f"give a file with the columns {', '.join(REQUIRED)}"
    given = ",".join(f"{part}={guesses[part]}" for part in FACT_COLUMNS if part in guesses)
    first = "" if known or not table else "the first row must name the columns; if it does, "
    return f"{first}say which columns to use, such as --columns '{given}'"


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()
