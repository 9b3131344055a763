"""The numbers of a row, or of a line of metrics, as a file gives them: which of them cannot be, in plain words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_COUNTS = ("n", "memory_slots", "parameters_total", "parameters_active", "flops", "seed")
_ADDED_COUNTS = (
    "shots",
    "fewer_shots",
    "cut_questions",
    "cut_tokens",
    "answer_tokens",
    "evicted_questions",
    "context_questions",
    "answer_generation",
    "layer",
    "length",
)
_NUMBERS = ("value", "stderr", "low", "high")
_SHARES = {"share": 100.0}  # largest value
_PERCENT = frozenset(
    {"exact_match", "f1", "chance_exact_match", "majority_exact_match", "exact_match_before", "exact", "kept", "held",
     "kept_layer", "dropped", "dropped_run", "slots_used"}
)  # fmt: skip
_NOT_NEGATIVE = ("_ms", "_mb", "_gb", "_gbps", "_tflops", "_percent", "_per_second")
_ROUNDING = 1e-6
_METRICS = ("loss", "best", "mean", "std", "sigma", "kept", "validation", "tokens")
_SECTIONS = ("memory_use", "evaluation", "before")


def wrong_numbers(data: Mapping[str, Any]) -> str:
    """What is wrong with the numbers of a row; "" if nothing is."""
    for name in (*_COUNTS, *_ADDED_COUNTS):
        value = data.get(name)
        if value is not None and (type(value) is not int or value < 0):
            return f"{name} must be a whole number from 0 on, not {_shown(value)}"
    for name in (*_NUMBERS, *_SHARES, "budget"):
        value = data.get(name)
        if type(value) not in (int, float) and (value is not None or (name == "value" and "value" in data)):
            return f"{name} must be a number, not {_shown(value)}"
        if type(value) is int and abs(value) > 10**300:
            return f"{name} is too large a number"
    low, high = data.get("low"), data.get("high")
    if low is not None and high is not None and low > high:
        return f"low {low:g} is above high {high:g}"
    if (data.get("stderr") or 0) < 0:
        return f"stderr must not be negative, not {data['stderr']:g}"
    for name, most in _SHARES.items():
        if not -_ROUNDING <= (data.get(name) or 0) <= most + _ROUNDING:
            return f"{name} must be from 0 to {most:g}, not {data[name]:g}"
    budget = data.get("budget") or 0
    if not -_ROUNDING <= budget <= 1 + _ROUNDING and (budget < 0 or budget != int(budget)):
        return f"budget must be from 0 to 1, or a whole number of tokens, not {budget:g}"
    return _out_of_range(data.get("metric"), data.get("value"))


def wrong_metrics(line: Mapping[str, Any]) -> str:
    """What is wrong with a line of metrics, less what is null; "" if nothing is."""
    step = line.get("step")
    if type(step) is not int or step < 0:
        return f"step must be a whole number from 0 on, not {_shown(step)}" if "step" in line else "it has no step"
    if "stage" in line and (type(line["stage"]) is not int or line["stage"] < 0):
        return f"stage must be a whole number from 0 on, not {_shown(line['stage'])}"
    for name in _METRICS:
        if name in line and type(line[name]) not in (int, float):
            return f"{name} must be a number, not {_shown(line[name])}"
    for name in _SECTIONS:
        if name in line and not isinstance(line[name], dict):
            return f"{name} must be a section, not {_shown(line[name])}"
    layers = line.get("memory_use", {})
    if not all(isinstance(use, dict) and _are_numbers(use, "used", "kl") for use in layers.values()):
        return "memory_use must have the numbers used and kl of each layer"
    return ""


def _are_numbers(line: Mapping[str, Any], *names: str) -> bool:
    """Whether each of these is a number, or not there: it was not finite, which a line has null for."""
    return all(name not in line or type(line[name]) in (int, float) for name in names)


def _out_of_range(metric: Any, value: Any) -> str:
    if not isinstance(metric, str) or value is None:
        return ""
    if metric in _PERCENT and not -_ROUNDING <= value <= 100 + _ROUNDING:
        return f"value must be from 0 to 100 (percent) for {metric}, not {value:g}"
    if metric.endswith(_NOT_NEGATIVE) and value < 0:
        return f"value must not be negative for {metric}, not {value:g}"
    return ""


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)[:60]
