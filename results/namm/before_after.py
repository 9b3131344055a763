"""What training changed: likelihoods of answers at each cache size before and after, of trained models of any seed.

The rows are those of `memx eval-namm --before`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from ...errors import MemxError, nearest
from ..labels import Table, with_interval
from ..selection import Drawn, PlotRequest
from ..store.rows import Row
from ..style import caption_below, new_figure
from .curves import Curve
from .looks import evaluation_caption, looks_of, policy_label
from .rows import DATASETS, FULL, datasets_of, evaluated, is_namm, package_of, prompts_of, size_label, size_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEFORE, AFTER, CHANGE = "relative_before", "relative_to_before", "relative_over_before"


class Change(NamedTuple):
    """A policy at a size on one set of tasks: rows of every trained model, and its share of the cache in percent."""

    dataset: str
    policy: str
    size: str
    share: float
    before: list[Row]
    after: list[Row]
    change: list[Row]


def draw(request: PlotRequest) -> Drawn:
    """Draw likelihoods before and after training by cache size, with the table.

    Raises MemxError if no evaluation was compared with one from before, or for an unknown policy.
    """
    rows = evaluated(
        request,
        lambda row: row.metric in (BEFORE, AFTER, CHANGE) and row.dataset in DATASETS,
        "comparisons with a model before training (memx eval-namm --before)",
    )
    found = _chosen(changes(rows), request.options.policies)
    return Drawn(request.write(before_after_figure(rows, found), rows), before_after_table(found))


def changes(rows: Iterable[Row]) -> list[Change]:
    """Collect the rows of each policy and size, the largest size first.

    Args:
        rows: Rows of evaluations with --before, one of each trained model.

    Returns:
        What changed: of the full cache, a policy at 100%, then of NAMMs, then of others.
    """
    rows = [row for row in rows if row.metric in (BEFORE, AFTER, CHANGE)]
    groups: dict[tuple[str, str, str], dict[str, list[Row]]] = {}
    for row in rows:
        of_point = groups.setdefault((row.dataset, row.variant, size_of(row)), {BEFORE: [], AFTER: [], CHANGE: []})
        of_point[row.metric].append(row)
    found = []
    for (dataset, policy, size), by_metric in groups.items():
        budget = by_metric[AFTER][0].labels.budget
        share = 100.0 if policy == FULL else 100 * budget if budget is not None and budget <= 1 else None
        if share is not None:
            found.append(Change(dataset, policy, size, share, *by_metric.values()))
    shown = datasets_of(rows)
    kept = [one for one in found if one.dataset in shown]

    def order(one: Change) -> tuple[int, bool, bool, str, float]:
        return shown.index(one.dataset), one.policy != FULL, not is_namm(one.policy), one.policy, -one.share

    return sorted(kept, key=order)


def _chosen(found: list[Change], policies: Sequence[str]) -> list[Change]:
    """Those of named policies and of the full cache; without names all NAMMs, or all policies if there is none."""
    known = list(dict.fromkeys(one.policy for one in found if one.policy != FULL))
    for name in policies:
        if name not in known:
            raise MemxError(f"--policies: no policy {name!r} here", hint=nearest(name, known) or f"use {known[0]}")
    wanted = policies or [name for name in known if is_namm(name)] or known
    return [one for one in found if one.policy in (*wanted, FULL)]


def before_after_figure(rows: Sequence[Row], found: Sequence[Change]) -> Figure:
    """Draw a panel for each set of tasks: dashed before, solid after, thin lines for each of several trained models."""
    datasets = list(dict.fromkeys(one.dataset for one in found))
    figure, axes = new_figure(len(datasets), 4.0, sharey="row")
    if len(axes) == 1:
        figure.set_figwidth(8.4)
    for axis, dataset in zip(axes, datasets, strict=True):
        _panel(axis, [one for one in found if one.dataset == dataset])
        axis.set_title(DATASETS[dataset].capitalize())
    axes[0].set_ylabel("likelihood per token, full cache before = 1\n(capped at 1 per answer)")
    models = len({row.run for row in rows})
    about = f"{models} trained models (thin lines)" if models > 1 else "95% CI over prompts"
    caption_below(figure, f"{evaluation_caption(rows)}\n{prompts_of(rows)} · {about}", axes)
    return figure


def _panel(axis: Axes, found: Sequence[Change]) -> None:
    policies = list(dict.fromkeys(one.policy for one in found if one.policy != FULL))
    looks = looks_of(Curve(policy, package_of(policy), [], [], []) for policy in policies)
    for policy in policies:
        look, label = looks[policy], policy_label(policy, policies)
        points = [one for one in found if one.policy in (policy, FULL)]
        points.sort(key=lambda one: one.share)
        shares = [one.share for one in points]
        before = [fmean(row.value for row in one.before) for one in points]
        after = [fmean(row.value for row in one.after) for one in points]
        axis.plot(
            shares, before, color=look.colour, linestyle="--", marker="o", fillstyle="none", label=f"{label}, before"
        )
        axis.plot(shares, after, color=look.colour, marker=look.marker, linewidth=2.2, label=f"{label}, after")
        if max(len(one.after) for one in points) > 1:
            for number in range(min(len(one.after) for one in points)):
                values = [one.after[number].value for one in points]
                axis.plot(shares, values, color=look.colour, linewidth=0.8, alpha=0.5)
        else:
            lows, highs = ([getattr(one.after[0], end) for one in points] for end in ("low", "high"))
            axis.fill_between(shares, lows, highs, color=look.colour, alpha=0.15, linewidth=0)
    axis.set_xscale("log", base=2)
    ticks = sorted({one.share for one in found})
    axis.set_xticks(ticks, [f"{tick:g}%" for tick in ticks])
    axis.set_xlabel("share of the cache kept (log scale)")
    axis.set_ylim(0, 1.04)


def before_after_table(found: Sequence[Change]) -> Table:
    """Means over trained models, and the paired change with the widest reach of their intervals."""
    policies = list(dict.fromkeys(one.policy for one in found))
    columns = ["tasks", "policy", "size", "before", "after", "change", "models", "prompts"]
    table = Table("Likelihood before and after training (full cache before: 1)", columns, [], [], left=3)
    for one in found:
        before, after, value = (fmean(row.value for row in rows) for rows in (one.before, one.after, one.change))
        lows, highs = (
            [end for row in one.change if (end := getattr(row, name)) is not None] for name in ("low", "high")
        )
        low, high = min(lows, default=None), max(highs, default=None)
        count = len(one.change)
        table.lines.append(
            [DATASETS[one.dataset], policy_label(one.policy, policies), size_label(one.size), f"{before:.3f}",
             f"{after:.3f}", with_interval(value, low, high, 3, "+"), str(count), str(one.change[0].n)]
        )  # fmt: skip
        fact = {"dataset": one.dataset, "policy": one.policy, "size": one.size, "before": before, "after": after}
        table.facts.append(fact | {"change": value, "low": low, "high": high, "models": count})
    return table
