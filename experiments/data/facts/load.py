"""What a fact is, and where facts come from: named tables and a user's own files -> a checked list of facts."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ....errors import MemxError, nearest
from ...config.training import DataConfig
from ..records.read import read_records
from .biographies import biographies
from .files import FactsFile, is_facts_file, read_facts_file
from .phrasings import BUILT_IN, Wording
from .question_files import question_layout, read_question_file
from .record import Fact
from .tables import airport_cities, airports, countries, elements

TABLES: dict[str, Callable[[], list[Fact]]] = {
    "airports": airports,
    "airport_cities": airport_cities,
    "elements": elements,
    "countries": countries,
}


@dataclass(frozen=True)
class FactList:
    """The facts of a run, in a fixed order, what was noticed on the way, and the relations of the user's files.

    questions: the relations of complete questions.
    """

    facts: list[Fact]
    notes: list[str] = field(default_factory=list)
    own: frozenset[str] = frozenset()
    questions: frozenset[str] = frozenset()


def load_facts(config: DataConfig) -> FactList:
    """Load every source of config.facts, merge duplicates, keep the chosen relations, draw down to the limit.

    Raises MemxError for a source that is not there, is malformed or leaves no facts.
    """
    facts: list[Fact] = []
    notes: list[str] = []
    own: set[str] = set()
    asked: set[str] = set()
    of_tables: set[str] = set()
    used: set[str] = set()
    for source in config.facts:
        if _is_table(source):
            table = _table(source, config)
            of_tables |= {fact.relation for fact in table}
            facts += table
        else:
            found, complete = _file(source, config)
            facts += found.facts
            notes += found.notes
            relations = {fact.relation for fact in found.facts}
            if complete:
                asked |= relations
            else:
                own |= relations
            used |= found.used
    if both := sorted(asked & (own | of_tables)):
        raise MemxError(
            f"{both[0]!r} is the relation of facts and of complete questions", hint="rename it in one of the files"
        )
    _check_used(config, used)
    facts, duplicates = merge_duplicates(facts)
    if duplicates:
        notes.append(f"merged {duplicates:,} duplicate facts")
    facts = _keep_relations(facts, config.relations)
    if config.limit is not None and len(facts) > config.limit:
        keep = sorted(random.Random(f"limit {config.seed}").sample(range(len(facts)), config.limit))
        facts = [facts[i] for i in keep]
    kept = {fact.relation for fact in facts}
    return FactList(facts, notes, frozenset(own & kept), frozenset(asked & kept))


def merge_duplicates(facts: Iterable[Fact]) -> tuple[list[Fact], int]:
    """Merge facts that state the same (aliases united). Returns them in first-seen order, and how many went."""
    merged: dict[tuple[str, str, str], Fact] = {}
    count = 0
    for fact in facts:
        key = (fact.subject, fact.relation, fact.object)
        count += 1
        if key in merged:
            aliases = dict.fromkeys([*merged[key].aliases, *fact.aliases])
            merged[key] = Fact(*key, aliases=tuple(aliases))
        else:
            merged[key] = fact
    return list(merged.values()), count - len(merged)


def facts_digest(facts: Sequence[Fact], wording: Wording = BUILT_IN) -> str:
    """A hash of facts, and of the user's phrasings, to notice that a file or table has changed."""
    own = {relation: [words.sentences, words.questions] for relation, words in wording.own.items()}
    text = json.dumps([facts, own] if own else facts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def answers_of(facts: Sequence[Fact]) -> dict[tuple[str, str], tuple[str, ...]]:
    """For each (subject, relation), every answer that counts as right: all its objects and their aliases."""
    accepted: dict[tuple[str, str], dict[str, None]] = {}
    for fact in facts:
        accepted.setdefault((fact.subject, fact.relation), {}).update(dict.fromkeys([fact.object, *fact.aliases]))
    return {key: tuple(answers) for key, answers in accepted.items()}


@cache
def _built_in(name: str) -> tuple[Fact, ...]:
    """A built-in table, read once in a process: a sweep reads it for each of its points."""
    return tuple(TABLES[name]())


def _is_table(source: str) -> bool:
    return source in TABLES or source == "biographies"


def _table(name: str, config: DataConfig) -> Sequence[Fact]:
    return _built_in(name) if name in TABLES else biographies(config.biographies, config.seed)


def _file(source: str, config: DataConfig) -> tuple[FactsFile, bool]:
    """The facts of a file, and whether they are complete questions."""
    if is_facts_file(source):
        how: Any = dict(skip_bad_rows=config.skip_bad_rows, columns=config.columns, encoding=config.encoding)
        layout = question_layout(read_records(source, encoding=config.encoding), config.columns or {})
        if layout is not None:
            return read_question_file(source, layout, **how), True
        return read_facts_file(source, **how), False
    names = [*TABLES, "biographies"]
    raise MemxError(
        f"data.facts: no fact table or file {source!r}",
        hint=nearest(source, names) or f"use {', '.join(names)}, or the path of a file",
    )


def _check_used(config: DataConfig, used: set[str]) -> None:
    """Raise MemxError for a chosen column that no file has: its name is most likely misspelt."""
    for part, column in (config.columns or {}).items():
        if part not in used:
            raise MemxError(
                f"data.columns: no facts file has a column {column!r}", hint=f"check --columns {part}=NAME and --facts"
            )


def _keep_relations(facts: list[Fact], relations: Sequence[str] | None) -> list[Fact]:
    if relations is None:
        return facts
    known = Counter(fact.relation for fact in facts)
    for relation in relations:
        if relation not in known:
            raise MemxError(
                f"data.relations: no relation {relation!r}",
                hint=nearest(relation, known) or f"use one of: {', '.join(sorted(known)[:12])}",
            )
    return [fact for fact in facts if fact.relation in relations]
