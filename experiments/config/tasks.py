"""Names of the families of long-context tasks: those to evolve on, and those kept for evaluation. No torch here."""

from __future__ import annotations

TRAINING_TASKS = ("needles", "key_values", "passages", "quote", "facts", "prose_next")
HELD_OUT_TASKS = ("passkey", "variables", "abstracts", "count", "frequent_word", "people", "code_next")
LONGBENCH = "longbench/"
UNSCORED = ("prose_next",)  # whose answers have a likelihood alone


def is_longbench(task: str) -> bool:
    """Whether a task is named as one of LongBench's; which there are is known where they are read."""
    return task.startswith(LONGBENCH) and len(task) > len(LONGBENCH)
