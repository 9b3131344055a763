"""Lines of an evaluation -> rows: each policy at each size, on each family, beside the full cache and the NAMM.

A mean over several families is the mean of their means. Differences are paired by prompts; their intervals and all
others but those of shares of a single family come from one bootstrap over prompts within families.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ...results.namm.rows import ALLOCATED, FULL, PER_HEAD, THRESHOLD, is_ceiling, package_of, split_allocation
from ...results.store.environment import commit
from ...results.store.rows import Row
from ..config.eviction.policy_eval import EvalConfig
from ..eviction.measurements import CacheSize, Measurements
from ..metrics.bootstrap import Array, Bootstrap
from ..metrics.estimates import Estimate, share_estimate

TRAINED, HELD_OUT = "trained", "held-out"
_BYTES = ("kv_bytes", "bookkeeping_bytes")


class Key(NamedTuple):
    """A line of the table: a policy at a size."""

    variant: str
    at: CacheSize


@dataclass(frozen=True)
class Sets:
    """The figures of N prompts.

    Attributes:
        families: The family of each prompt [N], such as trained/needles.
        figures: By line of the table, then by what was measured, arrays [N].
        layers: By line of the table, the share of the tokens in each layer [N, layers].
    """

    families: list[str]
    figures: dict[Key, dict[str, Array]]
    layers: dict[Key, Array]

    @classmethod
    def of(cls, config: EvalConfig, lines: Sequence[Mapping[str, Any]]) -> Sets:
        """Collect the figures of lines of prompts.jsonl.

        Args:
            config: The evaluation.
            lines: The lines of prompts, in any order.

        Returns:
            The figures, with prompts sorted by family and number.
        """
        order = {task: number for number, task in enumerate(config.tasks)}
        lines = sorted(lines, key=lambda line: (order[line["task"]], line["number"]))
        families = [f"{TRAINED if line['task'] in config.trained else HELD_OUT}/{line['task']}" for line in lines]
        names = ("log_likelihood", "exact", "kept", "held", *_BYTES, *(["score"] if config.write else []))
        figures: dict[Key, dict[str, list[float]]] = {}
        layers: dict[Key, list[list[float]]] = {}
        for line in lines:
            for measured in map(Measurements.from_line, line["facts"]):
                key = Key(measured.variant, measured.at)
                by_name = figures.setdefault(key, {name: [] for name in names})
                values = {**vars(measured), **vars(measured.cache)}
                for name in names:
                    by_name[name].append(np.nan if values[name] is None else float(values[name]))
                layers.setdefault(key, []).append(measured.cache.layers)
        arrays = {key: {name: np.array(v) for name, v in by_name.items()} for key, by_name in figures.items()}
        return cls(families, arrays, {key: np.array(shares) for key, shares in layers.items()})

    @property
    def datasets(self) -> dict[str, list[str]]:
        """What rows are about -> the families it is the mean of."""
        families = list(dict.fromkeys(self.families))
        datasets = {}
        for group in (TRAINED, HELD_OUT):
            members = [family for family in families if family.startswith(f"{group}/")]
            datasets |= {family: [family] for family in members} | ({f"{group}/all": members} if members else {})
        return {**datasets, "all/all": families}


class EvalReport:
    """Makes the rows of one line of the table after another.

    Args:
        config: The evaluation.
        lines: The lines of prompts.jsonl that are about prompts.
        run: The run's name.
        about: The fields of `Row` that are about the base model.
    """

    def __init__(
        self, config: EvalConfig, lines: Sequence[Mapping[str, Any]], *, run: str, about: Mapping[str, Any]
    ) -> None:
        self.config, self.sets = config, (sets := Sets.of(config, lines))
        self.common = dict(run=run, experiment=run, kind="eviction", commit=commit(), **about)
        self.bootstrap = Bootstrap(sets.families, resamples=config.resamples, seed=config.seed)
        suffixes = ("", PER_HEAD, THRESHOLD, *ALLOCATED.values())
        self.namms = {namm.label + suffix: namm for namm in config.namms for suffix in suffixes}
        self.full = sets.figures[Key(FULL, CacheSize(None))]

    def rows(self) -> list[Row]:
        """All rows on prompts."""
        return [row for key in self.sets.figures for row in self.of(key)]

    def of(self, key: Key) -> Iterator[Row]:
        """The rows of a line."""
        for dataset, families in self.sets.datasets.items():
            for metric, estimate in self._measured(key, dataset, families):
                yield self.row(key, dataset, metric, estimate)
            if key.variant in self.namms:
                if not key.variant.endswith(THRESHOLD):  # a threshold for reading keeps another share than its budget
                    yield from self._over_rivals(key, dataset, families)
                yield from self._over_first(key, dataset, families)
        share = 100 * self.sets.layers[key]
        if key.variant in self.namms or np.ptp(share, axis=1).max() > 0:  # under a budget layers are often alike
            for layer, figures in enumerate(share.T):
                yield self.row(key, "all/all", "kept_layer", self.bootstrap.mean(figures), layer=layer)

    def _measured(self, key: Key, dataset: str, families: Sequence[str]) -> Iterator[tuple[str, Estimate]]:
        """What a policy did by itself and beside the full cache."""
        own, full, boot = self.sets.figures[key], self.full, self.bootstrap
        lost = full["log_likelihood"] - own["log_likelihood"]
        yield "log_likelihood", boot.mean(own["log_likelihood"], families)
        yield "relative_log_likelihood", boot.mean(np.minimum(np.exp(-lost), 1), families)
        yield "lost_nats", boot.mean(lost, families)
        yield "log_likelihood_minus_full", boot.mean(-lost, families)
        yield "exact", self._exact(own["exact"], families)
        yield "exact_minus_full", boot.mean(100 * (own["exact"] - full["exact"]), families)
        if (ratio := boot.ratio(own["exact"], full["exact"], families)) is not None:
            yield "relative_exact", ratio
        yield "kept", boot.mean(100 * own["kept"], families)
        yield "held", boot.mean(100 * own["held"], families)
        if dataset.endswith("/all"):
            for name in _BYTES:
                yield name, boot.mean(own[name], families)
        if self.config.write:
            yield from self._scores(own["score"], families)

    def _exact(self, exact: Array, families: Sequence[str]) -> Estimate:
        """Percent; of a single family with Wilson's interval, which is sound at 0 and 100 too."""
        if len(families) == 1:
            return share_estimate(exact[self.bootstrap.groups[families[0]]].tolist())
        return self.bootstrap.mean(100 * exact, families)

    def _scores(self, own: Array, families: Sequence[str]) -> Iterator[tuple[str, Estimate]]:
        """Of families that have a score."""
        scored = [family for family in families if np.isfinite(own[self.bootstrap.groups[family]]).all()]
        if scored:
            yield "score", self.bootstrap.mean(100 * own, scored)
            if (ratio := self.bootstrap.ratio(own, self.full["score"], scored)) is not None:
                yield "relative_score", ratio

    def _over_rivals(self, key: Key, dataset: str, families: Sequence[str]) -> Iterator[Row]:
        """A NAMM's scores less those of each rival at the same size, and of the best of them.

        A policy that reads the context twice is no rival of those that read it once; differences to it are rows too.
        """
        own, rivals = self._compared(key), self._rivals(key)
        for metric in own:
            over = {
                rival.variant: self.bootstrap.mean(own[metric] - self._compared(rival)[metric], families)
                for rival in rivals
            }
            for rival, estimate in over.items():
                yield self.row(key, dataset, f"{metric}_over", estimate, rival=rival)
            if over := {rival: estimate for rival, estimate in over.items() if not is_ceiling(rival)}:
                best = min(over, key=lambda rival: over[rival].value)
                tied = [rival for rival, estimate in over.items() if estimate.value == over[best].value]
                name = best if len(tied) == 1 else f"{len(tied)} tied"
                yield self.row(key, dataset, f"{metric}_over_best_rival", over[best], rival=name)

    def _over_first(self, key: Key, dataset: str, families: Sequence[str]) -> Iterator[Row]:
        """A NAMM's scores less those of the first one, under the first of its allocations, at the same size."""
        named = self.config.namms[0]
        equal = PER_HEAD if named.budget is None else ""
        way = self.config.allocations_for(named.label)[0]
        first = Key(named.label + ALLOCATED.get(way, equal), key.at)
        if first in self.sets.figures and first != key and key.at.size == "budget" and dataset.endswith("/all"):
            own, before = self._compared(key), self._compared(first)
            for metric in own:
                difference = self.bootstrap.mean(own[metric] - before[metric], families)
                yield self.row(key, dataset, f"{metric}_over_first", difference, rival=first.variant)

    def _compared(self, key: Key) -> dict[str, Array]:
        """What is compared between policies, by metric: nats a token, the likelihood by the full cache's, percent."""
        own = self.sets.figures[key]
        beside = np.exp(own["log_likelihood"] - self.full["log_likelihood"])
        return {
            "log_likelihood": own["log_likelihood"],
            "relative_log_likelihood": np.minimum(beside, 1),
            "exact": 100 * own["exact"],
        }

    def _rivals(self, key: Key) -> list[Key]:
        """The policies that were given the same size as a NAMM's line."""
        at = replace(key.at, beside=key.variant if key.at.size == "own" else "")
        return [rival for rival in self.sets.figures if rival.variant not in (*self.namms, FULL) and rival.at == at]

    def row(self, key: Key, dataset: str, metric: str, estimate: Estimate, **more: Any) -> Row:
        """Make the row of one figure.

        Args:
            key: The line of the table.
            dataset: What the figure is about, such as trained/all.
            metric: What was measured.
            estimate: The figure.
            more: Further fields of the row.
        """
        config, namm = self.config, self.namms.get(key.variant)
        extra: dict[str, Any] = {
            "budget": key.at.budget,
            "size": key.at.size,
            "allocation": self._allocation(key),
            "mode": config.mode,
            "split": config.split,
            "question": config.question,
            "length": config.length,
            "every": config.every,
            "evolved_on": namm.evolved_on if namm else "",
            "package": package_of(key.variant),
            **({"beside": key.at.beside} if key.at.beside else {}),
            **more,
        }
        return Row(
            **self.common,
            variant=key.variant,
            dataset=dataset,
            metric=metric,
            seed=namm.seed if namm else 0,
            **estimate._asdict(),
            **extra,
        )

    def _allocation(self, key: Key) -> str:
        """How the heads of a line share its budget: by its name, or as a NAMM's threshold for each prompt does."""
        named, suffix = split_allocation(key.variant)
        if suffix or key.variant == FULL:
            return "equal" if suffix == PER_HEAD else suffix.strip()
        if is_ceiling(named) and package_of(named) == "kvpress":
            return "global"
        namm = self.namms.get(named)
        if namm is None or namm.budget is not None:
            return "equal"
        return "threshold" if key.at.size == "own" and namm.grouping == "per_head" else "layer_max"
