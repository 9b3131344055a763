"""One fact: subject, relation, object."""

from __future__ import annotations

from typing import NamedTuple


class Fact(NamedTuple):
    """A subject, a relation and an object, and other spellings of the object that count as right."""

    subject: str
    relation: str
    object: str
    aliases: tuple[str, ...] = ()
