"""The answers that a run kept: answers.jsonl of `memx train` and `memx eval` -> questions, and which are right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...results.store.json_lines import JsonLines

ANSWERS = "answers.jsonl"
NAMES = {"seen": "seen", "rephrased": "paraphrased", "unseen": "held-out"}


class Answered(NamedTuple):
    """A question, what the model wrote, and how it was scored.

    Attributes:
        task: The tier or set of questions.
        question: As it was asked.
        written: What the model wrote.
        accepted: The right answers.
        right: 1 or 0.
        nll: Nats of the taught answer.
        tokens: Tokens of it.
        relation: Of a fact; empty for other questions.
    """

    task: str
    question: str
    written: str
    accepted: tuple[str, ...]
    right: float
    nll: float
    tokens: int
    relation: str


def read_answers(folder: Path) -> list[Answered]:
    """The answers that a run folder holds; none if it keeps none.

    Args:
        folder: The run folder.

    Raises:
        MemxError: The file is damaged.
    """
    return [_answered(line) for line in JsonLines(folder / ANSWERS).lines() if "question" in line]


def wrong_answers(answers: Iterable[Answered], most: int = 5) -> list[Answered]:
    """Some wrong answers, spread over the file; of trained facts first, as those of held-out entities are guesses.

    Args:
        answers: All answers.
        most: How many.
    """
    wrong = [one for one in answers if not one.right]
    chosen = [one for one in wrong if one.task != "unseen"] or wrong
    step = max(len(chosen) // most, 1)
    return chosen[::step][:most]


def by_question(answers: Sequence[Answered], task: str) -> dict[str, Answered]:
    """The answers of a set by question, for pairs; a question that comes twice counts once.

    Args:
        answers: All answers.
        task: The set.
    """
    return {one.question: one for one in answers if one.task == task}


def _answered(line: dict[str, Any]) -> Answered:
    return Answered(
        task=str(line.get("task", "")),
        question=str(line["question"]),
        written=str(line.get("answer", "")),
        accepted=tuple(map(str, line.get("accepted") or ())),
        right=float(line.get("exact_match") or 0.0),
        nll=float(line.get("nll") or 0.0),
        tokens=int(line.get("gold_tokens") or 0),
        relation=str(line.get("relation") or ""),
    )
