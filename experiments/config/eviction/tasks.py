"""Families of long-context tasks: those to evolve on, those kept for evaluation, and the section of a config."""

from __future__ import annotations

from pydantic import Field, model_validator

from ....errors import nearest
from ..base import StrictModel

TRAINING_TASKS = ("needles", "key_values", "passages", "quote", "facts", "prose_next")
HELD_OUT_TASKS = ("passkey", "variables", "abstracts", "count", "frequent_word", "people", "code_next")
NAMED_TASKS = ("repeated", "registers")  # held out too, and evaluated only where they are named
LONGBENCH = "longbench/"
RULER = "ruler/"
LONGBENCH_V2, INFINITEBENCH, ZEROSCROLLS = "longbench-v2/", "infinitebench/", "zeroscrolls/"
# those that memx generates; `all` of them are named by ruler
RULER_TASKS = (
    *(f"niah_single_{number}" for number in (1, 2, 3)),
    *(f"niah_multikey_{number}" for number in (1, 2, 3)),
    *("niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe"),
)
RULER_OF_FILES = ("qa_1", "qa_2")  # which need other data sets
# those of benchmarks that are only evaluated, by how their names begin; a test compares them with their prompts
BENCHMARKS = {
    LONGBENCH_V2: (
        *("all", "easy", "hard", "short", "medium", "long", "single_document_qa", "multi_document_qa"),
        *("in_context_learning", "dialogue_history", "code_repository", "structured_data"),
    ),
    INFINITEBENCH: (
        *("passkey", "number_string", "kv_retrieval", "longbook_sum_eng", "longbook_choice_eng", "longbook_qa_eng"),
        *("longbook_qa_chn", "math_find", "math_calc", "code_run", "code_debug", "longdialogue_qa_eng"),
    ),
    ZEROSCROLLS: (
        *("gov_report", "summ_screen_fd", "qmsum", "squality", "qasper", "narrative_qa", "quality", "musique"),
        *("space_digest", "book_sum_sort"),
    ),
}
BENCHMARK_TASKS = tuple(prefix + name for prefix, names in BENCHMARKS.items() for name in names)
UNSCORED = ("prose_next",)  # whose answers have a likelihood alone


def is_longbench(task: str) -> bool:
    """Whether a task is named as one of LongBench's; which there are is known where they are read."""
    return task.startswith(LONGBENCH) and len(task) > len(LONGBENCH)


def is_ruler(task: str) -> bool:
    """Whether a task is named as one of RULER's; which there are is known where they are read."""
    return task.startswith(RULER) and len(task) > len(RULER)


def with_all_of_ruler(tasks: tuple[str, ...]) -> tuple[str, ...]:
    """Tasks, with all of RULER's that memx generates in place of the name ruler."""
    whole = tuple(RULER + task for task in RULER_TASKS)
    return tuple(one for task in tasks for one in (whole if task == RULER.rstrip("/") else (task,)))


def check_task(task: str) -> None:
    """Raise ValueError for a family that is unknown or kept for evaluation; LongBench's are known where they are."""
    if task in TRAINING_TASKS or is_longbench(task):
        return
    misspelt = task not in (*HELD_OUT_TASKS, *NAMED_TASKS) and nearest(task, TRAINING_TASKS)
    hint = misspelt or f"use {', '.join(TRAINING_TASKS)} or longbench/NAME (others are held out)"
    raise ValueError(f"unknown training task {task!r}; {hint}")


class TasksConfig(StrictModel):
    """Tasks: the task families, prompts and splits of an evolution."""

    train: tuple[str, ...] = Field(
        default=("key_values", "needles"),
        min_length=1,
        description=f"families to evolve on: {', '.join(TRAINING_TASKS)} or longbench/NAME",
    )
    length: int = Field(default=1024, ge=64, le=10_000_000, description="maximum prompt length in tokens")
    pool: int = Field(default=16, ge=1, le=1_000_000, description="training prompts per family")
    per_generation: int = Field(
        default=2, ge=1, le=1_000_000, description="prompts sampled per family in each generation"
    )
    validation: tuple[str, ...] = Field(
        default=(), description="families to validate on; empty: those of the current stage"
    )
    validation_prompts: int = Field(default=8, ge=1, le=1_000_000, description="validation prompts per family")
    test_prompts: int = Field(
        default=16,
        ge=0,
        le=1_000_000,
        description="held-out test prompts per family, evaluated once at the end; 0: none",
    )
    source: str | None = Field(
        default=None, description="folder of LongBench's .jsonl files; null: the Hugging Face hub"
    )

    @model_validator(mode="after")
    def _known(self) -> TasksConfig:
        for task in (*self.train, *self.validation):
            check_task(task)
        if self.per_generation > self.pool:
            raise ValueError(f"per_generation {self.per_generation} is above pool {self.pool}; lower it, or raise pool")
        return self
