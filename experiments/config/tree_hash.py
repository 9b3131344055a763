"""A config as a tree -> the hash in the name of its run's folder, which keys that came later do not change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from .first_about import FIRST_ABOUT

# keys of the section data that came later: where they are not set, a run keeps the name that it had before
_LATER_DATA = ("columns", "encoding", "template", "phrasings")
_LATER_TRAINING = {"value_schedule": "same"}  # the same of training, with what runs without them did
# the same of an evaluation's keys, with what they are if they are not set
_LATER_EVAL = {
    "skip_bad_rows": False,
    "allocations": ["equal"],
    "allocations_of": {},
    "head_shares": None,
    "share_prompts": 2,
    "online_thresholds": False,
    "question": "after",
    "reuse": None,
    "before": None,
    "policy_sources": {},
    "eviction": None,
    "answer_tokens": None,
    "metrics": {},
    "chat": False,
}
# the same of a memory's keys, with what they are if they are not set
_LATER_MEMORY = {"ngrams": [2, 3], "hash_seed": 0, "signed_root": False, "convolution": False}
_LATER_MEMORY |= {"place": "centred", "scores": None, "output_init": None}
_LATER_MEMORY |= {"rank": 2, "core_penalty": 1e-3, "expansion": None, "units": False}
_LATER_MEMORY |= {"share": None, "sparse": None, "shares": {}, "also": []}
_LATER_HOST = ("rope", "device_map", "weights")  # the same of a base model's, where they are null
# the same of an evolution: keys by section, and what evolutions without them did
_LATER_EVOLUTION: dict[str, dict[str, Any]] = {
    "namm": {
        "features": ["published"],
        "head_bias": False,
        "head_embedding": 0,
        "allocation": "equal",
        "first": 0,
        "newest": 0,
    },
    "fitness": {"sharing": "copies", "budgets": [], "context_dtype": None},
    "evolution": {"start": "zeros", "space": "all", "sigma_end": None},
    "fit": {"prompts": 3, "steps": 400, "rate": 0.01},
}
# the same of a training run's keys, by section
_LATER_CONTINUAL: dict[str, dict[str, Any]] = {
    "finetune": {"rows_by": "tfidf", "parts": None},
    "text": {"seed": None},
    "evaluation": {"known": [], "known_as": "completions", "known_questions": 200},
}
_OF_PROCESS = ("accumulate", "keep_state")  # of training: what computes and keeps the same numbers
_LATER_SECTION = "eviction"  # a section of training: without a policy it says what runs before it did
_LATER_NAMM = ("settings", "grouping")  # of each NAMM of an evaluation; both follow from its file
_PROTECTED = ("protect_first", "protect_newest")


def tree_hash(tree: Mapping[str, Any]) -> str:
    """The hash of a config as a tree: a run goes on where the settings of its processes change.

    Args:
        tree: The config, with all defaults.

    Returns:
        Eight hexadecimal digits.
    """
    of_run = {key: value for key, value in tree.items() if key != "parallel"}
    if isinstance(about := tree.get("about"), str):
        of_run["about"] = FIRST_ABOUT.get(about, about)
    if isinstance(training := tree.get("training"), Mapping):
        kept = {key: value for key, value in training.items() if key not in _OF_PROCESS}
        of_run["training"] = {k: v for k, v in kept.items() if k not in _LATER_TRAINING or v != _LATER_TRAINING[k]}
    if isinstance(data := tree.get("data"), Mapping):
        of_run["data"] = {key: value for key, value in data.items() if value is not None or key not in _LATER_DATA}
    eviction = tree.get(_LATER_SECTION) if "command" not in tree else None
    if isinstance(eviction, Mapping) and eviction.get("namm") is None and eviction.get("policy") is None:
        of_run.pop(_LATER_SECTION)
    if isinstance(memory := tree.get("memory"), Mapping):
        of_run["memory"] = {k: v for k, v in memory.items() if k not in _LATER_MEMORY or v != _LATER_MEMORY[k]}
    of_run = {key: value for key, value in of_run.items() if key not in _LATER_EVAL or value != _LATER_EVAL[key]}
    if tree.get("command") == "eval-namm":
        of_run = _without_later_evaluation_keys(of_run)
    if isinstance(host := tree.get("host"), Mapping):
        of_run["host"] = {key: value for key, value in host.items() if value is not None or key not in _LATER_HOST}
    if "command" not in tree:
        of_run = _without_defaults(of_run, _LATER_CONTINUAL)
    if tree.get("command") == "evolve-namm":
        of_run = _without_later_keys(of_run)
    return hashlib.sha256(json.dumps(of_run, sort_keys=True).encode()).hexdigest()[:8]


def _without_later_evaluation_keys(tree: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation's config without keys that older ones lack, where they say what those did."""
    namms = [{key: value for key, value in namm.items() if key not in _LATER_NAMM} for namm in tree.get("namms", ())]
    old = not any(namm.get("settings") for namm in tree.get("namms", ()))
    kept = {key: value for key, value in tree.items() if value is not None or key not in _PROTECTED}
    if old:  # these wrote 0 for "as a NAMM says"
        kept = {key: value for key, value in kept.items() if value or key not in _PROTECTED}
    return {**kept, "namms": namms}


def _without_later_keys(tree: Mapping[str, Any]) -> dict[str, Any]:
    """An evolution's config without keys that older ones lack, where they say what those did."""
    kept = _without_defaults(tree, _LATER_EVOLUTION)
    return {key: value for key, value in kept.items() if key not in ("fit", "more_hosts") or value}


def _without_defaults(tree: Mapping[str, Any], later: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A config without the keys of its sections that came later, where they have their defaults."""
    kept = dict(tree)
    for section, keys in later.items():
        if isinstance(values := kept.get(section), Mapping):
            kept[section] = {key: value for key, value in values.items() if key not in keys or value != keys[key]}
    return kept
