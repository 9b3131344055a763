"""Files of complete questions and answers, prompts and completions, or chats -> facts whose subject is the question.

Which of them a file has is known by its columns, or by `data.columns`. Other right answers are in the column aliases,
in a list of answers, or in one cell separated by `|`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ....errors import MemxError
from ..records.read import Records, read_records
from ..records.record import BadRecord, BadRecords, Record
from ..records.values import NotText, text_of, texts_of
from .files import FactsFile
from .record import Fact

QUESTION, PROMPT = "question", "prompt"  # the relations of such facts, unless a column has another
_ALIASES = ("aliases", "normalizedaliases", "humananswers")
# pairs of columns, and the relation of what they hold
_PAIRS = (
    ("question", "answer", QUESTION),
    ("question", "answers", QUESTION),
    ("prompt", "completion", PROMPT),
    ("prompt", "response", PROMPT),
    ("instruction", "output", PROMPT),
)
_CHATS = ("messages", "conversations")
_ASKS, _ANSWERS = ("user", "human"), ("assistant", "gpt", "model")


class Layout(NamedTuple):
    """Where a file has its questions: the columns of the question, the answer and what else there is, and a relation.

    A chat has both question and answer in one column.
    """

    of: dict[str, str]
    relation: str
    chat: bool = False


def question_layout(records: Records, chosen: Mapping[str, str]) -> Layout | None:
    """Find out whether a file has complete questions, and where.

    Args:
        records: The file.
        chosen: `data.columns`: part -> column.

    Returns:
        Its layout; None if it has facts, or is for the reader of facts to refuse.

    Raises:
        MemxError: The file cannot be read, or has no column that was chosen.
    """
    first = next((one for one in records if isinstance(one, Record)), None)
    names = records.columns if records.columns is not None else list(first.values) if first is not None else []
    known = {_plain(name): name for name in names}
    picked = {part: known[_plain(column)] for part, column in chosen.items() if _plain(column) in known}
    asked = [part for part in ("question", "answer") if part in chosen]
    if not asked and {"subject", "object"} & chosen.keys():
        return None
    more = {part: picked.get(part, known.get(part, "")) for part in ("aliases",)}
    if "relation" in picked:
        more["relation"] = picked["relation"]
    more = {part: column for part, column in more.items() if column}
    if asked:
        of = {part: picked.get(part, known.get(part, "")) for part in ("question", "answer")}
        if missing := [part for part, column in of.items() if not column]:
            wanted = ", ".join(chosen.get(part, part) for part in missing)
            raise MemxError(
                f"{records.path} has no column {wanted}; it has {', '.join(names)}"[:300],
                hint=f"say which columns to use, such as --columns '{_guess(names)}'",
            )
        return Layout({**of, **more}, QUESTION)
    if {"subject", "relation", "object"} <= known.keys():
        return None
    for question, answer, relation in _PAIRS:
        if question in known and answer in known:
            return Layout({"question": known[question], "answer": known[answer], **more}, relation)
    for chat in _CHATS:
        if chat in known and records.columns is None:
            return Layout({"question": known[chat], **more}, PROMPT, chat=True)
    return None


def read_question_file(
    source: str,
    layout: Layout,
    *,
    skip_bad_rows: bool = False,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
) -> FactsFile:
    """Read a file of questions.

    Args:
        source: The file.
        layout: Where its questions are.
        skip_bad_rows: Whether to skip rows without a question or an answer, with a note.
        columns: `data.columns`; a relation that begins with `=` is the same for all.
        encoding: The encoding of a file of text; None is UTF-8.

    Raises:
        MemxError: The file is empty or malformed, or has bad rows that are not to be skipped.
    """
    chosen = columns or {}
    constant = chosen.get("relation", "")
    relation = " ".join(constant[1:].split()) if constant.startswith("=") else layout.relation
    records = read_records(source, encoding=encoding)
    bad = BadRecords(source, "--set data.skip_bad_rows=true", "--set data.encoding=cp1252")
    facts: list[Fact] = []
    for record in bad.good(records):
        found = _fact(record, layout, relation, table=records.columns is not None)
        bad.add(found) if isinstance(found, BadRecord) else facts.append(found)
    notes = [*records.notes, *bad.notes(skip=skip_bad_rows)]
    if not facts:
        raise MemxError(f"{source} has no questions", hint="give at least one row with a question and an answer")
    used = {part for part in chosen if part in layout.of or (part == "relation" and constant.startswith("="))}
    return FactsFile(facts, notes, frozenset(used))


def _fact(record: Record, layout: Layout, relation: str, *, table: bool) -> Fact | BadRecord:
    values = record.values
    part = "question"
    try:
        question, answer = _chat(values.get(layout.of["question"])) if layout.chat else (
            values.get(layout.of["question"]), values.get(layout.of["answer"])
        )  # fmt: skip
        text = text_of(question)
        part = "answer"
        answers = _answers(answer, table=table)
        part = "aliases"
        aliases = texts_of(values.get(layout.of["aliases"])) if "aliases" in layout.of else ()
        part = "relation"
        if "relation" in layout.of:
            relation = text_of(values.get(layout.of["relation"])) or relation
    except NotText as error:
        return BadRecord(record.place, f"{part}: {error}")
    if not text or not answers:
        return BadRecord(record.place, "no question" if not text else "no answer")
    return Fact(text, relation, answers[0], tuple(dict.fromkeys([*answers[1:], *aliases])))


def _answers(value: Any, *, table: bool) -> tuple[str, ...]:
    """All right answers, the first of them to train on. Raises NotText for a value that is no text."""
    if isinstance(value, Mapping):  # as TriviaQA has them
        lower = {str(key).lower().replace("_", ""): one for key, one in value.items()}
        more = [name for key in _ALIASES if isinstance(names := lower.get(key), list | tuple) for name in names]
        value = [lower.get("value"), *more]
    if isinstance(value, str) and not table:
        value = [value]
    return texts_of(value)


def _chat(value: Any) -> tuple[Any, Any]:
    """The first question of a chat and the answer to it. Raises NotText for what is no chat."""
    if not isinstance(value, list | tuple) or not all(isinstance(turn, Mapping) for turn in value):
        raise NotText("not a list of messages")
    question = None
    for turn in value:
        role, text = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if role in _ASKS and question is None:
            question = text
        elif role in _ANSWERS and question is not None:
            return question, text
    return question, None


def _guess(names: list[str]) -> str:
    """Columns to suggest: the first two that can be written in a shell."""
    free = [name for name in names if name and not any(mark in name for mark in "=,'\"\\`$")]
    first, second = [*free, "NAME", "NAME"][:2]
    return f"question={first},answer={second}"


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()
