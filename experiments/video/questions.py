"""Questions about a clip with known answers, and the words that they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..config.hosts.video import KINDS as KINDS
from .clips import Clip

THIRDS = ("early", "middle", "late")
BEGIN, END, VIDEO, IMAGE, PAD = "<s>", "</s>", "<video>", "<image>", "<pad>"
BEFORE = ("watch", "this", "clip", ":")
BEHIND = ("that", "was", "the", "clip", ";", "answer", "a", "question", "about", "it", ":")  # 16 words with the begin
_TEXTS = {
    "first": "which digit is first ?",
    "last": "which digit is last ?",
    "after": "which digit follows {} ?",
    "count": "how many digits ?",
    "shown": "is {} shown ?",
    "when": "when does {} appear ?",
    "list": "list the digits :",
}
WORDS = tuple(
    dict.fromkeys(
        (
            *(PAD, BEGIN, END, VIDEO, IMAGE, *map(str, range(11)), "yes", "no", *THIRDS, *BEFORE, *BEHIND),
            *(word for text in _TEXTS.values() for word in text.split() if word != "{}"),
        )
    )
)
"""The vocabulary: a word's place is its number."""


@dataclass(frozen=True)
class Question:
    """A question about a clip: what it is about, its words, and the words of the right answer."""

    kind: str
    text: str
    answer: str


def all_questions(clip: Clip, rng: np.random.Generator) -> list[Question]:
    """Make every question about a clip that has an answer.

    Args:
        clip: The clip.
        rng: Draws which digits are asked for that are not shown: as many as are.

    Returns:
        The questions, of each kind in turn.
    """
    order, frames = clip.order, len(clip.shown)
    absent = rng.permutation([digit for digit in range(10) if digit not in order])[: len(order)]

    def ask(kind: str, answer: object, about: object = "") -> Question:
        return Question(kind, _TEXTS[kind].format(about), str(answer))

    return [
        ask("first", order[0]),
        ask("last", order[-1]),
        *(ask("after", then, digit) for digit, then in pairwise(order)),
        ask("count", len(order)),
        *(ask("shown", "yes", digit) for digit in order),
        *(ask("shown", "no", digit) for digit in absent),
        *(ask("when", THIRDS[3 * clip.first_frame(digit) // frames], digit) for digit in order),
        ask("list", " ".join(map(str, order))),
    ]


def draw_questions(clip: Clip, rng: np.random.Generator, count: int) -> list[Question]:
    """Draw questions about a clip, so that kinds come equally often, as far as there are so many.

    Args:
        clip: The clip.
        rng: Source of randomness.
        count: How many.

    Returns:
        That many different questions, or all.
    """
    left: dict[str, list[Question]] = {kind: [] for kind in rng.permutation(KINDS)}
    for question in _shuffled(all_questions(clip, rng), rng):
        left[question.kind].append(question)
    drawn: list[Question] = []
    while len(drawn) < count and any(left.values()):
        drawn += [questions.pop() for questions in left.values() if questions]
    return drawn[:count]


def _shuffled(questions: Sequence[Question], rng: np.random.Generator) -> list[Question]:
    return [questions[place] for place in rng.permutation(len(questions))]
