"""The tasks of lm-eval on a loaded model: their names -> results, and those as rows.

Its own scores keep their names and units, but for exact match and accuracy, which memx gives in percent.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import MemxError, nearest
from ...hub import quick_hub
from ...results.store.rows import Row
from ..config.question_answering import HarnessConfig, QaConfig
from ..metrics.estimates import Z95, wilson
from ..runtime.events import Report
from .lm_eval_folder import check_folder
from .lm_eval_model import Cuts, lm_eval_model
from .model import context_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# what a faulty task of the user's raises, by its YAML, its templates or its Python
_OF_TASKS = (AssertionError, AttributeError, ImportError, LookupError, NameError, TypeError, ValueError)
PERCENT = {"exact_match": "exact_match", "em": "exact_match", "acc": "accuracy", "acc_norm": "accuracy_norm"}


def check_harness(config: HarnessConfig) -> Any:
    """Check that lm-eval has all tasks of a config.

    Args:
        config: The tasks of lm-eval, and a folder with more of them.

    Returns:
        The task manager of lm-eval that knows them; None without tasks.

    Raises:
        MemxError: lm-eval is missing, or a task is unknown.
    """
    if not config.tasks:
        return None
    try:
        TaskManager: Any = import_module("lm_eval.tasks").TaskManager
    except ImportError as error:
        raise MemxError(f"--harness needs the package lm-eval ({error})", hint="pip install 'memx[eval]'") from None
    with _muted():
        if config.folder is not None:
            check_folder(Path(config.folder))
            own = TaskManager(include_path=config.folder, include_defaults=False)
            if set(config.tasks) <= set(own.all_tasks):
                return own  # without the seconds that lm-eval needs to read all of its own
        manager = TaskManager(include_path=config.folder)
    for task in config.tasks:
        if task not in manager.all_tasks:
            similar = sorted((name for name in manager.all_tasks if task in name), key=len)[:3]
            hint = f"did you mean {', '.join(similar)}?" if similar else nearest(task, manager.all_tasks)
            raise MemxError(
                f"lm-eval has no task {task!r}",
                hint=hint or "`lm-eval ls tasks` lists the tasks; add your own with --harness-tasks",
            )
    return manager


def run_harness(
    manager: Any,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    task: str,
    config: QaConfig,
    batch: int,
    report: Report,
    check: Callable[[], None],
    every: int | None = None,
) -> dict[str, Any]:
    """Run one task or group of lm-eval.

    Args:
        manager: What `check_harness` gave.
        model: The model, on its device.
        tokenizer: Its tokenizer.
        task: The name of the task or group.
        config: The evaluation.
        batch: How many requests are answered at once.
        report: Called with the progress.
        check: Called at every batch; may raise to stop.
        every: Tokens between evictions of the policy that is attached to the model; None without one.

    Returns:
        The results as lm-eval gives them, with the number of questions and shots of each task, what was cut, and
        the samples by task.

    Raises:
        MemxError: The task's data cannot be loaded, or a task of the user's folder fails.
    """
    simple_evaluate: Any = import_module("lm_eval").simple_evaluate
    cuts = Cuts(context_of(model.config), every)
    try:
        with _muted(), quick_hub():
            settings: dict[str, Any] = {"batch": batch, "task": task, "report": report, "check": check}
            lm = lm_eval_model(model, tokenizer, cuts, chat=config.chat, **settings)
            results: Any = simple_evaluate(
                lm,
                tasks=[task],
                num_fewshot=config.harness.shots,
                limit=config.limit,
                task_manager=manager,
                log_samples=True,
                apply_chat_template=config.chat,
                fewshot_as_multiturn=config.chat,
                random_seed=config.seed,
                numpy_random_seed=config.seed,
                torch_random_seed=config.seed,
                fewshot_random_seed=config.seed,
            )
    except OSError as error:  # what `datasets` raises for a set that is neither here nor to be reached
        reason = " ".join(str(error).split())
        raise MemxError(
            f"lm-eval cannot read the data of {task}: {reason[:160]}",
            hint=f"on a machine with internet, run: lm-eval run --model dummy --tasks {task} --limit 1; then copy its "
            "~/.cache/huggingface here. Or give a task of local files with --harness-tasks",
        ) from None
    except _OF_TASKS as error:
        if config.harness.folder is None:
            raise
        reason = " ".join(str(error).split()) or "no reason given"
        raise MemxError(
            f"lm-eval cannot run the task {task}: {type(error).__name__}: {reason[:160]}",
            hint=f"correct its files in {config.harness.folder}; --debug shows where it failed",
        ) from error
    parts = ("results", "n-samples", "n-shot", "group_subtasks", "versions", "samples")
    return {**{name: results.get(name, {}) for name in parts}, "cut": cuts.as_json(), "lm_eval": version("lm-eval")}


def harness_rows(results: Mapping[str, Any], about: Mapping[str, Any]) -> list[Row]:
    """Make the rows of a task of lm-eval.

    Args:
        results: What `run_harness` gave.
        about: The fields of `Row` that are about the model.

    Returns:
        A row for each score, with the task's name as its dataset.
    """
    rows = []
    for task, values in results["results"].items():
        scores = {key: value for key, value in values.items() if "," in key and isinstance(value, int | float)}
        metrics = [key.split(",")[0] for key in scores]
        for key, value in scores.items():
            metric, filtered = key.split(",", 1)
            if metric.endswith("_stderr"):
                continue
            scale = 100.0 if metric in PERCENT else 1.0
            name = PERCENT.get(metric) or metric
            name += f" {filtered}" if metrics.count(metric) > 1 else ""  # of one answer, parsed in several ways
            error = scores.get(f"{metric}_stderr,{filtered}")
            low, high = _interval(metric, value, error, _count(task, results))
            rows.append(
                Row(
                    **about,
                    dataset=task,
                    metric=name,
                    value=scale * value,
                    n=_count(task, results),
                    stderr=None if error is None else scale * error,
                    low=None if low is None else scale * low,
                    high=None if high is None else scale * high,
                    **{"harness": f"lm-eval {results['lm_eval']}", "filter": filtered},
                    **({"shots": results["n-shot"][task]} if task in results["n-shot"] else {}),
                    **_cut(task, results),
                )
            )
    return rows


def _interval(metric: str, value: float, error: float | None, n: int) -> tuple[float | None, float | None]:
    """The 95% interval by the standard error, of a share within 0 to 1; Wilson's where all or none are right."""
    if error is None:
        return None, None
    if metric not in PERCENT:
        return value - Z95 * error, value + Z95 * error
    if value in (0.0, 1.0):
        return wilson(value, n)
    return max(value - Z95 * error, 0.0), min(value + Z95 * error, 1.0)


def _count(task: str, results: Mapping[str, Any]) -> int:
    """Questions of a task, or of all tasks of a group."""
    if task in results["n-samples"]:
        return results["n-samples"][task]["effective"]
    return sum(_count(member, results) for member in results["group_subtasks"].get(task, []))


def _cut(task: str, results: Mapping[str, Any]) -> dict[str, Any]:
    """What of a task, or of all tasks of a group, did not fit in the context or was evicted; empty if nothing."""
    cut = results.get("cut", {})
    if task in cut:
        return cut[task]
    members = [found for member in results["group_subtasks"].get(task, []) if (found := _cut(member, results))]
    if not members:
        return {}
    joined = {"cut_questions": sum, "cut_tokens": max, "evicted_questions": sum}
    return {
        name: join([found.get(name, 0) for found in members])
        for name, join in joined.items()
        if any(name in found for found in members)
    }


@contextmanager
def _muted() -> Iterator[None]:
    """Keep off the screen what lm-eval says of its settings and of git, which it calls wherever it is run."""
    log = logging.getLogger("lm_eval")
    evaluator: Any = sys.modules.get("lm_eval.evaluator")
    level, commit = log.level, getattr(evaluator, "get_git_commit_hash", None)
    log.setLevel(logging.ERROR)
    if evaluator:
        evaluator.get_git_commit_hash = lambda: None
    try:
        yield
    finally:
        log.setLevel(level)
        if evaluator:
            evaluator.get_git_commit_hash = commit
