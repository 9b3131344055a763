"""Lines of an evaluation on another host -> rows: each policy at each budget, beside the full cache and the NAMM.

Differences are paired by units; all 95% intervals come from one bootstrap over units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...results.namm.rows import ALLOCATED, FULL
from ...results.store.environment import commit
from ...results.store.rows import Row
from ..config.eviction.universal_eval import UniversalEvalConfig
from ..metrics.bootstrap import Array, Bootstrap
from ..metrics.estimates import Estimate
from ..other_hosts.measured import Measured, PolicyHost
from .policies import Line, lines

_ALL = "all"


def universal_rows(
    config: UniversalEvalConfig, results: Sequence[Mapping[str, Any]], host: PolicyHost, run: str
) -> list[Row]:
    """Make the rows of an evaluation.

    Args:
        config: The evaluation.
        results: The lines of units.jsonl, one for each line of the table and batch of units.
        host: What was measured.
        run: The run's name.

    Returns:
        The rows: scores, what is held, differences to the full cache and of NAMMs to rivals, and what is kept by kind
        of token and by layer.
    """
    return list(_Rows(config, results, host, run).all())


class _Rows:
    def __init__(
        self, config: UniversalEvalConfig, results: Sequence[Mapping[str, Any]], host: PolicyHost, run: str
    ) -> None:
        self.config, self.host = config, host
        self.measured: dict[tuple[str, float | None], list[Measured]] = {}
        for line in results:
            found = self.measured.setdefault((line["variant"], line["budget"]), [])
            found += [Measured.of_line(one) for one in line["units"]]
        self.boot = Bootstrap([_ALL] * config.units, resamples=config.resamples, seed=config.seed)
        self.common: dict[str, Any] = dict(
            run=run, experiment=run, kind=host.kind, model=host.name, device=host.device, seed=host.seed,
            dataset=host.unit, parameters_total=host.parameters, commit=commit(),
        )  # fmt: skip
        self.lines = [line for line in lines(config) if line.key in self.measured]
        self.full = self.lines[0]
        assert self.full.variant == FULL, self.full

    def all(self) -> Iterator[Row]:
        for line in self.lines:
            yield from self._own(line)
            if line is not self.full:
                yield from self._minus_full(line)
            if self._is_namm(line):
                yield from self._over_rivals(line)
            yield from self._kept(line)

    def _is_namm(self, line: Line) -> bool:
        labels = {one.label: one for one in self.config.namms}
        return line.variant.removesuffix(ALLOCATED.get(line.allocation, "")) in labels

    def _scores(self, line: Line, metric: str) -> Array:
        return np.array([one.scores[metric] for one in self.measured[line.key]], dtype=np.float64)

    def _own(self, line: Line) -> Iterator[Row]:
        for metric in self.host.metrics:
            yield self._row(line, metric, self.boot.mean(self._scores(line, metric)))
        yield self._row(line, "held", self.boot.mean(self._figure(line, lambda one: 100 * one.held)))
        yield self._row(line, "kv_bytes", self.boot.mean(self._figure(line, lambda one: float(one.kv_bytes))))

    def _figure(self, line: Line, of: Any) -> Array:
        return np.array([of(one) for one in self.measured[line.key]], dtype=np.float64)

    def _minus_full(self, line: Line) -> Iterator[Row]:
        for metric in self.host.metrics:
            difference = self._scores(line, metric) - self._scores(self.full, metric)
            yield self._row(line, f"{metric}_minus_full", self.boot.mean(difference))

    def _over_rivals(self, line: Line) -> Iterator[Row]:
        """A NAMM's scores less those of each rival under the same budget and allocation, and of the best of all."""
        rivals = [one for one in self.lines if one.budget == line.budget and not self._is_namm(one)]
        for metric in self.host.metrics:
            own = self._scores(line, metric)
            over = {one.variant: self.boot.mean(own - self._scores(one, metric)) for one in rivals}
            for variant, estimate in over.items():
                yield self._row(line, f"{metric}_over", estimate, rival=variant)
            if over:
                best = min(over, key=lambda variant: over[variant].value)
                yield self._row(line, f"{metric}_over_best_rival", over[best], rival=best)

    def _kept(self, line: Line) -> Iterator[Row]:
        """What is held of each layer, and of each kind of token, by layer and in all: percent."""
        measured = self.measured[line.key]
        layers = 100 * np.array([one.layers for one in measured])
        for layer in range(layers.shape[1]):
            yield self._row(line, "kept_layer", self.boot.mean(layers[:, layer]), layer=layer)
        for kind in measured[0].kinds:
            counts = np.array([one.kinds[kind] for one in measured], dtype=np.float64)  # [units, layers, 2]
            if not counts[..., 1].any():
                continue
            yield self._row(line, "kept_kind", self._share(counts.sum(1)), token_kind=kind)
            for layer in range(counts.shape[1]):
                yield self._row(line, "kept_kind", self._share(counts[:, layer]), token_kind=kind, layer=layer)

    def _share(self, counts: Array) -> Estimate:
        """Percent of pairs that are kept of those there were, over all units: a ratio of sums."""
        found = self.boot.ratio(counts[:, 0], counts[:, 1])
        assert found is not None
        stderr = None if found.stderr is None else 100 * found.stderr
        return Estimate(100 * found.value, found.n, stderr, 100 * found.low, 100 * found.high)

    def _row(self, line: Line, metric: str, estimate: Estimate, **more: Any) -> Row:
        by_label = {one.label: one for one in self.config.namms}
        source = by_label.get(line.variant.removesuffix(ALLOCATED.get(line.allocation, "")))
        extra: dict[str, Any] = {
            "budget": line.budget,
            "size": "budget" if line.budget is not None else "",
            "allocation": line.allocation,
            "mode": self.config.mode,
            "every": self.config.every,
            "evolved_on": source.evolved_on if source else "",
            **more,
        }
        return Row(**self.common, variant=line.variant, metric=metric, **estimate._asdict(), **extra)
