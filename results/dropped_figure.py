"""What a NAMM forgets: the share of each kind of token that is dropped, in code and in prose, and how long runs are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..errors import MemxError
from .bench_rows import extra
from .labels import Table
from .namm_curves import OWN, Curve, at_size, in_order, is_namm, size_label, size_of
from .namm_figure import evaluation_caption
from .policy_look import Look, looks_of, policy_label
from .rows import Row
from .style import caption_below, new_figure
from .summary import mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS = ("dropped", "dropped_run")
_TEXTS = {"code": "Python code", "prose": "English prose"}
_CHANCE = "random"


class Kind(NamedTuple):
    """A kind of token: its share of all tokens, and of it what is dropped, in percent; low, high: 95% interval."""

    name: str
    share: float
    dropped: float
    low: float | None
    high: float | None


class Text(NamedTuple):
    """A policy on a sort of text: kinds of token, the mean over all tokens, and the mean length of dropped runs."""

    text: str
    policy: str
    kinds: list[Kind]
    mean: float
    run: float | None


def choose_size(rows: Sequence[Row], budget: float | None, tell: Callable[[str], None]) -> list[Row]:
    """The rows of a budget, or of the NAMM's own size, or of the smallest cache if it has none.

    Raises MemxError if there is no such budget.
    """
    sizes = in_order(size_of(row) for row in rows if is_namm(row.variant))
    if not sizes:
        raise MemxError("no NAMM here says what it drops", hint="`memx eval-namm RUN` tells it of one")
    wanted = sizes[-1] if budget is None else f"{budget:g}"
    if wanted not in sizes:
        known = ", ".join(size for size in sizes if size != OWN) or "only the own size, without --budget"
        raise MemxError(f"--budget: no NAMM was evaluated at {wanted}", hint=f"there are: {known}")
    if others := [size_label(size) for size in sizes if size != wanted]:
        tell(f"drawn: {size_label(wanted)}; left out: {', '.join(others)} (--budget chooses)")
    return [row for row in rows if size_of(row) == wanted]


def texts_of(rows: Sequence[Row]) -> list[Text]:
    """What each policy drops of code and of prose, NAMMs first, of prepared rows of one size."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.dataset.partition("/")[2], row.variant), []).append(row)
    found = [_text(text, policy, group) for (text, policy), group in groups.items()]
    order = [*_TEXTS, *(text for text, _ in groups)]
    return sorted((one for one in found if one.kinds), key=lambda one: (order.index(one.text), not is_namm(one.policy)))


def _text(text: str, policy: str, rows: Sequence[Row]) -> Text:
    kinds = []
    for name in dict.fromkeys(str(extra(row, "token_kind")) for row in rows if row.metric == "dropped"):
        mine = [row for row in rows if row.metric == "dropped" and extra(row, "token_kind") == name]
        value, low, high = mean_interval([row.value for row in mine])
        if len(mine) == 1:
            low, high = mine[0].low, mine[0].high
        kinds.append(Kind(name, float(extra(mine[0], "share", 0.0)), value, low, high))
    total = sum(kind.share for kind in kinds)
    mean = sum(kind.share * kind.dropped for kind in kinds) / total if total else 0.0
    runs = [row.value for row in rows if row.metric == "dropped_run"]
    kinds.sort(key=lambda kind: -kind.dropped)
    return Text(text, policy, kinds, mean, sum(runs) / len(runs) if runs else None)


def dropped_figure(rows: Sequence[Row], texts: Sequence[Text]) -> Figure:
    """Draw for each sort of text bars by kind of token, the most dropped on top, and below them lengths of runs."""
    from matplotlib.gridspec import GridSpec

    names = list(dict.fromkeys(one.text for one in texts))
    most = max(len(one.kinds) for one in texts)
    namms = list(dict.fromkeys(one.policy for one in texts if is_namm(one.policy)))
    height = 0.9 + most * (0.3 + 0.12 * (len(namms) - 1))
    figure, old = new_figure(len(names), height + 1.9)
    for axis in old:
        axis.remove()
    grid = GridSpec(2, len(names), figure, height_ratios=(height, 0.45 + 0.22 * len(namms)))
    looks = looks_of(Curve(one.policy, "memx", [], None, []) for one in texts)
    uppers = [figure.add_subplot(grid[0, column]) for column in range(len(names))]
    lowers = [figure.add_subplot(grid[1, column]) for column in range(len(names))]
    longest = max((one.run for one in texts if one.run), default=1.0)
    for text, upper, lower in zip(names, uppers, lowers, strict=True):
        mine = [one for one in texts if one.text == text]
        _kinds(upper, [one for one in mine if is_namm(one.policy)], looks)
        _chance(upper, mine)
        upper.set_title(_TEXTS.get(text, text))
        _runs(lower, [one for one in mine if one.run is not None], looks, longest)
    bars = "; bars: 95% intervals" if any(kind.low is not None for one in texts for kind in one.kinds) else ""
    caption_below(
        figure, f"{evaluation_caption(rows)}\n{at_size(size_of(rows[0]))}, over heads and layers{bars}", uppers
    )
    return figure


def _kinds(axis: Axes, texts: Sequence[Text], looks: dict[str, Look]) -> None:
    """A bar for each kind, of each NAMM, with what it is of the text; the mean of all tokens as a line."""
    order = [kind.name for kind in texts[0].kinds]
    thick = 0.76 / len(texts)
    for number, one in enumerate(texts):
        look = looks[one.policy]
        kinds = [kind for kind in one.kinds if kind.name in order]
        places = [order.index(kind.name) + thick * (number - (len(texts) - 1) / 2) for kind in kinds]
        axis.barh(
            places, [kind.dropped for kind in kinds], height=0.92 * thick, color=look.colour, alpha=0.8, zorder=2,
            label=policy_label(one.policy, looks), gid=one.policy,
        )  # fmt: skip
        for kind, place in zip(kinds, places, strict=True):
            if kind.low is not None and kind.high is not None:
                axis.plot([kind.low, kind.high], [place] * 2, color="0.15", linewidth=1, zorder=4)
            end = max(kind.dropped, kind.high or 0.0)
            axis.annotate(
                f"{kind.dropped:.0f}%", (end, place), (4, 0), textcoords="offset points", va="center", fontsize=8,
                zorder=6, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
            )  # fmt: skip
        axis.axvline(one.mean, color=look.ink, linestyle="--", linewidth=1.1, zorder=3, label="mean of all tokens")
    shares = {kind.name: kind.share for kind in texts[0].kinds}
    axis.set_yticks(range(len(order)), [f"{name}  ({_percent(shares[name])})" for name in order])
    axis.set_ylim(len(order) - 0.4, -0.6)
    axis.set_xlim(0, 108)
    axis.set_xticks(range(0, 101, 20), [f"{share}%" for share in range(0, 101, 20)])
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("dropped (in brackets: share of all tokens)")


def _chance(axis: Axes, texts: Sequence[Text]) -> None:
    """What random dropping takes of each kind, as ticks across the bars."""
    order = [kind.name for kind in texts[0].kinds]
    for one in texts:
        if one.policy == _CHANCE:
            kinds = [kind for kind in one.kinds if kind.name in order]
            axis.plot(
                [kind.dropped for kind in kinds], [order.index(kind.name) for kind in kinds], "|", color="black",
                markersize=13, markeredgewidth=1.4, zorder=5, label="random at the same size", gid=_CHANCE,
            )  # fmt: skip


def _runs(axis: Axes, texts: Sequence[Text], looks: dict[str, Look], longest: float) -> None:
    """The mean length of runs of dropped tokens, the NAMM's over that of chance."""
    lengths = [one.run or 0.0 for one in texts]
    axis.barh(range(len(texts)), lengths, height=0.6, color=[looks[one.policy].colour for one in texts], alpha=0.8)
    for place, length in enumerate(lengths):
        axis.annotate(f"{length:.1f}", (length, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_yticks(range(len(texts)), [policy_label(one.policy, looks) for one in texts])
    axis.set_ylim(len(texts) - 0.4, -0.6)
    axis.set_xlim(0, 1.12 * longest)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("tokens dropped in a row, on average")


def _percent(share: float) -> str:
    return f"{share:.0f}%" if share >= 1 else f"{share:.1g}%"


def dropped_table(texts: Sequence[Text]) -> Table:
    """Kinds of token by how much of them goes, beside what random dropping takes."""
    columns = ["text", "policy", "kind", "of all tokens %", "dropped %", "random %", "over the mean"]
    table = Table("Kinds of token that are dropped", columns, [], [], left=3)
    chance = {(one.text, kind.name): kind.dropped for one in texts if one.policy == _CHANCE for kind in one.kinds}
    policies = list(dict.fromkeys(one.policy for one in texts))
    for one in texts:
        for kind in one.kinds if is_namm(one.policy) else ():
            at_random = chance.get((one.text, kind.name))
            line = [one.text, policy_label(one.policy, policies), kind.name, f"{kind.share:.1f}", f"{kind.dropped:.1f}"]
            ratio = f"{kind.dropped / one.mean:.2f}x" if one.mean else ""
            table.lines.append([*line, "" if at_random is None else f"{at_random:.1f}", ratio])
            table.facts.append({"text": one.text, "policy": one.policy, "random": at_random, **kind._asdict()})
    return table
