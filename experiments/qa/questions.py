"""NQ-open and TriviaQA as they are published -> questions with all answers that count as right. No torch.

NQ-open (Lee et al. 2019): lines of {"question", "answer": [...]}. TriviaQA (Joshi et al. 2017): {"Data": [{"Question",
"QuestionId", "Answer": {"Value", "Aliases", "NormalizedAliases"}}]}. Both also as the rows that the Hugging Face hub
has of them, as JSON lines or parquet, where TriviaQA's answer is {"value", "aliases", "normalized_aliases"}.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import MemxError
from ...files import line_not_utf8

_COLUMNS = ("question", "question_id", "answer")
_PUBLISHED = 'write one {"question": …, "answer": [...]} per line, or use the published TriviaQA or parquet files'


class QaQuestion(NamedTuple):
    """A question, its place in its files from 1 on, and the accepted answers; the first is the gold answer."""

    number: int
    id: str
    text: str
    answers: tuple[str, ...]


def read_questions(paths: Sequence[Path]) -> list[QaQuestion]:
    """Read questions from files as they are published.

    Args:
        paths: The files.

    Returns:
        All questions, in their order.

    Raises:
        MemxError: A file cannot be read, or a row is no answered question; names the file and the line.
    """
    questions: list[QaQuestion] = []
    for path in paths:
        for where, row in _rows(path):
            questions.append(_question(row, len(questions) + 1, where))
    if not questions:
        raise MemxError(f"{', '.join(map(str, paths))}: no questions", hint=_PUBLISHED)
    return questions


def questions_of(rows: Iterable[Mapping[str, Any]], source: str) -> list[QaQuestion]:
    """Read questions from rows that `datasets` loaded.

    Args:
        rows: The rows.
        source: The name of the data set, for errors.

    Returns:
        All questions, in their order.

    Raises:
        MemxError: A row is no answered question; names the row.
    """
    return [_question(row, number, f"{source} row {number}") for number, row in enumerate(rows, start=1)]


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a file, each with the words that say where it is."""
    try:
        if path.suffix == ".parquet":
            yield from ((f"{path} row {number}", row) for number, row in enumerate(_parquet(path), start=1))
            return
        with path.open(encoding="utf-8-sig") as file:
            # TriviaQA's files are one object over many lines, which starts with a brace of its own or all in one line
            if path.suffix == ".json":
                yield from _document(path, file.read())
                return
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path} line {number}", _json(line, f"{path} line {number}")
    except UnicodeDecodeError:
        raise MemxError(f"{path} line {line_not_utf8(path)} is not UTF-8", hint="save the file as UTF-8") from None
    except OSError as error:
        raise MemxError(
            f"cannot read {path}: {error.strerror or error}",
            hint="give a readable file: --file nq=PATH or --file tqa=PATH",
        ) from None


def _document(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """The rows of a .json file: TriviaQA's, a list of rows, or lines that are JSON each."""
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # a second value after the first: JSON lines under another name
            for number, line in enumerate(text.splitlines(), start=1):
                if line.strip():
                    yield f"{path} line {number}", _json(line, f"{path} line {number}")
            return
        raise MemxError(f"{path} line {error.lineno} is not JSON ({error.msg})", hint=_PUBLISHED) from None
    if isinstance(tree, dict) and isinstance(tree.get("Data"), list):
        tree = tree["Data"]
    elif isinstance(tree, dict):
        tree = [tree]
    if not isinstance(tree, list):
        raise MemxError(f"{path} contains no questions", hint=_PUBLISHED)
    yield from ((f"{path} entry {number}", row) for number, row in enumerate(tree, start=1))


def _json(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise MemxError(f"{where} is not JSON ({error.msg})", hint=_PUBLISHED) from None


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise MemxError(f"reading {path} needs the package pyarrow", hint="pip install 'memx[data]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
            for batch in file.iter_batches(columns=columns):
                yield from batch.to_pylist()
    except ArrowException as error:
        reason = " ".join(str(error).split())
        raise MemxError(f"{path} is not a valid parquet file: {reason[:100]}", hint=_PUBLISHED) from None


def _question(row: Any, number: int, where: str) -> QaQuestion:
    if not isinstance(row, Mapping):
        raise MemxError(f"{where} is not a JSON object", hint=_PUBLISHED)
    text = row.get("question", row.get("Question"))
    if not isinstance(text, str) or not text.strip():
        raise MemxError(f"{where} has no question", hint=_PUBLISHED)
    answers = _answers(row.get("answer", row.get("Answer")))
    if not answers:
        raise MemxError(
            f"{where} has no answers as text",
            hint='give "answer": a list of texts (published test splits have none: use the dev split)',
        )
    return QaQuestion(number, str(row.get("question_id", row.get("QuestionId", number))), text.strip(), answers)


def _answers(answer: Any) -> tuple[str, ...]:
    """All accepted answers, the gold one first; none where they are not as published."""
    if isinstance(answer, Mapping):
        lower = {str(key).lower().replace("_", ""): value for key, value in answer.items()}
        aliases = [lower.get(key) or [] for key in ("aliases", "normalizedaliases", "humananswers")]
        if not all(isinstance(names, list) for names in aliases):
            return ()
        value = lower.get("value")
        if value in (None, "", "<unk>"):  # the hub's test split
            return ()
        answer = [value, *(name for names in aliases for name in names)]
    if not isinstance(answer, list) or not all(isinstance(name, str) for name in answer):
        return ()
    return tuple(dict.fromkeys(name.strip() for name in answer if name.strip()))
