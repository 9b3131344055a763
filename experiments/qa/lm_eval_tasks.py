"""The tasks of lm-eval on a loaded model: their names -> results, and those as rows.

Its own scores keep their names and units, but for exact match and accuracy, which memx gives in percent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ...errors import MemxError, nearest
from ...results.store.rows import Row
from ..config.question_answering import HarnessConfig, QaConfig
from ..metrics.estimates import Z95
from ..runtime.events import Progress, Report

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

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

    Returns:
        The results as lm-eval gives them, with the number of questions and shots of each task.

    Raises:
        MemxError: The task's data cannot be loaded.
    """
    simple_evaluate: Any = import_module("lm_eval").simple_evaluate
    lm = _with_progress(model, tokenizer, batch, task, report, check)
    try:
        with _muted():
            results: Any = simple_evaluate(
                lm,
                tasks=[task],
                num_fewshot=config.harness.shots,
                limit=config.limit,
                task_manager=manager,
                log_samples=False,
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
    parts = ("results", "n-samples", "n-shot", "group_subtasks", "versions")
    return {**{name: results.get(name, {}) for name in parts}, "lm_eval": _version()}


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
            half = None if error is None else scale * Z95 * error
            rows.append(
                Row(
                    **about,
                    dataset=task,
                    metric=name,
                    value=scale * value,
                    n=_count(task, results),
                    stderr=None if error is None else scale * error,
                    low=None if half is None else scale * value - half,
                    high=None if half is None else scale * value + half,
                    **{"harness": f"lm-eval {results['lm_eval']}", "filter": filtered},
                    **({"shots": results["n-shot"][task]} if task in results["n-shot"] else {}),
                )
            )
    return rows


def _count(task: str, results: Mapping[str, Any]) -> int:
    """Questions of a task, or of all tasks of a group."""
    if task in results["n-samples"]:
        return results["n-samples"][task]["effective"]
    return sum(_count(member, results) for member in results["group_subtasks"].get(task, []))


def _with_progress(model: Any, tokenizer: Any, batch: int, task: str, report: Report, check: Callable[[], None]) -> Any:
    """lm-eval's own class for a model of transformers, which reports its progress as memx does."""
    base: Any = import_module("lm_eval.models.huggingface").HFLM

    class Model(base):
        """Counts requests as they are answered; requests that share a text are answered together."""

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            self._start(requests)
            return super().generate_until(requests, disable_tqdm=True)

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            self._start(requests)
            return super().loglikelihood(requests, disable_tqdm=True)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
            self._start(requests)
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

        def _model_generate(self, context: Any, *rest: Any, **options: Any) -> Any:
            written = super()._model_generate(context, *rest, **options)
            self._count(len(context))
            return written

        def _model_call(self, inps: Any, *rest: Any, **options: Any) -> Any:
            logits = super()._model_call(inps, *rest, **options)
            self._count(len(inps))
            return logits

        def _start(self, requests: Any) -> None:
            self.answered, self.total, self.last = 0, len(requests), perf_counter()

        def _count(self, answered: int) -> None:
            check()
            now = perf_counter()
            seconds, self.last = (now - self.last) / answered, now
            self.answered = min(self.answered + answered, self.total)
            report(Progress(self.answered, self.total, f"lm-eval {task}", seconds))

    with _muted():
        return Model(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=batch)


def _version() -> str:
    return version("lm-eval")


@contextmanager
def _muted() -> Iterator[None]:
    """Keep lm-eval's log of its own settings off the screen."""
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
