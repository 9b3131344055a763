"""A finished evaluation on RULER -> a folder for each policy and size, in the layout of kvpress's leaderboard.

`ruler__LENGTH__MODEL__POLICY__RATIO`, RATIO being the share of the cache that is removed, with `__query_aware` if the
question was read before eviction. Each holds config.yaml, metrics.json (percent by task) and predictions.csv.

Source: github.com/NVIDIA/kvpress, evaluation (Apache-2.0): names of files, columns and keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
import yaml

from ...files import write_atomically
from ...namm.policies.shares import allowed
from ...results.store.json_lines import JsonLines
from ...version import __version__
from ..config.eviction.policy_eval import EvalConfig
from ..config.eviction.tasks import RULER, is_ruler
from ..eviction.answers import Prompt

LEADERBOARD = "leaderboard"
_FULL = "full"


def asked(prompt: Prompt) -> dict[str, Any]:
    """What a line of prompts.jsonl says of a prompt whose answers are written: its question and the right answers.

    Args:
        prompt: The prompt.
    """
    example = prompt.example
    question = example.question.removesuffix(example.prefix)
    return {"question": question, "answer_prefix": example.prefix, "answers": list(example.answers)}


def write_leaderboard(prompts: Path, config: EvalConfig) -> list[Path]:
    """Write the folders of an evaluation whose answers to RULER's tasks were written; there may be none.

    Args:
        prompts: The file prompts.jsonl of the finished evaluation.
        config: Its config.

    Returns:
        The folders, in the folder `leaderboard` next to the file.
    """
    lines = [line for line in JsonLines(prompts).lines() if is_ruler(line.get("task", "")) and "answers" in line]
    found: dict[tuple[str, float], list[dict[str, Any]]] = {}
    budgets: dict[tuple[str, float], float | None] = {}  # the first of those that leave the same share
    for line in lines:
        for fact in line["facts"]:
            if fact.get("text") is not None and fact["size"] == "budget":
                key = fact["variant"], _share(fact["budget"], config.length)
                if budgets.setdefault(key, fact["budget"]) == fact["budget"]:
                    found.setdefault(key, []).append(_prediction(line, fact))
    digits = 2
    while len({(variant, f"{1 - share:.{digits}f}") for variant, share in found}) < len(found):
        digits += 1  # two sizes would share a folder
    root = prompts.with_name(LEADERBOARD)
    return [_write(root, config, *key, predictions, digits) for key, predictions in found.items()]


def _share(budget: float | None, tokens: int) -> float:
    """What a budget keeps of a context; None for all of it."""
    return 1.0 if budget is None else float(allowed(budget, tokens) / tokens)


def _prediction(line: Mapping[str, Any], fact: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "task": line["task"].removeprefix(RULER),
        "question": line["question"],
        "answer_prefix": line["answer_prefix"],
        "answer": line["answers"],
        "predicted_answer": fact["text"],
        "score": fact["score"],
    }


def _write(
    root: Path, config: EvalConfig, variant: str, share: float, predictions: Sequence[Mapping[str, Any]], digits: int
) -> Path:
    """Write one folder."""
    model = str(config.host.name or config.host.preset)
    press, ratio = _slug("no_press" if variant == _FULL else variant), 0.0 if variant == _FULL else 1 - share
    parts = ["ruler", str(config.length), model.replace("/", "--"), press, f"{ratio:.{digits}f}"]
    aware = config.question == "before"
    folder = root / "__".join([*parts, *(["query_aware"] if aware else [])])
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "dataset": "ruler",
        "data_dir": str(config.length),
        "model": model,
        "press_name": press,
        "compression_ratio": round(ratio, 6),
        "fraction": 1.0,
        "prompts": len(predictions),
        "max_new_tokens": config.answer_tokens,
        "query_aware": aware,
        "seed": config.seed,
        "memx": __version__,
        "policy": variant,
        "generated": config.source is None,
    }
    table = pd.DataFrame(predictions)
    scores = {
        str(task): {"string_match": round(100 * fmean(of_task["score"]), 2)} for task, of_task in table.groupby("task")
    }
    write_atomically(folder / "config.yaml", yaml.safe_dump(about, sort_keys=False))
    write_atomically(folder / "metrics.json", json.dumps(scores, indent=2) + "\n")
    write_atomically(folder / "predictions.csv", table.drop(columns="score").to_csv(index=False))
    return folder


def _slug(name: str) -> str:
    """A policy's name as a part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")
