"""Thresholds with which NAMMs keep each budget while they read: measured once on training prompts, kept in the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import MemxError
from ...files import write_atomically
from ...json_text import BadJson, parse_json
from ...namm.online import calibrate_threshold
from ...namm.policies.network import Namm
from ...namm.threshold import with_threshold
from ...results.namm.rows import THRESHOLD
from ..config.eviction.policy_eval import EvalConfig
from .baselines import Baseline, protected

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

THRESHOLDS = "thresholds.json"
Thresholds = Mapping[str, Mapping[float, float]]  # by label of the NAMM, then by budget


def online_thresholds(
    model: PreTrainedModel,
    config: EvalConfig,
    namms: Sequence[Namm],
    contexts: Sequence[Tensor],
    path: Path,
    progress: Callable[[], None],
) -> Thresholds:
    """Read the thresholds of a run that goes on, or calibrate and write them.

    Args:
        model: The base model.
        config: The evaluation.
        namms: The NAMM of each entry of `config.namms`.
        contexts: Token ids of contexts [N] of prompts that are not evaluated.
        path: The file in the run's folder.
        progress: Called before each threshold is calibrated; may raise to stop.

    Returns:
        The threshold of each NAMM for each budget.

    Raises:
        MemxError: The file is damaged, or no context is as long as the interval.
    """
    if path.exists():
        return _read(path)
    found: dict[str, dict[float, float]] = {}
    for source, namm in zip(config.namms, namms, strict=True):
        policy = replace(namm, every=config.every, rule=protected(namm.rule, config, namm.rule))
        for budget in config.shares:
            progress()
            if budget < 1:
                calibrated = calibrate_threshold(model, policy, contexts, budget)
                found.setdefault(source.label, {})[budget] = calibrated.rule.threshold
    write_atomically(path, json.dumps(found) + "\n")
    return found


def with_calibrated(baselines: Sequence[Baseline], thresholds: Thresholds, share: float) -> list[Baseline]:
    """Make of NAMMs those with the thresholds that were calibrated to keep a share while reading.

    Args:
        baselines: All policies.
        thresholds: The threshold of NAMMs for each share, by label.
        share: The share.

    Returns:
        The NAMMs that have a threshold for that share, under it.
    """
    found = []
    for baseline in baselines:
        threshold = thresholds.get(baseline.variant, {}).get(share) if baseline.rule is not None else None
        if threshold is not None:
            policy: Any = baseline.make(share, "equal")
            moved = with_threshold(policy, threshold, "per_head")
            found.append(Baseline(baseline.variant + THRESHOLD, lambda share, allocation, moved=moved: moved))
    return found


def _read(path: Path) -> Thresholds:
    try:
        # an infinite threshold keeps everything, or what is protected
        tree = parse_json(path.read_bytes(), finite=False)
        found = {label: {float(budget): float(value) for budget, value in of.items()} for label, of in tree.items()}
        if any(isnan(value) for of in found.values() for value in of.values()):
            raise ValueError("NaN")
        return found
    except (OSError, BadJson, AttributeError, TypeError, ValueError):
        raise MemxError(f"{path} is damaged", hint="use --force to delete the run and start over") from None
