"""Questions over several facts: paragraphs about real or invented entities, one of which is asked about."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import cache

from ..facts.biographies import biographies
from ..facts.load import TABLES, answers_of, merge_duplicates
from ..facts.phrasings import phrasings
from ..facts.record import Fact
from .example import Example, Recipe
from .material import Draw, split_of, weave

_ASKED_MOST = 4  # words of an answer
_STOP = (". ", "\n")
_TOKENS_A_PERSON = 20  # and more in usual vocabularies


def facts(draw: Draw) -> Recipe:
    """Real airports, elements and countries, one paragraph each; some answers are known without the context."""
    return _questions(draw, "facts", _real(draw.split))


def people(draw: Draw) -> Recipe:
    """Invented people, one paragraph each: no answer can be known without the context."""
    entities = -(-draw.length // _TOKENS_A_PERSON) + 20
    return _questions(draw, "people", _invented(draw.split, entities))


def _questions(draw: Draw, task: str, entities: dict[str, list[Fact]]) -> Recipe:
    words = draw.phrasing()
    subject, *others = draw.rng.sample(sorted(entities), len(entities))
    fact = draw.rng.choice([fact for fact in entities[subject] if _askable(fact)])
    starts = phrasings(fact.relation)
    question = words["question"].format(
        question=draw.rng.choice(starts.questions).format(s=fact.subject),
        start=draw.rng.choice(starts.sentences).format(s=fact.subject),
    )
    units: list[str] = []
    stops = [0]
    for other in others:
        if len(units) > draw.length:
            break
        units += _paragraph(entities[other], draw.rng)
        stops.append(len(units))
    evidence, depth = "".join(_paragraph(entities[subject], draw.rng)), draw.rng.random()
    answers = answers_of(entities[subject])[fact.subject, fact.relation]
    answers = (fact.object, *(answer for answer in answers if answer != fact.object))

    def make(n: int) -> Example:
        context, spans = weave(words["head"], units[:n], [evidence], [depth], stops)
        return Example(task, context, "\n\n" + question, answers, "qa_f1_score", stop=_STOP, evidence=spans)

    return Recipe(len(units), make)


def _askable(fact: Fact) -> bool:
    return len(fact.object.split()) <= _ASKED_MOST and _STOP[0] not in fact.object


def _paragraph(entity: Iterable[Fact], rng: random.Random) -> list[str]:
    """A sentence for each fact, the last one with the end of the paragraph."""
    sentences = [
        f"{rng.choice(phrasings(fact.relation).sentences).format(s=fact.subject)} {fact.object}. " for fact in entity
    ]
    return [*sentences[:-1], sentences[-1].rstrip() + "\n\n"]


@cache
def _real(split: str) -> dict[str, list[Fact]]:
    return _by_subject(_tables(), split)


@cache
def _tables() -> list[Fact]:
    return merge_duplicates(fact for table in TABLES.values() for fact in table())[0]


@cache
def _invented(split: str, entities: int) -> dict[str, list[Fact]]:
    # the names of a smaller number of people begin those of a greater one; a fifth is in the smallest split
    return _by_subject(biographies(8 * entities), split)


def _by_subject(entries: Iterable[Fact], split: str) -> dict[str, list[Fact]]:
    found: dict[str, list[Fact]] = {}
    for fact in entries:
        if split_of(f"subject {fact.subject}") == split:
            found.setdefault(fact.subject, []).append(fact)
    return found
