"""Facts -> training documents and three tiers of questions, so that what was learned can be told from a leak.

- seen: a phrasing that training showed for this very fact;
- rephrased: a phrasing that training never showed for this fact, but did for others;
- unseen: facts of entities that no training text has as its subject; the floor, at chance.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ....errors import MemxError
from ...config.training import TrainConfig
from .load import answers_of, load_facts
from .phrasings import BUILT_IN, Wording
from .record import Fact
from .wording import wording_of


class Document(NamedTuple):
    """A training text, and where its answer starts (in characters)."""

    text: str
    answer_start: int


class Question(NamedTuple):
    """A prompt that ends where the answer begins, the answer that training states, and all that count as right."""

    prompt: str
    subject: str
    answer: str
    accepted: tuple[str, ...]
    relation: str


@dataclass(frozen=True)
class FactSplit:
    """Facts that training states, facts of unseen entities, the draw of held-out phrasings, and all phrasings."""

    trained: list[Fact]
    unseen: list[Fact]
    seed: int
    wording: Wording = BUILT_IN


def split_entities(facts: Sequence[Fact], share: float, seed: int, wording: Wording = BUILT_IN) -> FactSplit:
    """Set a share of the subjects aside, all their facts with them; the same for the same seed."""
    subjects = sorted({fact.subject for fact in facts})
    random.Random(f"unseen {seed}").shuffle(subjects)
    aside = set(subjects[: round(share * len(subjects))])
    trained = [fact for fact in facts if fact.subject not in aside]
    return FactSplit(trained, [fact for fact in facts if fact.subject in aside], seed, wording)


def held_out(fact: Fact, seed: int, wording: Wording = BUILT_IN) -> int | None:
    """Which question phrasing training never shows for this fact; None where there is but one, which it shows."""
    count = len(wording.phrasings(fact.relation).questions)
    return zlib.crc32(f"{seed}\0{fact.subject}\0{fact.relation}".encode()) % count if count > 1 else None


def documents_of(fact: Fact, seed: int, wording: Wording = BUILT_IN) -> list[Document]:
    """Every training text of a fact: all its sentences, and its questions less the held-out one."""
    words, aside = wording.phrasings(fact.relation), held_out(fact, seed, wording)
    sentences = [_document(start, fact, ".") for start in words.sentences]
    questions = [_document(start, fact, "") for i, start in enumerate(words.questions) if i != aside]
    # a sentence, a question, a sentence, …: short runs see both
    mixed = [text for pair in zip(sentences, questions, strict=False) for text in pair]
    return mixed + sentences[len(questions) :] + questions[len(sentences) :]


def question_sets(split: FactSplit) -> dict[str, list[Question]]:
    """The questions of each tier, one for each fact; a tier without facts is left out.

    A fact with a single phrasing is in no set of rephrased ones.
    """
    seed, trained, wording = split.seed, split.trained, split.wording
    accepted = answers_of([*trained, *split.unseen])

    def ask(fact: Fact, shift: int) -> Question:
        starts = wording.phrasings(fact.relation).questions
        start = starts[((held_out(fact, seed, wording) or 0) + shift) % len(starts)]
        prompt = _fill(start, fact)
        return Question(prompt, fact.subject, fact.object, accepted[fact.subject, fact.relation], fact.relation)

    sets = {
        "seen": [ask(fact, shift=1) for fact in trained],
        "rephrased": [ask(fact, shift=0) for fact in trained if held_out(fact, seed, wording) is not None],
        "unseen": [ask(fact, shift=0) for fact in split.unseen],
    }
    return {tier: questions for tier, questions in sets.items() if questions}


class Guesser:
    """Answers without any memory of an entity: the floor that a question set must be held against.

    knows "relation": the most common object of the relation. knows "first letter": the most common one among
    trained subjects with the same first letter, since codes and names are not random (many Canadian airports
    start with Y), and a model that learned only that has leaked nothing.
    """

    def __init__(self, trained: Sequence[Fact], knows: Literal["relation", "first letter"]) -> None:
        self._knows = knows
        counts: dict[tuple[str, str], Counter[str]] = {}
        for fact in trained:
            for key in {(fact.relation, ""), (fact.relation, self._seen_of(fact.subject))}:
                counts.setdefault(key, Counter())[fact.object] += 1
        self._best = {key: counter.most_common(1)[0][0] for key, counter in counts.items()}

    def guess(self, subject: str, relation: str) -> str:
        """The guess; empty for a relation that was never trained."""
        fallback = self._best.get((relation, ""), "")
        return self._best.get((relation, self._seen_of(subject)), fallback)

    def _seen_of(self, subject: str) -> str:
        return subject[:1] if self._knows == "first letter" else ""


def _document(start: str, fact: Fact, end: str) -> Document:
    prompt = _fill(start, fact)
    return Document(f"{prompt} {fact.object}{end}", len(prompt))


def _fill(start: str, fact: Fact) -> str:
    return start.format(s=fact.subject)


def build_split(config: TrainConfig) -> tuple[FactSplit, list[str]]:
    """Load the facts of a config and set the unseen entities aside; also what was noticed on the way."""
    found = load_facts(config.data)
    wording, notes = wording_of(config.data, found)
    split = split_entities(found.facts, config.data.unseen, config.data.seed, wording)
    if not split.trained:
        raise MemxError("no facts are left to train on", hint="lower data.unseen, or give more facts")
    return split, [*found.notes, *notes]
