"""What a run on facts trained its model on -> how a question is put to it, whether it knows the form, and examples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import MemxError
from ..config.loading import load_config
from ..data.facts.questions import FactSplit, build_split, held_out
from ..data.facts.record import Fact
from ..data.facts.relations import relations_of, saved_relations

_SHOWN = 3


class Form(NamedTuple):
    """A phrasing: the relation that it asks for, its text with {s} for the subject, and such a question.

    whole: whether the subject is a complete question, and the rest the template around it.
    """

    relation: str
    text: str
    example: str
    whole: bool = False


class Forms:
    """The questions that a model was trained on.

    Args:
        relations: What `relations_of` gives.
        split: The facts; None if they cannot be read any more, and the phrasings alone are known.
    """

    def __init__(self, relations: Mapping[str, Mapping[str, Any]], split: FactSplit | None = None) -> None:
        self.split, self.forms = split, [*_forms(relations)]
        self._patterns = [(form, _pattern(form.text)) for form in self.forms]
        self._trained: dict[str, set[str]] = {}
        for fact in split.trained if split is not None else ():
            self._trained.setdefault(fact.relation, set()).add(fact.subject)

    def put(self, question: str) -> str:
        """What the model reads of a question: a complete one in its template, any other as it is.

        Args:
            question: As the user writes it.
        """
        whole = [form for form in self.forms if form.whole]
        if not whole or self._matching(question):
            return question
        subject = " ".join(question.split())
        known = [form for form in whole if subject in self._trained.get(form.relation, ())] or whole
        relation = known[0].relation
        starts = [form.text for form in whole if form.relation == relation]
        aside = 0
        if self.split is not None:  # of several templates one is not shown for this question
            aside = held_out(Fact(subject, relation, ""), self.split.seed, self.split.wording) or 0
        return starts[(aside + 1) % len(starts)].format(s=subject)

    def unknown(self, question: str) -> str:
        """What of a question was not trained.

        Args:
            question: As `put` returns it.

        Returns:
            `phrasing` or `subject`; empty if both were, as far as is known.
        """
        found = self._matching(question)
        if not found:
            return "phrasing"
        known = self.split is None or any(subject in self._trained.get(form.relation, ()) for form, subject in found)
        return "" if known else "subject"

    def examples(self) -> list[str]:
        """Three questions in different phrasings, of different relations where there are as many."""
        first: dict[str, Form] = {}
        for form in self.forms:
            first.setdefault(form.relation, form)
        others = [form for form in self.forms if form not in first.values() and not form.whole]
        shown = [form.example for form in [*first.values(), *others]]
        if self.split is not None and len(shown) < _SHOWN and all(form.whole for form in self.forms):
            shown += [fact.subject for fact in self.split.trained if fact.subject not in shown][:_SHOWN]
        return shown[:_SHOWN]

    def _matching(self, question: str) -> list[tuple[Form, str]]:
        """The phrasings that a question is in, with its subject."""
        found = ((form, pattern.fullmatch(question)) for form, pattern in self._patterns)
        return [(form, match[1]) for form, match in found if match is not None]


def forms_of(run: Path) -> Forms | None:
    """The questions that a run of `memx train` trained its model on.

    Args:
        run: The run's folder.

    Returns:
        Them, or their phrasings if the facts cannot be read any more; None if the run did not train on facts.
    """
    saved = saved_relations(run)
    try:
        config = load_config(str(run / "config.yaml"))
        if not config.on_facts:
            return None
        split, _ = build_split(config)
    except MemxError:
        return Forms(saved) if saved else None
    relations = relations_of(split)
    return Forms(saved) if saved and saved != relations else Forms(relations, split)  # the file may have changed


def _forms(relations: Mapping[str, Mapping[str, Any]]) -> list[Form]:
    """The phrasings of relations, those that were shown for their example first."""
    found = []
    for relation, about in relations.items():
        if not about["trained"]:
            continue
        whole = bool(about["whole"])
        texts = sorted(enumerate(about["questions"]), key=lambda one: one[0] == about["aside"])
        subject = str(about["example"])
        of_relation = [Form(relation, text, subject if whole else text.format(s=subject), whole) for _, text in texts]
        # in their own order where templates are counted
        found += [Form(relation, text, subject, True) for text in about["questions"]] if whole else of_relation
    return found


def _pattern(text: str) -> re.Pattern[str]:
    """What matches a phrasing with any subject, which is its first group."""
    first, *rest = [re.escape(part.format()) for part in text.split("{s}")]  # format: doubled braces are single ones
    return re.compile(first + r"(\S(?:.*\S)?)" + r"\1".join(rest), re.DOTALL)
