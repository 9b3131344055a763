"""The material of tasks, each split its own: real prose and code, words, numbers, facts -> pieces drawn by seed.

train, validation and test share no document, word, number or entity: each is assigned to a split by its hash.
"""

from __future__ import annotations

import random
import re
import zlib
from bisect import bisect_right
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..text import ordinary_text
from .example import Span

SPLITS = ("train", "validation", "test")
_FIFTHS = ("train", "train", "train", "validation", "test")
_SENTENCE_END = re.compile(r"(?<=[a-z)][.!?])\s+(?=[A-Z])")
_DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)
_WORD = re.compile(r"(?<![\w'-])[a-z]{4,12}(?![\w'-])")
_SHORTEST = 15  # words of a paragraph
_LETTERS = 0.93  # share of letters and blanks in what counts as prose


@dataclass(frozen=True)
class Draw:
    """What one example is drawn from: its own random numbers, its split, and about how long it will be."""

    task: str
    rng: random.Random
    split: str
    length: int

    def phrasing(self) -> dict[str, Any]:
        """One of the task's phrasings."""
        return self.rng.choice(_phrasings()[self.task])

    def number(self, digits: int = 4) -> str:
        """A number of this split, its first digit not 0."""
        return self.numbers(1, digits)[0]

    def numbers(self, count: int, digits: int = 4) -> list[str]:
        """Different numbers of this split."""
        found: dict[str, None] = {}
        while len(found) < count:
            number = str(self.rng.randrange(10 ** (digits - 1), 10**digits))
            if split_of(f"number {number}") == self.split:
                found[number] = None
        return list(found)

    def words(self, count: int) -> list[str]:
        """Different common nouns of this split."""
        return self.rng.sample(_words(self.split), count)

    def keys(self, count: int) -> list[str]:
        """Different names of two or more words of this split joined by hyphens, as many as asked for."""
        words, parts = _words(self.split), 2
        while len(words) ** parts < 4 * count:
            parts += 1
        found: dict[str, None] = {}
        while len(found) < count:
            found["-".join(self.rng.sample(words, parts))] = None
        return list(found)


class Filler(NamedTuple):
    """Running prose: words, each with the blanks after it, and after how many of them a sentence ends."""

    words: list[str]
    stops: list[int]


def split_of(name: Hashable) -> str:
    """The split that a name belongs to: three fifths train, a fifth each validation and test."""
    return _FIFTHS[zlib.crc32(str(name).encode()) % len(_FIFTHS)]


def filler(draw: Draw, without: Collection[str] = ()) -> Filler:
    """Prose for a prompt of the draw's length, in paragraphs that hold none of the strings `without`.

    Paragraphs come in a drawn order; when all have been used they come again in another.
    """
    banned = [text.lower() for text in without]
    usable = [text for text in prose(draw.split) if not any(text.lower().find(word) >= 0 for word in banned)]
    words: list[str] = []
    stops = [0]
    while len(words) < draw.length:
        for paragraph in draw.rng.sample(usable, len(usable)):
            for word in paragraph.split():
                words.append(word + " ")
                if word[-1] in ".!?":
                    stops.append(len(words))
            words[-1] = words[-1].rstrip() + "\n\n"
    return Filler(words, stops)


def repeated_sentences(length: int) -> Filler:
    """The same sentences again and again, for a prompt of a length in tokens."""
    words = [word + " " for word in _yaml("words.yaml")["repeated"].split()]
    times = -(-length // len(words))
    ends = [number + 1 for number, word in enumerate(words) if word.rstrip()[-1] == "."]
    return Filler(words * times, [0, *(turn * len(words) + end for turn in range(times) for end in ends)])


def weave(
    head: str,
    units: Sequence[str],
    evidence: Sequence[str],
    depths: Sequence[float],
    stops: Sequence[int] | None = None,
) -> tuple[str, tuple[Span, ...]]:
    """The head and the units as one text, each piece of evidence at its depth (0 start, 1 end), and their spans.

    stops: after how many units evidence may stand, rising; None: after any. Pieces keep their order of depth.
    """
    text, spans, done = head, [], 0
    for depth, piece in sorted(zip(depths, evidence, strict=True), key=lambda pair: pair[0]):
        place = round(depth * len(units))
        if stops is not None:
            place = stops[max(bisect_right(stops, place) - 1, 0)]
        text += "".join(units[done:place])
        spans.append(Span(len(text), len(text) + len(piece.rstrip())))
        text, done = text + piece, max(place, done)
    return (text + "".join(units[done:])).rstrip(), tuple(spans)


def sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph of prose."""
    return _SENTENCE_END.split(paragraph)


@cache
def documents(kind: str, split: str) -> list[str]:
    """Whole documents of a split: `python-docs` (prose) or `python-source` (code)."""
    return [text for text in ordinary_text(kind) if split_of(text) == split]


@cache
def prose(split: str) -> list[str]:
    """Every paragraph of real prose of a split, each on one line: Python's documentation and its library's docstrings.

    A paragraph that stands in several documents goes with the first.
    """
    return [paragraph for paragraph, home in _paragraphs().items() if home == split]


@cache
def vocabulary(split: str) -> list[str]:
    """Different words of 4 to 12 small letters in the prose of a split, those of other splits left out, sorted."""
    found = {word for paragraph in prose(split) for word in _WORD.findall(paragraph)}
    return sorted(word for word in found if split_of(f"word {word}") == split)


@cache
def _paragraphs() -> dict[str, str]:
    """Paragraph -> split."""
    found: dict[str, str] = {}
    for document in ordinary_text("python-docs"):
        _collect(document, split_of(document), found)
    for source in ordinary_text("python-source"):
        for docstring in _DOCSTRING.findall(source):
            _collect(docstring, split_of(source), found)
    return found


def _collect(text: str, split: str, found: dict[str, str]) -> None:
    for block in text.split("\n\n"):
        paragraph = " ".join(block.split())
        if _is_prose(paragraph):
            found.setdefault(paragraph, split)


def _is_prose(paragraph: str) -> bool:
    if not (paragraph[:1].isupper() and paragraph[-1] == "." and len(paragraph.split()) >= _SHORTEST):
        return False
    letters = sum(letter.isalpha() or letter in " ,." for letter in paragraph)
    return letters >= _LETTERS * len(paragraph) and ">>>" not in paragraph


@cache
def _words(split: str) -> list[str]:
    return [word for word in _yaml("words.yaml")["nouns"].split() if split_of(f"word {word}") == split]


@cache
def _phrasings() -> dict[str, list[dict[str, Any]]]:
    return _yaml("phrasings.yaml")


def _yaml(name: str) -> Any:
    return yaml.safe_load(Path(__file__).with_name(name).read_text("utf-8"))
