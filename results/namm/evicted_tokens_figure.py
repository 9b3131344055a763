"""What a NAMM forgets: the share of each kind of token that is dropped, in code and in prose, and how long runs are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..labels import drawn
from ..selection import Drawn, PlotRequest
from ..store.rows import Row
from ..style import caption_below, new_figure
from .curves import Curve
from .evicted_tokens import METRICS, TEXTS, Text, chance_of, choose_size, evicted_tokens_table, texts_of
from .looks import Look, evaluation_caption, looks_of, policy_label
from .rows import at_size, evaluated, in_order, is_namm, prepared, size_label, size_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(request: PlotRequest) -> Drawn:
    """Draw what kinds of token a NAMM evicts, at a budget or at its own size, with the table."""
    rows = evaluated(request, lambda row: row.metric in METRICS and bool(row.labels.token_text), "evicted tokens")
    drawn = choose_size(prepared(rows), request.options.budget, request.log)
    texts = texts_of(drawn)
    return Drawn(request.write(evicted_tokens_figure(drawn, texts), rows), evicted_tokens_table(texts))


def evicted_tokens_figure(rows: Sequence[Row], texts: Sequence[Text]) -> Figure:
    """Draw for each sort of text bars by kind of token, the most dropped on top, and below them lengths of runs."""
    from matplotlib.gridspec import GridSpec

    names = list(dict.fromkeys(one.text for one in texts))
    most = max(len(one.kinds) for one in texts)
    namms = list(dict.fromkeys(one.policy for one in texts if is_namm(one.policy)))
    height = 0.9 + most * (0.3 + 0.12 * (len(namms) - 1))
    figure, old = new_figure(len(names), height + 1.6 + 0.17 * len(texts) / len(names))
    for axis in old:
        axis.remove()
    rows_below = max(sum(one.text == name for one in texts) for name in names)
    grid = GridSpec(2, len(names), figure, height_ratios=(height, 0.3 + 0.17 * max(2, rows_below)))
    looks = looks_of(Curve(one.policy, "memx", [], [], []) for one in texts)
    uppers = [figure.add_subplot(grid[0, column]) for column in range(len(names))]
    lowers = [figure.add_subplot(grid[1, column]) for column in range(len(names))]
    longest = max((one.run for one in texts if one.run), default=1.0)
    for text, upper, lower in zip(names, uppers, lowers, strict=True):
        of_text = [one for one in texts if one.text == text]
        _kinds(upper, of_text, looks)
        upper.set_title(TEXTS.get(text, text))
        _runs(lower, [one for one in of_text if one.run is not None], looks, longest)
    intervals = any(kind.low != kind.high for one in texts for kind in one.kinds)
    count = max(row.n for row in rows)
    documents = f"{count} document{'s' if count > 1 else ''} per text type"
    sizes = in_order(size_of(row) for row in rows)
    size = at_size(sizes[0]) if len(sizes) == 1 else "at the NAMMs' own cache sizes"
    notes = [f"{size}, mean over heads and layers", documents, *(["thin lines: 95% CI"] if intervals else [])]
    caption_below(figure, f"{evaluation_caption(rows)}\n{' · '.join(notes)}", uppers)
    return figure


def _kinds(axis: Axes, texts: Sequence[Text], looks: dict[str, Look]) -> None:
    """A bar for each kind, the most dropped by the first NAMM on top; others beside it."""
    namms = [one for one in texts if is_namm(one.policy)]
    order = [kind.name for kind in namms[0].kinds]
    thick = 0.76 / len(namms)
    for number, one in enumerate(namms):
        middle = thick * (number - (len(namms) - 1) / 2)
        _bars(axis, one, chance_of(texts, one), [(order.index(kind.name) + middle) for kind in one.kinds], thick, looks)
    shares = {kind.name: kind.share for kind in namms[0].kinds}
    axis.set_yticks(range(len(order)), [f"{name}  ({_percent(shares[name])})" for name in order])
    axis.set_ylim(len(order) - 0.4, -0.6)
    axis.set_xlim(0, 108)
    axis.set_xticks(range(0, 101, 20), [f"{share}%" for share in range(0, 101, 20)])
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("evicted tokens (in brackets: share of all tokens)")


def _bars(
    axis: Axes, one: Text, chance: Text | None, places: Sequence[float], thick: float, looks: dict[str, Look]
) -> None:
    """A NAMM's bars; the mean of all tokens as a line, random dropping as ticks across the bars."""
    look = looks[one.policy]
    axis.barh(
        places, [kind.dropped for kind in one.kinds], height=0.92 * thick, color=look.colour, alpha=0.8, zorder=2,
        label=policy_label(one.policy, looks),
    )  # fmt: skip
    axis.axvline(one.mean, color=look.ink, linestyle="--", linewidth=1.1, zorder=3, label="mean of all tokens")
    by_lot = {kind.name: kind.dropped for kind in chance.kinds} if chance else {}
    for kind, place in zip(one.kinds, places, strict=True):
        if kind.low is not None and kind.high is not None:
            axis.plot([kind.low, kind.high], [place] * 2, color="0.15", linewidth=1, zorder=4)
        axis.annotate(
            f"{kind.dropped:.0f}%", (1, place), (4, 0), xycoords=axis.get_yaxis_transform(), textcoords="offset points",
            va="center", fontsize=8, annotation_clip=False,
        )  # fmt: skip
    ticks = [(by_lot[kind.name], place) for kind, place in zip(one.kinds, places, strict=True) if kind.name in by_lot]
    if ticks:
        axis.plot(
            [tick for tick, _ in ticks], [place for _, place in ticks], "|", color="black", markersize=22 * thick,
            markeredgewidth=1.4, zorder=5, label="random eviction at the same cache size",
        )  # fmt: skip


def _runs(axis: Axes, texts: Sequence[Text], looks: dict[str, Look], longest: float) -> None:
    """The mean length of runs of dropped tokens, the NAMM's over that of chance."""
    lengths = [one.run or 0.0 for one in texts]
    axis.barh(range(len(texts)), lengths, height=0.6, color=[looks[one.policy].colour for one in texts], alpha=0.8)
    for place, length in enumerate(lengths):
        axis.annotate(f"{length:.1f}", (length, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_yticks(range(len(texts)), [drawn(_run_label(one, texts, looks)) for one in texts])
    axis.set_ylim(len(texts) - 0.4, -0.6)
    axis.set_xlim(0, 1.12 * longest)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("mean length of evicted spans (tokens)")


def _run_label(one: Text, texts: Sequence[Text], looks: dict[str, Look]) -> str:
    """A policy's name; of random dropping at several sizes, with the size."""
    several = sum(other.policy == one.policy for other in texts) > 1
    return f"{policy_label(one.policy, looks)}{f', {size_label(one.size)}' if several else ''}"


def _percent(share: float) -> str:
    return f"{share:.0f}%" if share >= 1 else f"{share:.1g}%"
