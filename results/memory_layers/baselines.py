"""Rows of models of several kinds -> for each base: dense models, memories, and the compute that each is worth.

A memory model is worth n times its compute if a dense model needs n times its FLOPs to be as accurate.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf, log
from statistics import median
from typing import Any, NamedTuple

from ...errors import MemxError
from ..labels import Table, score_of, short
from ..store.rows import Row
from ..style import KIND_LABELS
from ..summary import TIER_LABELS, Summary, summarize

METRICS = ("exact_match", "nll", "chance_exact_match")


class Worth(NamedTuple):
    """How many times a model's FLOPs the dense line needs for its accuracy.

    times is 0 below the smallest dense model and inf above the largest; bound is then the ratio that was measured.
    """

    times: float
    bound: float

    def __str__(self) -> str:
        if self.times == 0:
            return f"<{self.bound:.2g}x"
        return f">{self.bound:.3g}x" if self.times == inf else f"{self.times:.2g}x"


class Base(NamedTuple):
    """The models of one base: dense ones by FLOPs, the rest by kind and then by total parameters."""

    name: str
    dense: list[Summary]
    kinds: dict[str, list[Summary]]
    chance: float | None

    @property
    def models(self) -> list[Summary]:
        """All models, dense ones first."""
        return [*self.dense, *(s for points in self.kinds.values() for s in points)]

    @property
    def reference(self) -> Summary | None:
        """The dense model of 1x: that whose FLOPs are nearest to those of the memories."""
        if not self.dense:
            return None
        flops = [s.flops or 1 for points in self.kinds.values() for s in points] or [self.dense[0].flops or 1]
        return min(self.dense, key=lambda s: abs(log((s.flops or 1) / median(flops))))

    def best(self) -> dict[str, Summary]:
        """The most accurate model of each kind."""
        return {kind: max(points, key=lambda s: s.value) for kind, points in self.kinds.items()}

    def worth(self, accuracy: float, flops: int | None) -> Worth | None:
        """What an accuracy at so many FLOPs is worth; None without a dense model."""
        if not self.dense or not flops:
            return None
        return dense_worth([(s.flops or 1, s.value) for s in self.dense], accuracy, flops)


def dense_worth(dense: Sequence[tuple[int, float]], accuracy: float, flops: int) -> Worth:
    """Where the dense line, linear in log FLOPs between its points, first reaches an accuracy, over a model's FLOPs."""
    line = sorted(dense)
    if accuracy < line[0][1]:
        return Worth(0.0, line[0][0] / flops)
    below, start = line[0]
    for above, end in line:
        if end >= accuracy:
            share = (accuracy - start) / (end - start) if end > start else 0.0
            return Worth(exp(log(below) + share * log(above / below)) / flops, 0.0)
        below, start = above, end
    return Worth(inf, line[-1][0] / flops)


def bases_of(rows: Sequence[Row], tier: str) -> list[Base]:
    """The bases of rows at a tier, smallest first. Raises MemxError if there is nothing to compare."""
    found = [s for s in summarize(rows) if s.dataset == tier]
    points = [s for s in found if s.metric == "exact_match"]
    if not {s.kind for s in points} - {"dense"}:
        raise MemxError(
            f"no memory model here was evaluated on the {tier} questions",
            hint="train memory models and baselines with `memx train rivals`",
        )
    if not all(s.flops and s.parameters_total for s in points):
        raise MemxError("some rows have no parameter count or FLOPs", hint="use rows written by `memx train`")
    bases = []
    for name in dict.fromkeys(s.model for s in points):
        here = sorted((s for s in points if s.model == name), key=lambda s: (s.parameters_total or 0, s.variant))
        dense = sorted((s for s in here if s.kind == "dense"), key=lambda s: s.flops or 0)
        kinds = {k: [s for s in here if s.kind == k] for k in KIND_LABELS if any(s.kind == k for s in here)}
        chance = [s.value for s in found if s.model == name and s.metric == "chance_exact_match"]
        bases.append(Base(name, dense, kinds, sum(chance) / len(chance) if chance else None))
    return sorted(bases, key=lambda base: min(s.flops or 0 for s in base.models))


def baselines_table(bases: Sequence[Base], tier: str) -> Table:
    """The best model of each kind on each base: accuracy, gain over the dense model of 1x, and the compute it is worth.

    The range of n is that of the model's own interval; the dense line is taken at its means.
    """
    several = len(bases) > 1
    columns = [*(["base"] if several else []), "best of each kind", "params", "FLOPs", "EM %", "points over dense"]
    table = Table(
        f"Dense compute that matches each memory model ({TIER_LABELS[tier]})",
        [*columns, "x dense compute", "95% CI"],
        [],
        [],
        left=2 if several else 1,
    )
    for base in bases:
        reference = base.reference
        for kind, s in base.best().items():
            gain = s.value - reference.value if reference else None
            worths = [base.worth(value, s.flops) for value in (s.value, s.low, s.high)]
            said = [str(worth) if worth else "no dense" for worth in worths]
            line = [label(s), short(s.parameters_total or 0, 1000), short(s.flops or 0, 1000)]
            line += [score_of(s, 1), "" if gain is None else f"{gain:+.1f}"]
            beyond = " (above the largest measured)" if worths[0] and worths[0].times == inf else ""
            spread = f"{said[1]} to {said[2]}" if base.dense and s.high > s.low else ""
            table.lines.append([*([base.name] if several else []), *line, said[0] + beyond, spread])
            table.facts.append(_fact(base.name, kind, s, gain, worths, said))
    return table


def label(s: Summary) -> str:
    """A model's name: its variant, or its kind and slots."""
    return s.variant or " ".join(
        [KIND_LABELS.get(s.kind, s.kind), *([f"{s.memory_slots:,}"] if s.memory_slots else [])]
    )


def _fact(
    base: str, kind: str, s: Summary, gain: float | None, worths: Sequence[Worth | None], said: Sequence[str]
) -> dict[str, Any]:
    times = worths[0].times if worths[0] and 0 < worths[0].times < inf else None
    return {
        "base": base, "kind": kind, "variant": s.variant, "memory_slots": s.memory_slots,
        "parameters_total": s.parameters_total, "flops": s.flops, "exact_match": s.value, "low": s.low, "high": s.high,
        "gain": gain, "times_compute": times, "times_said": said[0], "times_range": list(said[1:]),
    }  # fmt: skip
