"""Questions on what a pretrained model may know: capitals, currencies, chemical symbols and others, or a user's own.

A question is a text to complete, after two examples of the same kind, or one of memx's own. An answer is right if the
completion begins with it, so that the form of a model's answers does not count: a fine-tuned model may end them, or go
on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import yaml

from ....errors import MemxError, nearest
from ....files import write_atomically
from ...metrics.answers import normalize
from ..records.read import read_records
from ..records.record import BadRecord, BadRecords
from .load import TABLES, answers_of
from .questions import FactSplit, Question, question_sets
from .record import Fact

COMPLETED = ("countries", "elements")
_FILE = ".jsonl"


def general_questions(sources: Sequence[str], *, completions: bool = True) -> list[Question]:
    """The questions of some sources, each once.

    Args:
        sources: Names of fact tables, or paths of .jsonl files as `write_questions` writes them: a `prompt` and its
            `answers` in each line.
        completions: Whether facts of tables (`countries` and `elements`) are asked as texts to complete, after two
            examples; otherwise any table is asked in the questions that memx trains its own models on.

    Returns:
        The questions, in the order of the sources.

    Raises:
        MemxError: There is no such source, or a file is malformed.
    """
    questions: dict[str, Question] = {}
    for source in sources:
        if source not in (COMPLETED if completions else TABLES):
            found = _of_file(source, COMPLETED if completions else tuple(TABLES))
        else:
            found = _completions(source) if completions else _own_questions(source)
        for question in found:
            questions.setdefault(question.prompt, question)
    return list(questions.values())


def write_questions(path: Path, questions: Sequence[Question]) -> None:
    """Write questions as JSON lines. Raises MemxError if the disk is full or forbids it."""
    lines = [
        json.dumps({"prompt": q.prompt, "answers": q.accepted, "subject": q.subject, "relation": q.relation})
        for q in questions
    ]
    write_atomically(path, "".join(line + "\n" for line in lines))


def begins_right(completion: str, accepted: Sequence[str]) -> bool:
    """Whether the first line of a completion begins with one of the accepted answers, in whole words.

    Args:
        completion: What the model wrote.
        accepted: The right answers; case, punctuation and articles do not count.
    """
    lines = completion.strip().splitlines()
    words = normalize(lines[0]).split() if lines else []
    wanted = (normalize(answer).split() for answer in accepted)
    return any(words[: len(answer)] == answer for answer in wanted if answer)


def _own_questions(source: str) -> Iterable[Question]:
    return question_sets(FactSplit(TABLES[source](), [], 0))["seen"]


def _completions(source: str) -> Iterator[Question]:
    facts = TABLES[source]()
    accepted = answers_of(facts)
    entries = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
    for relation, entry in entries.items():
        prompt, examples = entry["prompt"], entry["examples"]
        shown = {fact.subject: fact.object for fact in facts if fact.relation == relation and fact.subject in examples}
        before = "".join(f"{prompt.format(s=s)} {shown[s]}.\n" for s in examples if s in shown)
        for fact in facts:
            if fact.relation == relation and fact.subject not in examples:
                yield _question(before + prompt.format(s=fact.subject), fact, accepted[fact.subject, relation])


def _question(prompt: str, fact: Fact, accepted: tuple[str, ...]) -> Question:
    return Question(prompt, fact.subject, fact.object, accepted, fact.relation)


def _of_file(source: str, tables: Sequence[str]) -> Iterator[Question]:
    path = Path(source).expanduser()
    if path.suffix != _FILE:
        raise MemxError(
            f"evaluation.known: no questions {source!r}",
            hint=nearest(source, tables) or f"use {', '.join(tables)}, or a path ending in {_FILE}",
        )
    if not path.is_file():
        raise MemxError(f"evaluation.known: no file {source}", hint="give an existing .jsonl file")
    bad = BadRecords(path)
    for record in bad.good(read_records(path)):
        prompt, answers = record.values.get("prompt"), record.values.get("answers")
        right = [a for a in answers if isinstance(a, str) and a.strip()] if isinstance(answers, list) else []
        if not isinstance(prompt, str) or not prompt.strip() or not right or right != answers:
            bad.add(BadRecord(record.place, "it needs a text `prompt` and a list of texts `answers`"))
            continue
        subject, relation = (str(record.values.get(key) or "") for key in ("subject", "relation"))
        yield Question(prompt, subject, right[0], tuple(right), relation)
    bad.notes(skip=False)
