"""A question and examples -> the few-shot prompt that it is asked by, in tokens, as long as the model's context allows.

    Question: who wrote papa got a brand new bag?
    Answer: James Brown

    Question: …?
    Answer:

The same examples for a question whatever else is asked: they are drawn by the seed and its number.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...errors import MemxError
from .questions import QaQuestion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BETWEEN = "\n\n"


class Asked(NamedTuple):
    """A question as it is asked.

    prompt: its tokens; gold: those of the gold answer after it. shots: numbers of the examples in it, in their order;
    dropped: examples that did not fit; cut: tokens of the question itself that did not.
    """

    question: QaQuestion
    prompt: list[int]
    gold: list[int]
    shots: tuple[int, ...]
    dropped: int
    cut: int


class Asker:
    """Makes prompts. room: tokens that the model reads and writes together."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        examples: Sequence[QaQuestion],
        *,
        shots: int,
        room: int,
        answer_tokens: int,
        seed: int,
    ) -> None:
        self.tokenizer, self.examples, self.shots = tokenizer, examples, shots
        self.room, self.answer_tokens, self.seed = room, answer_tokens, seed

    def ask(self, question: QaQuestion) -> Asked:
        """The prompt of a question, with as many of its examples as fit: the first ones go first.

        Raises MemxError if the answer alone leaves no room for a prompt.
        """
        draw = random.Random(f"shots {self.seed} {question.number}")
        drawn = draw.sample(self.examples, self.shots)
        gold = _gold(self.tokenizer, question)
        room = self.room - max(self.answer_tokens, len(gold))
        if room < 1:
            raise MemxError(
                f"a context of {self.room} tokens has no room for a question and {self.room - room} tokens of answer",
                hint="lower --answer-tokens, or use a model of a longer context",
            )
        prompt: list[int] = []
        for first in range(len(drawn) + 1):
            prompt = _ids(self.tokenizer, prompt_text(question, drawn[first:]))
            if len(prompt) <= room:
                return Asked(question, prompt, gold, tuple(one.number for one in drawn[first:]), first, 0)
        return Asked(question, prompt[-room:], gold, (), len(drawn), len(prompt) - room)


def not_asked(examples: Sequence[QaQuestion], asked: Sequence[QaQuestion]) -> list[QaQuestion]:
    """The examples whose question is none of those asked, but for case and blanks."""
    known = {_plain(question) for question in asked}
    return [example for example in examples if _plain(example) not in known]


def sample(questions: Sequence[QaQuestion], limit: int | None, seed: int) -> list[QaQuestion]:
    """At most `limit` questions in their order, the same for the same seed."""
    if limit is None or limit >= len(questions):
        return list(questions)
    chosen = random.Random(f"questions {seed} {len(questions)}").sample(range(len(questions)), limit)
    return [questions[i] for i in sorted(chosen)]


def prompt_text(question: QaQuestion, shots: Sequence[QaQuestion]) -> str:
    """The prompt, which ends where the answer begins, with a blank."""
    return BETWEEN.join([*(f"{_open(shot)} {shot.answers[0]}" for shot in shots), _open(question)])


def _open(question: QaQuestion) -> str:
    return f"Question: {question.text.removesuffix('?').rstrip()}?\nAnswer:"


def _plain(question: QaQuestion) -> str:
    return " ".join(question.text.removesuffix("?").lower().split())


def _gold(tokenizer: PreTrainedTokenizerFast, question: QaQuestion) -> list[int]:
    """Tokens of the gold answer as they follow a prompt: some tokenizers begin a text unlike its middle."""
    before = _ids(tokenizer, "Answer:")
    whole = _ids(tokenizer, f"Answer: {question.answers[0]}")
    return whole[len(before) :] or whole[-1:]


def _ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text)["input_ids"])  # type: ignore[arg-type]
