"""What an evaluation would do, before anything is loaded: config -> how many prompts, contexts read and answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .eval_config import EvalConfig
from .settings import run_name


def evaluation_cost(config: EvalConfig, runs: Path) -> dict[str, Any]:
    """Counts, exact; a context is read once for all policies of memx, up to their first run if they evict online."""
    prompts = len(config.tasks) * config.prompts
    thresholds = sum(one.budget is None for one in config.namms)
    shares, rivals = len(config.shares), len(config.policies)
    answers = 1 + shares * (len(config.namms) + rivals) + thresholds * (1 + rivals)
    online = config.mode == "online"
    return {
        "folder": str(runs / run_name(config)),
        "host": config.host.name or f"{config.host.preset} of memx train",
        "namms": [f"{one.label}: {one.folder}" for one in config.namms],
        "mode": config.mode,
        "trained": [task for task in config.tasks if task in config.trained],
        "held_out": [task for task in config.tasks if task not in config.trained],
        "length": config.length,
        "budgets": list(config.shares),
        "own_sizes": thresholds,
        "policies": list(config.policies),
        "prompts": prompts,
        "prefills": prompts,
        "prefill_tokens": min(config.every, config.length) if online else config.length,
        "read_online": (answers - 1) * prompts * max(config.length - config.every, 0) if online else 0,
        "answers": answers * prompts,
        "written": answers * prompts if config.write else 0,
    }
