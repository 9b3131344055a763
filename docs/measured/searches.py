"""Searches with other settings: what their means came to on the same validation prompts, by generation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .text import REFERENCE, table

TRIED, CHOSEN, BEFORE = (REFERENCE / "namm" / name for name in ("tried", "runs", "with-expected"))
GENERATIONS = (0, 8, 16, 24, 32, 40, 48)


def tried(page: str) -> str:
    """Searches with other settings, and those of the same seeds with the presets' own.

    All of a seed are validated on the same prompts at 12.5% and 25%; searches at 50% too are left out. By what was
    evolved and the seed, then by the feature `expected`, the training prompts and the step size.
    """
    others = [(_settings(folder), _validations(folder)) for folder in TRIED.iterdir()]
    seeds = {settings[0] for settings, _ in others}
    presets = [folder for folder in (*CHOSEN.iterdir(), *BEFORE.iterdir()) if 0.5 not in _budgets(folder)]
    own = [(_settings(folder), _validations(folder)) for folder in presets]
    found = [*others, *(one for one in own if one[0][0] in seeds)]
    by_settings: dict[tuple[str, ...], dict[int, float]] = {}
    for settings, validations in found:  # a search that went on after its end is one with it
        by_settings.setdefault(settings, {}).update(validations)
    lines = []
    for settings, validations in sorted(by_settings.items(), key=lambda one: (-len(one[0][0]), one[0])):
        figures = [validations.get(generation) for generation in GENERATIONS]
        lines.append([*settings, *("" if figure is None else f"{figure:.2f}" for figure in figures)])
    columns = ["preset, seed", "reads `expected`", "training prompts per family", "step size", *map(str, GENERATIONS)]
    return table(columns, lines, left=4)


def _config(folder: Path) -> Mapping[str, Any]:
    return yaml.safe_load((folder / "config.yaml").read_text("utf-8"))


def _budgets(folder: Path) -> Sequence[float]:
    """The shares of the cache that a search was at, by turns."""
    return _config(folder)["fitness"]["budgets"]


def _settings(folder: Path) -> tuple[str, ...]:
    """What tells searches apart, as cells."""
    config = _config(folder)
    search = config["evolution"]
    end = search.get("sigma_end")
    step = f"{search['sigma']:g}" + ("" if end is None else f", lowered to {end:g} in {search['generations']}")
    expected = "yes" if "expected" in config["namm"]["features"] else "no"
    return f"{config['name']}, {config['seed']}", expected, str(config["tasks"]["pool"]), step


def _validations(folder: Path) -> dict[int, float]:
    """The fitness of the mean on validation prompts, by generation."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text("utf-8").splitlines())
    return {line["step"]: line["validation"] for line in lines if "validation" in line}
