"""The phrasings of a run: memx's own, those of `data.phrasings`, and `data.template` for complete questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Formatter
from typing import Any

from ....errors import MemxError
from ....yaml_text import parse_yaml
from ...config.training import DataConfig
from .load import FactList
from .phrasings import GENERAL, Phrasings, Wording, built_in_phrasings
from .question_files import PROMPT

QUESTION_TEMPLATE, PROMPT_TEMPLATE = "Question: {question}\nAnswer: {answer}", "{question} {answer}"
_FORM = "write relation: {sentences: ['{subject} lies in'], questions: ['{subject} is where?']}; the object follows"


def wording_of(config: DataConfig, found: FactList) -> tuple[Wording, list[str]]:
    """The phrasings of a config.

    Args:
        config: Its templates and its file of phrasings.
        found: Its facts.

    Returns:
        The phrasings, and what to say about them.

    Raises:
        MemxError: The file of phrasings cannot be read or used, or nothing uses the templates.
    """
    own = read_phrasings(config.phrasings) if config.phrasings is not None else {}
    if config.template is not None and not found.questions:
        raise MemxError(
            "data.template is for files with the columns question and answer",
            hint="put the phrasings of relations into a file: --set data.phrasings=FILE.yaml",
        )
    for relation in found.questions:
        templates = config.template or (PROMPT_TEMPLATE if relation == PROMPT else QUESTION_TEMPLATE,)
        own = {**own, relation: Phrasings((), tuple(map(_start, templates)), whole=True)}
    relations = {fact.relation for fact in found.facts}
    if unused := sorted(own.keys() - relations - {GENERAL}):
        raise MemxError(
            f"{config.phrasings}: no fact has the relation {unused[0]!r}",
            hint=f"use one of: {', '.join(sorted(relations)[:8])}; or * for all others",
        )
    return Wording(own), [] if GENERAL in own else _notes(found.own - own.keys())


def read_phrasings(path: str) -> dict[str, Phrasings]:
    """Read a user's file of phrasings.

    Args:
        path: A YAML file: relation -> `sentences` and `questions`, each a list of texts in which {subject} stands for
            the subject; the object follows. The entry `*`, with {relation}, is for all other relations.

    Raises:
        MemxError: The file cannot be read, or an entry has another form.
    """
    try:
        tree = parse_yaml(Path(path).expanduser().read_bytes())
    except OSError as error:
        raise MemxError(f"cannot read {path}: {error.strerror or error}", hint="check data.phrasings") from None
    except ValueError as error:
        raise MemxError(f"{path} is not YAML: {error}"[:200], hint=_FORM) from None
    if not isinstance(tree, Mapping) or not tree:
        raise MemxError(f"{path} has no phrasings", hint=_FORM)
    return {str(relation): _entry(path, str(relation), entry) for relation, entry in tree.items()}


def _entry(path: str, relation: str, entry: Any) -> Phrasings:
    entry = {"questions": entry} if isinstance(entry, list) else entry
    if not isinstance(entry, Mapping) or not entry.keys() <= {"sentences", "questions"} or not entry.get("questions"):
        raise MemxError(f"{path}: {relation!r} has no list of questions", hint=_FORM)
    texts = {name: entry.get(name) or [] for name in ("sentences", "questions")}
    starts: dict[str, tuple[str, ...]] = {}
    for name, listed in texts.items():
        if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
            raise MemxError(f"{path}: {name} of {relation!r} are not a list of texts", hint=_FORM)
        starts[name] = tuple(_phrasing(path, relation, text) for text in listed)
    return Phrasings(starts["sentences"], starts["questions"])


def _phrasing(path: str, relation: str, text: str) -> str:
    """A phrasing in the form of memx's own. Raises MemxError for one without a subject or with unknown braces."""
    try:
        fields = [name for _, name, _, _ in Formatter().parse(text) if name is not None]
    except ValueError:
        fields = ["?"]
    allowed = {"subject", "s"} | ({"relation", "r"} if relation == GENERAL else set())
    if not {"subject", "s"} & set(fields) or not set(fields) <= allowed:
        raise MemxError(f"{path}: {relation!r}: {text!r} must have {{subject}}, and no other braces", hint=_FORM)
    return text.replace("{subject}", "{s}").replace("{relation}", "{r}").rstrip()


def _start(template: str) -> str:
    """A template, as the config checked it, in the form of memx's phrasings: what stands before the answer."""
    before, after = template.removesuffix("{answer}").rstrip(" ").split("{question}")
    return "{s}".join(part.replace("{", "{{").replace("}", "}}") for part in (before, after))


def _notes(relations: Iterable[str]) -> list[str]:
    """Which relations of the user's files have templates of their own, and which miss theirs by their spelling."""
    entries = built_in_phrasings().keys() - {GENERAL}
    same = sorted(entries & set(relations))
    notes = [f"relations with specific templates: {', '.join(same)}; others use the general ones"] if same else []
    for relation in sorted(set(relations) - entries):
        if (name := "_".join(relation.casefold().split())) in entries:
            notes.append(f"relation {relation!r} uses the general templates; only {name!r} has specific ones")
    return notes
