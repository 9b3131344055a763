"""A question and examples -> the few-shot prompt in tokens, as long as the model's context allows.

    Question: who wrote papa got a brand new bag?
    Answer: James Brown

    Question: …?
    Answer:

A question's context stands before it, with an empty line between them. Through a chat template, each question is a
turn of the user, and each answer a turn of the assistant. The examples of a question are drawn by the seed and its
number, so they do not depend on the other questions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...errors import MemxError
from ..data.chat import chat_ids
from ..data.tokenizer import encode_text
from .questions import QaQuestion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BETWEEN = "\n\n"


class Asked(NamedTuple):
    """A question as the model reads it.

    Attributes:
        question: The question.
        prompt: Its tokens.
        gold: The tokens of the gold answer after it.
        shots: The numbers of the examples in it, in their order.
        dropped: How many examples did not fit.
        cut: How many tokens of the question itself did not fit.
    """

    question: QaQuestion
    prompt: list[int]
    gold: list[int]
    shots: tuple[int, ...]
    dropped: int
    cut: int


class Asker:
    """Makes prompts.

    Args:
        tokenizer: The model's.
        examples: The questions that examples are drawn from.
        shots: How many examples a prompt has, if they fit.
        room: How many tokens the model reads and writes together.
        answer_tokens: How many tokens an answer may have.
        seed: Of the draws.
        chat: Whether to ask through the tokenizer's chat template.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        examples: Sequence[QaQuestion],
        *,
        shots: int,
        room: int,
        answer_tokens: int,
        seed: int,
        chat: bool = False,
    ) -> None:
        self.tokenizer, self.examples, self.shots, self.chat = tokenizer, examples, shots, chat
        self.room, self.answer_tokens, self.seed = room, answer_tokens, seed

    def ask(self, question: QaQuestion) -> Asked:
        """Make the prompt of a question, with as many of its examples as fit; the first ones are dropped first.

        Args:
            question: The question.

        Returns:
            The prompt.

        Raises:
            MemxError: The answer alone leaves no room for a prompt.
        """
        draw = random.Random(f"shots {self.seed} {question.number}")
        drawn = draw.sample(self.examples, self.shots)
        gold = self._gold(question)
        room = self.room - max(self.answer_tokens, len(gold))
        if room < 1:
            raise self._too_short(question, len(gold))
        prompt: list[int] = []
        for first in range(len(drawn) + 1):
            prompt = self._prompt(question, drawn[first:])
            if len(prompt) <= room:
                return Asked(question, prompt, gold, tuple(shot.number for shot in drawn[first:]), first, 0)
        if self.chat:
            prompt, cut = self._cut(question, len(prompt) - room, room)
            return Asked(question, prompt, gold, (), len(drawn), cut)
        return Asked(question, prompt[-room:], gold, (), len(drawn), len(prompt) - room)

    def _prompt(self, question: QaQuestion, shots: Sequence[QaQuestion]) -> list[int]:
        if not self.chat:
            return _ids(self.tokenizer, prompt_text(question, shots))
        return chat_ids(self.tokenizer, [*((_open(shot), shot.answers[0]) for shot in shots), (_open(question), None)])

    def _cut(self, question: QaQuestion, excess: int, room: int) -> tuple[list[int], int]:
        """The chat with a question that lost its first tokens, and how many: its template stays whole."""
        ids, cut = encode_text(self.tokenizer, _open(question), begin=False), excess
        while cut < len(ids):
            rest = str(self.tokenizer.decode(ids[cut:]))
            prompt = chat_ids(self.tokenizer, [(rest, None)])
            if len(prompt) <= room:
                return prompt, cut
            cut += len(prompt) - room
        raise too_short(self.room, self.answer_tokens)

    def _gold(self, question: QaQuestion) -> list[int]:
        """Tokens of the gold answer as they follow a prompt: some tokenizers begin a text unlike its middle."""
        if self.chat:
            return encode_text(self.tokenizer, question.answers[0], begin=False)
        before = _ids(self.tokenizer, "Answer:")
        whole = _ids(self.tokenizer, f"Answer: {question.answers[0]}")
        return whole[len(before) :] or whole[-1:]

    def _too_short(self, question: QaQuestion, gold: int) -> MemxError:
        if gold <= self.answer_tokens:
            return too_short(self.room, self.answer_tokens)
        return MemxError(
            f"the answer of {gold:,} tokens to question {question.number}, {question.text[:40]!r}, does not fit in the "
            f"context of {self.room} tokens",
            hint="remove the question, or use a model with a longer context",
        )


def too_short(context: int, answer_tokens: int) -> MemxError:
    """The error for a context that answers alone fill."""
    return MemxError(
        f"the context of {context} tokens is too short for a question and {answer_tokens} answer tokens",
        hint="lower --answer-tokens, or use a model with a longer context",
    )


def not_asked(examples: Sequence[QaQuestion], questions: Sequence[QaQuestion]) -> list[QaQuestion]:
    """Leave out the examples whose question is evaluated, whatever its case and blanks."""
    evaluated = {_plain(question) for question in questions}
    return [example for example in examples if _plain(example) not in evaluated]


def sample(questions: Sequence[QaQuestion], limit: int | None, seed: int) -> list[QaQuestion]:
    """Draw at most `limit` questions (None: all) by a seed, and keep their order."""
    if limit is None or limit >= len(questions):
        return list(questions)
    chosen = random.Random(f"questions {seed} {len(questions)}").sample(range(len(questions)), limit)
    return [questions[i] for i in sorted(chosen)]


def prompt_text(question: QaQuestion, shots: Sequence[QaQuestion]) -> str:
    """Write the prompt of a question after its examples; the answer follows it after a blank."""
    return BETWEEN.join([*(f"{_open(shot)} {shot.answers[0]}" for shot in shots), _open(question)])


def _open(question: QaQuestion) -> str:
    context = question.context + BETWEEN if question.context else ""
    return f"{context}Question: {question.text.removesuffix('?').rstrip()}?\nAnswer:"


def _plain(question: QaQuestion) -> str:
    return " ".join(question.text.removesuffix("?").lower().split())


def _ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return encode_text(tokenizer, text)
