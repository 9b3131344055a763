"""The plan of an evaluation, before any weight is loaded: config -> how many questions of which length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config.question_answering import QaConfig, QaTask
from .eviction import about_eviction, build
from .lm_eval_tasks import check_harness
from .model import check_model, check_template, context_of
from .prompt import too_short
from .sets import read_set


def eval_cost(config: QaConfig, runs: Path, notes: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Count what an evaluation would do; files of questions and the model's config are read, but not the hub's data.

    Args:
        config: The evaluation.
        runs: The folder of runs.
        notes: Called with what was noticed.

    Returns:
        The counts by name, as `--dry-run` prints them; None for questions that the run would download.

    Raises:
        MemxError: The evaluation would not run.
    """
    model = check_model(config)
    check_template(config)
    check_harness(config.harness)
    policy = ""
    if config.eviction is not None:
        policy = about_eviction(build(config.eviction, config), config, "")["variant"]
    if config.tasks and context_of(model) <= config.answer_tokens:
        raise too_short(context_of(model), config.answer_tokens)
    return {
        "folder": str(runs / config.folder),
        "model": config.model,
        "kind": model.model_type,
        "context": context_of(model),
        "shots": config.shots,
        "set_shots": {task.name: config.shots_of(task) for task in config.tasks},
        "chat": config.chat,
        "metrics": {task.name: list(config.metrics_of(task)) for task in config.tasks},
        "answer_tokens": config.answer_tokens,
        "questions": {task.name: _count(config, task, notes) for task in config.tasks},
        "harness": list(config.harness.tasks),
        "policy": policy,
    }


def _count(config: QaConfig, task: QaTask, notes: Callable[[str], None]) -> int | None:
    return len(read_set(config, task, notes).questions) if task.asked.files else None
