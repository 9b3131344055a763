"""Synthetic biographies: any number of invented people, with facts whose information content is known.

Every attribute is drawn uniformly and independently, so an answer carries exactly log2(choices) bits and no fact
can be guessed from another. Source of the idea: Allen-Zhu and Li 2024, "Physics of Language Models: Part 3.3".
"""

from __future__ import annotations

import random
from functools import cache

from .record import Fact

_ONSETS = "b br c ch d dr f g gr h j k kl l m n p r s st t tr v w z".split()
_VOWELS = "a e i o u ai ea io ou".split()
_CODAS = "l n r s t nd rk st x m".split()
# how many values an answer of each relation is drawn from
CHOICES = {"birth_year": 200, "birth_place": 200, "employer": 300, "university": 100, "hobby": 50}


def biographies(people: int, seed: int = 0) -> list[Fact]:
    """Draw `people` different people with one fact per relation each, the same for the same seed."""
    rng = random.Random(f"biographies {seed}")
    values = {relation: _values(relation, count) for relation, count in CHOICES.items()}
    first, last = _words(1000, 2, "first names"), _words(4000, 3, "last names")
    names: dict[str, None] = {}
    while len(names) < people:
        middle = rng.choice(first) if people > 1_000_000 else rng.choice("ABCDEFGHIJKLMNOPRSTW") + "."
        names[f"{rng.choice(first)} {middle} {rng.choice(last)}"] = None
    return [Fact(name, relation, rng.choice(values[relation])) for name in names for relation in CHOICES]


def _values(relation: str, count: int) -> list[str]:
    if relation == "birth_year":
        return [str(1800 + year) for year in range(count)]
    words = _words(count, 2, relation)
    if relation == "university":
        return [f"University of {word}" for word in words]
    return [word.lower() for word in words] if relation == "hobby" else [*words]


@cache
def _words(count: int, syllables: int, seed: str) -> tuple[str, ...]:
    """Draw `count` different pronounceable words, the same for the same seed."""
    rng = random.Random(seed)
    words: dict[str, None] = {}
    while len(words) < count:
        syllable = [rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables)]
        words["".join(syllable).capitalize() + rng.choice(_CODAS)] = None
    return tuple(words)
