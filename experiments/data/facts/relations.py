"""What a run trains and holds out, by relation, with the phrasings of its questions: kept in the run's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ....files import write_atomically
from ....json_text import parse_json
from .questions import FactSplit, held_out

RELATIONS = "relations.json"


def relations_of(split: FactSplit) -> dict[str, dict[str, Any]]:
    """Describe the relations of a run.

    Args:
        split: Its facts.

    Returns:
        For each relation the number of facts that are trained and held out (`trained`, `held_out`), the phrasings of
        its questions with {s} for the subject (`questions`), whether the subject is a complete question (`whole`), the
        place of the phrasing that training never shows for the example (`aside`), and a subject (`example`).
    """
    found: dict[str, dict[str, Any]] = {}
    for name, facts in (("trained", split.trained), ("held_out", split.unseen)):
        for fact in facts:
            if fact.relation not in found:
                words = split.wording.phrasings(fact.relation)
                of_facts = {"trained": 0, "held_out": 0, "questions": [*words.questions], "whole": words.whole}
                aside = held_out(fact, split.seed, split.wording)
                found[fact.relation] = {**of_facts, "aside": aside, "example": fact.subject}
            found[fact.relation][name] += 1
    return found


def save_relations(split: FactSplit, folder: Path) -> None:
    """Write the relations of a run into its folder, as relations.json."""
    write_atomically(folder / RELATIONS, json.dumps(relations_of(split), indent=1, ensure_ascii=False) + "\n")


def saved_relations(folder: Path) -> dict[str, dict[str, Any]]:
    """Read what `save_relations` wrote; empty for a run of an older version, or a damaged file."""
    try:
        return dict(parse_json((folder / RELATIONS).read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}


def counts(split: FactSplit, asked: int | None) -> str:
    """What a run trains, holds out and asks, in a line.

    Args:
        split: Its facts.
        asked: The most questions that are asked of each tier; None for all.
    """
    whole = all(split.wording.phrasings(fact.relation).whole for fact in split.trained)
    what, tiers = "questions" if whole else "facts", []
    again = sum(held_out(fact, split.seed, split.wording) is not None for fact in split.trained)
    for name, count in (("seen", len(split.trained)), ("paraphrased", again), ("held-out", len(split.unseen))):
        if count:
            tiers.append(f"{min(count, asked) if asked is not None else count:,} {name}")
    relations = len({fact.relation for fact in split.trained})
    of = f" of {relations} relations" if relations > 1 else ""
    trained, asked_of = f"{len(split.trained):,} {what}{of}", ", ".join(tiers)
    return f"trains {trained}, holds out {len(split.unseen):,}; asks at the end: {asked_of}"
