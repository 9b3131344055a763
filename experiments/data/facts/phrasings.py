"""How relations are put into words: memx's own phrasings, and the user's own -> the phrasings of each relation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml

GENERAL = "*"  # the entry of relations without one of their own


@dataclass(frozen=True)
class Phrasings:
    """The words for one relation: starts of sentences and of questions, {s} the subject; the object follows.

    whole: whether the subject is a complete question, and the rest what a template puts around it.
    """

    sentences: tuple[str, ...]
    questions: tuple[str, ...]
    whole: bool = False


@dataclass(frozen=True)
class Wording:
    """The phrasings of all relations.

    Attributes:
        own: relation -> the user's phrasings, which stand before memx's own; `*` is for relations without any.
    """

    own: Mapping[str, Phrasings] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(tuple(self.own.items()))

    def phrasings(self, relation: str) -> Phrasings:
        """The phrasings of a relation; one without an entry gets the general ones.

        Args:
            relation: Its name.
        """
        if relation in self.own and relation != GENERAL:
            return self.own[relation]
        if GENERAL in self.own:
            return _named(self.own[GENERAL], relation)
        entries = built_in_phrasings()
        if relation != GENERAL and relation in entries:
            return entries[relation]
        return _named(entries[GENERAL], relation)


BUILT_IN = Wording()


def phrasings(relation: str) -> Phrasings:
    """The phrasings that memx has for a relation, without any of the user's."""
    return BUILT_IN.phrasings(relation)


@cache
def built_in_phrasings() -> dict[str, Phrasings]:
    """The entries of templates.yaml."""
    text = Path(__file__).with_name("templates.yaml").read_text("utf-8")
    return {
        relation: Phrasings(tuple(entry["sentences"]), tuple(entry["questions"]))
        for relation, entry in yaml.safe_load(text).items()
    }


def _named(general: Phrasings, relation: str) -> Phrasings:
    """General phrasings with the name of a relation in them."""
    name = relation.replace("_", " ").replace("{", "{{").replace("}", "}}")
    sentences, questions = (
        tuple(start.replace("{r}", name) for start in starts) for starts in (general.sentences, general.questions)
    )
    return Phrasings(sentences, questions)
