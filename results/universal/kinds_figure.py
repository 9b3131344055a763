"""`memx plot forgotten`: which kinds of tokens NAMMs and their rivals keep on other hosts, in all and by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...errors import MemxError
from ..labels import Table, drawn, with_interval
from ..namm.rows import FULL, is_namm
from ..selection import Drawn, PlotRequest
from ..store.rows import Row
from ..style import CYCLE, caption_below, new_figure
from .rows import budgets_of, by_host, cells, evaluated, policies_of, size_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(request: PlotRequest) -> Drawn:
    """Draw the share of each kind of token that each NAMM keeps, by layer, at one budget, with the table of all."""
    hosts = by_host(evaluated(request))
    hosts = {host: rows for host, rows in hosts.items() if any(row.metric == "kept_kind" for row in rows)}
    if not hosts:
        raise MemxError("these evaluations say nothing of kinds of tokens", hint="evaluate again with memx eval-namm")
    asked = request.options.budget
    for host, rows in hosts.items():
        if asked is not None and asked not in budgets_of(rows):
            known = ", ".join(f"{budget:g}" for budget in budgets_of(rows))
            raise MemxError(f"--budget {asked:g}: {host} was not evaluated at it", hint=f"use one of {known}")
    figure = forgotten_figure(hosts, asked)
    drawn_rows = [row for rows in hosts.values() for row in rows if row.metric == "kept_kind"]
    return Drawn(request.write(figure, drawn_rows), forgotten_table(hosts))


def forgotten_figure(hosts: dict[str, list[Row]], budget: float | None) -> Figure:
    """Draw a panel for each host and NAMM: the share kept of each kind, by layer; the dashed line is all tokens'."""
    panels = [
        (host, name, budget if budget is not None else budgets_of(rows)[-1])
        for host, rows in hosts.items()
        for name in (list(filter(is_namm, policies_of(rows))) or policies_of(rows)[:1])
    ]
    figure, axes = new_figure(len(panels), 4.2)
    for axis, (host, name, at) in zip(axes, panels, strict=True):
        _panel(axis, hosts[host], name, at)
        axis.set_title(f"{drawn(name)}, {size_text(at)}")
        axis.set_xlabel(drawn(host))
    axes[0].set_ylabel("share of pairs of keys and values kept (%)")
    caption_below(figure, "by layer of the host; dashed: of all tokens of the layer", axes)
    return figure


def _panel(axis: Axes, rows: Sequence[Row], name: str, budget: float) -> None:
    layers = sorted({row.labels.layer for row in rows if row.labels.layer is not None and row.metric == "kept_kind"})
    for number, kind in enumerate(kinds_of(rows)):
        shares = [cells(rows, "kept_kind", kind=kind, layer=layer)[name, budget].value for layer in layers]
        axis.plot(layers, shares, marker="o", color=CYCLE[number % len(CYCLE)], label=kind)
    every = [cells(rows, "kept_layer", layer=layer)[name, budget].value for layer in layers]
    axis.plot(layers, every, "--", color="0.5", label="all tokens")
    axis.set_xticks(layers)
    axis.set_ylim(0, 102)


def kinds_of(rows: Sequence[Row]) -> list[str]:
    """The kinds of tokens of a host."""
    return list(dict.fromkeys(row.labels.token_kind for row in rows if row.metric == "kept_kind"))


def forgotten_table(hosts: dict[str, list[Row]]) -> Table:
    """The share of each kind of token that every policy keeps, over all layers."""
    lines, facts = [], []
    kinds = list(dict.fromkeys(kind for rows in hosts.values() for kind in kinds_of(rows)))
    for host, rows in hosts.items():
        by_kind = {kind: cells(rows, "kept_kind", kind=kind) for kind in kinds}
        for key in by_kind[kinds_of(rows)[0]]:
            if key[0] == FULL:
                continue
            found = {kind: of[key] for kind, of in by_kind.items() if key in of}
            written = [
                with_interval(found[kind].value, found[kind].low, found[kind].high, 1) if kind in found else ""
                for kind in kinds
            ]
            lines.append([host, key[0], size_text(key[1]), *written])
            facts.append({"host": host, "policy": key[0], "budget": key[1]} | {k: c.value for k, c in found.items()})
    columns = ["host", "policy", "budget", *kinds]
    return Table("Percent kept of each kind of token (95% CI over units)", columns, lines, facts, 3, 3)
