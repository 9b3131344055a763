"""`memx plot universal`: scores by the share of the cache, one panel for each host, with the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..labels import Table, drawn, with_interval
from ..namm.curves import Curve
from ..namm.looks import Look, looks_of, policy_label
from ..namm.rows import FULL, is_namm
from ..selection import Drawn, PlotRequest
from ..store.rows import Row
from ..style import caption_below, new_figure
from .rows import LABELS, Cell, Key, budgets_of, by_host, cells, evaluated, main_metric, policies_of, size_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(request: PlotRequest) -> Drawn:
    """Draw the score of every policy by its budget, of each host the mean over its seeds, with the table."""
    hosts = by_host(evaluated(request))
    return Drawn(
        request.write(universal_figure(hosts), [row for rows in hosts.values() for row in rows]), universal_table(hosts)
    )


def universal_figure(hosts: Mapping[str, Sequence[Row]]) -> Figure:
    """Draw a panel for each host."""
    figure, axes = new_figure(len(hosts), 5.4)
    if len(hosts) == 1:
        figure.set_figwidth(9.5)  # room for the legend
    names = list(dict.fromkeys(name for rows in hosts.values() for name in policies_of(rows)))
    looks = looks_of(Curve(name, "memx", [], [], []) for name in names)
    for axis, (host, rows) in zip(axes, hosts.items(), strict=True):
        _panel(axis, rows, looks, names)
        axis.set_title(drawn(host))
    caption_below(figure, _caption(hosts), axes)
    return figure


def _panel(axis: Axes, rows: Sequence[Row], looks: Mapping[str, Look], names: Sequence[str]) -> None:
    metric = main_metric(rows)
    found = cells(rows, metric)
    full = found[FULL, None]
    axis.axhline(full.value, color="black", linewidth=1, label="full cache")
    axis.axhspan(full.low, full.high, color="0.92", zorder=0)
    for name in policies_of(rows):
        look = looks[name]
        points = [(100 * budget, found[name, budget]) for budget in budgets_of(rows) if (name, budget) in found]
        xs, ys = [x for x, _ in points], [cell.value for _, cell in points]
        errors = [[cell.value - cell.low for _, cell in points], [cell.high - cell.value for _, cell in points]]
        label, width = policy_label(name, names), 2.2 if look.strong else 1.1
        axis.errorbar(
            xs, ys, yerr=errors if look.strong else None, color=look.colour, marker=look.marker, linestyle=look.line,
            linewidth=width, markersize=6 if look.strong else 4, zorder=4 if look.strong else 3, label=label, capsize=2,
        )  # fmt: skip
    axis.set_xlabel("share of the cache kept (%)")
    axis.set_ylabel(LABELS.get(metric, metric))
    axis.set_xlim(105, 0)


def _caption(hosts: Mapping[str, Sequence[Row]]) -> str:
    parts = []
    for host, rows in hosts.items():
        full = cells(rows, main_metric(rows))[FULL, None]
        seeds = len(full.values)
        count = f"{seeds} seed{'s' if seeds > 1 else ''} of the host"
        parts.append(f"{drawn(host)}: {full.n:,} {rows[0].dataset}, {count}")
    return " · ".join([*parts, "95% CI over units"])


def universal_table(hosts: Mapping[str, Sequence[Row]]) -> Table:
    """The scores of every policy at each budget, and what NAMMs lose and gain."""
    lines, facts = [], []
    for host, rows in hosts.items():
        metric = main_metric(rows)
        scores, lost = cells(rows, metric), cells(rows, f"{metric}_minus_full")
        held = cells(rows, "held")
        for (name, budget), cell in scores.items():
            key: Key = name, budget
            lines.append(
                [
                    host,
                    name,
                    size_text(budget),
                    _written(cell),
                    _written(lost[key], "+") if key in lost else "",
                    f"{held[key].value:.1f}%",
                ]
            )
            facts.append(
                {"host": host, "policy": name, "budget": budget, "metric": metric, **cell._asdict()}
                | {"namm": is_namm(name), "held": held[key].value}
            )
    columns = ["host", "policy", "budget", "score", "minus full cache", "cache held"]
    return Table("Scores by cache size, means over seeds of the host (95% CI over units)", columns, lines, facts, 3, 3)


def _written(cell: Cell, sign: str = "") -> str:
    return with_interval(cell.value, cell.low, cell.high, 1, sign)
