"""Published curves to hold beside one's own: Berges et al. 2024, "Memory Layers at Scale", Table 1."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

TITLES = {("nq", "exact_match"): "NQ exact match", ("tqa", "f1"): "TQA F1"}


class PublishedPoint(NamedTuple):
    """One published value: a base (134m, 373m, 1.3b, …), what memory it had, and what was measured."""

    base: str
    model: str
    memory_slots: int | None
    total_parameters: float | None
    dataset: str
    metric: str
    value: float


def published_points() -> list[PublishedPoint]:
    """Every published value that ships with memx."""
    text = (Path(__file__).parent / "published" / "memory_layers_at_scale.csv").read_text("utf-8")
    return [
        PublishedPoint(
            row["base"],
            row["model"],
            int(row["memory_slots"]) if row["memory_slots"] else None,
            float(row["total_parameters"]) if row["total_parameters"] else None,
            row["dataset"],
            row["metric"],
            float(row["value"]),
        )
        for row in csv.DictReader(text.splitlines())
    ]


def published_total(base: str, kind: str, slots: int) -> float | None:
    """The published parameter total of a base and a kind of memory of that many slots; None if there is none."""
    for point in published_points():
        name = point.model.removesuffix("-1T")
        if (point.base, name, point.memory_slots or 0) == (base, kind, slots) and point.total_parameters:
            return point.total_parameters
    return None


def published_curves() -> dict[tuple[str, str], list[PublishedPoint]]:
    """(base, title) -> its dense model and its Memory+ models by slots, for the bases that have both."""
    curves: dict[tuple[str, str], list[PublishedPoint]] = {}
    for point in published_points():
        title = TITLES.get((point.dataset, point.metric))
        if title and point.model in ("dense", "memory+") and point.memory_slots is not None:
            curves.setdefault((point.base, title), []).append(point)
    return {
        key: sorted(points, key=lambda point: point.memory_slots or 0)
        for key, points in curves.items()
        if {"dense", "memory+"} <= {point.model for point in points}
    }


class PublishedAblation(NamedTuple):
    """Losses of one variant on the 373M base: in training, and of the answers of NQ and TQA (nats)."""

    train_nll: float
    nq_nll: float
    tqa_nll: float


def published_ablations() -> dict[str, PublishedAblation]:
    """The ablations of Berges et al. 2024 on the 373M base, by variant.

    One layer; three layers (blocks 4, 12, 20) and six (5, 8, 11, 14, 17, 21) that share one table; one gated layer.
    """
    text = (Path(__file__).parent / "published" / "memory_layers_ablations.csv").read_text("utf-8")
    return {
        row["variant"]: PublishedAblation(float(row["train_nll"]), float(row["nq_nll"]), float(row["tqa_nll"]))
        for row in csv.DictReader(text.splitlines())
    }
