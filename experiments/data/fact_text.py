"""The ordinary text of a run: a named text or a file, or the training documents of memx's own facts."""

from __future__ import annotations

from .facts.load import TABLES
from .facts.questions import documents_of
from .text import ordinary_text

FACTS = "facts"
_TABLES = ("elements", "countries")
_SEED = 0  # of the phrasings that are held out, as in a run with data.seed 0


def text_of_source(name: str) -> list[str]:
    """Return the documents of `text.source`, each different.

    Args:
        name: As for `ordinary_text`, or `facts`: every training document of the elements and countries, which
            is what memx's own models are at home in.

    Raises:
        MemxError: There is no such text or file, or it is malformed or empty.
    """
    if name != FACTS:
        return ordinary_text(name)
    facts = [fact for table in _TABLES for fact in TABLES[table]()]
    return list(dict.fromkeys(document.text for fact in facts for document in documents_of(fact, _SEED)))
