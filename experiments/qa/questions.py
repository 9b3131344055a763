"""NQ-open and TriviaQA as they are published, and files of one's own -> questions with all answers that are right.

NQ-open (Lee et al. 2019): lines of {"question", "answer": [...]}. TriviaQA (Joshi et al. 2017): {"Data": [{"Question",
"QuestionId", "Answer": {"Value", "Aliases", "NormalizedAliases"}}]}. Both also as the rows that the Hugging Face hub
has of them, where TriviaQA's answer is {"value", "aliases", "normalized_aliases"}. Tables have the columns question and
answer, several answers in one cell separated by `|`. One's own rows may have a context: a text, or a list of texts,
that is read before the question. No torch.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import MemxError
from ..data.records.read import read_records
from ..data.records.record import BadRecord, BadRecords, Record
from ..data.records.values import NotText, text_of

_PUBLISHED = 'write one {"question": …, "answer": [...]} per line, or use the published TriviaQA or parquet files'
_SEPARATOR = "|"
_ALIASES = ("aliases", "normalizedaliases", "humananswers")


class QaQuestion(NamedTuple):
    """A question, its place in its files from 1 on, and the accepted answers; the first is the gold answer.

    context: a text that is read before it; empty without one.
    """

    number: int
    id: str
    text: str
    answers: tuple[str, ...]
    context: str = ""


def read_questions(
    paths: Sequence[Path],
    *,
    contexts: bool = False,
    skip_bad_rows: bool = False,
    notes: Callable[[str], None] = lambda text: None,
) -> list[QaQuestion]:
    """Read questions from files as they are published, or from tables.

    Args:
        paths: The files: JSON, JSON lines, CSV, TSV, Parquet or spreadsheets.
        contexts: Whether to read their column context, where they have one.
        skip_bad_rows: Whether to skip rows that are no answered questions, with a note.
        notes: Called with what was noticed.

    Returns:
        All questions, in their order.

    Raises:
        MemxError: A file cannot be read, or a row is no answered question; names the file and the line.
    """
    questions: list[QaQuestion] = []
    for path in paths:
        records = read_records(path)
        bad = BadRecords(path, "--skip-bad-rows")
        for record in bad.good(records):
            found = _question(record, len(questions) + 1, table=records.columns is not None, contexts=contexts)
            bad.add(found) if isinstance(found, BadRecord) else questions.append(found)
        for note in (*records.notes, *bad.notes(skip=skip_bad_rows)):
            notes(note)
    if not questions:
        raise MemxError(f"{', '.join(map(str, paths))}: no questions", hint=_PUBLISHED)
    return questions


def questions_of(
    records: Iterable[Record],
    source: str,
    *,
    skip_bad_rows: bool = False,
    notes: Callable[[str], None] = lambda text: None,
) -> list[QaQuestion]:
    """Read questions from rows that `datasets` loaded.

    Args:
        records: The rows.
        source: The name of the data set, for errors.
        skip_bad_rows: Whether to skip rows that are no answered questions, with a note.
        notes: Called with what was noticed.

    Returns:
        All questions, in their order.

    Raises:
        MemxError: A row is no answered question; names the row.
    """
    questions: list[QaQuestion] = []
    bad = BadRecords(source, "--skip-bad-rows")
    for record in records:
        found = _question(record, len(questions) + 1, table=False)
        bad.add(found) if isinstance(found, BadRecord) else questions.append(found)
    for note in bad.notes(skip=skip_bad_rows):
        notes(note)
    return questions


def _question(record: Record, number: int, *, table: bool, contexts: bool = False) -> QaQuestion | BadRecord:
    row = {str(key).lower().replace("_", ""): value for key, value in record.values.items()}
    try:
        text = _text(row.get("question"))
        if text is None or not _visible(text.replace("?", "")):
            return BadRecord(record.place, "no question")
        name = _text(row.get("questionid")) or str(number)
    except NotText as error:
        return BadRecord(record.place, f"the question is not text: {error}")
    try:
        answers = _answers(row.get("answer", row.get("answers")), table=table)
    except NotText as error:
        return BadRecord(record.place, f"an answer is not text: {error}")
    if not answers:
        return BadRecord(record.place, "no answers (published test splits have none: use the dev split)")
    try:
        context = _context(row.get("context")) if contexts else ""
    except NotText as error:
        return BadRecord(record.place, f"the context is not text: {error}")
    return QaQuestion(number, name, text, answers, context)


def _context(value: Any) -> str:
    """A text, or several with empty lines between them; empty where there is none. Raises NotText as `_text` does."""
    return "\n\n".join(text for one in _listed(value) if (text := _text(one)) is not None)


def _answers(answer: Any, *, table: bool) -> tuple[str, ...]:
    """All accepted answers, the gold one first; none where there is no gold one.

    Raises:
        NotText: One is neither text nor a number.
    """
    if isinstance(answer, Mapping):
        lower = {str(key).lower().replace("_", ""): value for key, value in answer.items()}
        gold = _text(lower.get("value"))
        if gold in (None, "<unk>"):  # the hub's test split
            return ()
        answer = [gold, *(name for key in _ALIASES for name in _listed(lower.get(key)))]
    elif table and isinstance(answer, str):
        answer = answer.split(_SEPARATOR)
    found = (_text(name) for name in _listed(answer))
    return tuple(dict.fromkeys(name for name in found if name and _visible(name)))


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _text(value: Any) -> str | None:
    """Text as it is, but for blanks around it; a number or a date as a person would write it."""
    if isinstance(value, str):
        return value.strip() or None
    return text_of(value)


def _visible(text: str) -> bool:
    """Whether a text has more than blanks and marks that nothing is seen of."""
    return any(not letter.isspace() and unicodedata.category(letter) not in ("Cc", "Cf") for letter in text)
