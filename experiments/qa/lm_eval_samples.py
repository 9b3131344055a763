"""What a model answered to each question of lm-eval's tasks: results with samples -> lines of samples.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...results.store.json_lines import JsonLines, Line

SAMPLES = "samples.jsonl"


class Samples:
    """The file of a run that every answer is appended to, task by task."""

    def __init__(self, file: JsonLines, done: set[str]) -> None:
        """Leave out the answers of a task that a kill cut off.

        Args:
            file: The file.
            done: The tasks that were run to their end.
        """
        self.file, lines = file, file.rewind()
        if len(whole := [line for line in lines if line["run_task"] in done]) < len(lines):
            file.write(whole)

    def append(self, run_task: str, samples: Mapping[str, Any]) -> None:
        """Add the answers of a task, or of all tasks of a group.

        Args:
            run_task: Its name.
            samples: What lm-eval logged, by task.
        """
        for task, of_task in samples.items():
            for sample in of_task:
                self.file.append(_line(run_task, task, sample))


def _line(run_task: str, task: str, sample: Mapping[str, Any]) -> Line:
    """The line of a sample: of answers what lm-eval scored, of log-likelihoods with whether they are greedy."""
    return {
        "run_task": run_task,
        "task": task,
        "number": sample["doc_id"],
        "filter": sample["filter"],
        "target": _plain(sample["target"]),
        "answers": _plain(sample["filtered_resps"]),
        "scores": {name: _plain(sample[name]) for name in sample["metrics"] if name in sample},
        "prompt_sha256": sample["prompt_hash"],
    }


def _plain(value: Any) -> Any:
    """A value as JSON has it; text of what has none."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return _plain(value.item()) if hasattr(value, "item") else str(value)
