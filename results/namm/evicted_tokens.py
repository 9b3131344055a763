"""Rows of `memx eval-namm` -> kinds of token that a NAMM drops of code and of prose, beside what chance drops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...errors import MemxError
from ..labels import Table
from ..store.rows import Row
from ..summary import mean_interval
from .looks import policy_label
from .rows import in_order, is_namm, is_own, size_label, size_of, size_text

METRICS = ("dropped", "dropped_run")
TEXTS = {"code": "Python code", "prose": "English prose"}
CHANCE = "random"


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
    size: str
    kinds: list[Kind]
    mean: float
    run: float | None


def choose_size(rows: Sequence[Row], budget: float | None, log: Callable[[str], None]) -> list[Row]:
    """The rows of a budget; without one those of each NAMM's own size, or of its smallest budget if it has none.

    Raises MemxError if there is no such budget.
    """
    sizes: dict[str, list[str]] = {}
    for row in rows:
        if is_namm(row.variant):
            sizes[row.variant] = in_order([*sizes.get(row.variant, ()), size_of(row)])
    if not sizes:
        raise MemxError("no evaluation here records which tokens a NAMM evicts", hint="run `memx eval-namm RUN` first")
    known = in_order(size for mine in sizes.values() for size in mine)
    if budget is not None and size_text(budget) not in known:
        budgets = ", ".join(size for size in known if not is_own(size))
        hint = f"choose from: {budgets}" if budgets else "remove --budget to draw the NAMM's own size"
        raise MemxError(f"--budget: no NAMM was evaluated at {size_text(budget)}", hint=hint)
    wanted = {name: mine[-1] if budget is None else size_text(budget) for name, mine in sizes.items()}
    if others := [size_label(size) for size in known if size not in wanted.values()]:
        drawn = ", ".join(map(size_label, in_order(wanted.values())))
        log(f"drawn: {drawn}; not drawn: {', '.join(others)} (choose with --budget)")
    drawn_at = {name: {size} for name, size in wanted.items()}
    return [row for row in rows if size_of(row) in drawn_at.get(row.variant, set(wanted.values()))]


def texts_of(rows: Sequence[Row]) -> list[Text]:
    """What each policy drops of code and of prose, NAMMs first, of prepared rows of one size."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.labels.token_text, row.variant, size_of(row)), []).append(row)
    texts = [_text(*point, group) for point, group in groups.items()]
    order = [*TEXTS, *(text for text, *_ in groups)]
    return sorted((t for t in texts if t.kinds), key=lambda t: (order.index(t.text), not is_namm(t.policy)))


def _text(text: str, policy: str, size: str, rows: Sequence[Row]) -> Text:
    kinds = []
    for name in dict.fromkeys(row.labels.token_kind for row in rows if row.metric == "dropped"):
        of_kind = [row for row in rows if row.metric == "dropped" and row.labels.token_kind == name]
        value, low, high = mean_interval([row.value for row in of_kind])
        if len(of_kind) == 1:
            low, high = of_kind[0].low, of_kind[0].high
        kinds.append(Kind(name, of_kind[0].labels.share, value, low, high))
    total = sum(kind.share for kind in kinds)
    mean = sum(kind.share * kind.dropped for kind in kinds) / total if total else 0.0
    runs = [row.value for row in rows if row.metric == "dropped_run"]
    kinds.sort(key=lambda kind: -kind.dropped)
    return Text(text, policy, size, kinds, mean, sum(runs) / len(runs) if runs else None)


def chance_of(texts: Sequence[Text], one: Text) -> Text | None:
    """What random dropping does to the same text at the same size."""
    return next((text for text in texts if (text.text, text.policy, text.size) == (one.text, CHANCE, one.size)), None)


def evicted_tokens_table(texts: Sequence[Text]) -> Table:
    """Kinds of token by how much of them goes, beside what random dropping takes."""
    columns = ["text", "policy", "kind", "share of tokens %", "evicted %", "random eviction %", "relative to mean"]
    table = Table("Evicted tokens by kind", columns, [], [], left=3)
    policies = list(dict.fromkeys(one.policy for one in texts))
    for one in texts:
        chance = chance_of(texts, one)
        at_random = {kind.name: kind.dropped for kind in chance.kinds} if chance else {}
        for kind in one.kinds if is_namm(one.policy) else ():
            by_lot = at_random.get(kind.name)
            line = [one.text, policy_label(one.policy, policies), kind.name, f"{kind.share:.1f}", f"{kind.dropped:.1f}"]
            ratio = f"{kind.dropped / one.mean:.2f}x" if one.mean else ""
            table.lines.append([*line, "" if by_lot is None else f"{by_lot:.1f}", ratio])
            table.facts.append(
                {"text": one.text, "policy": one.policy, "size": one.size, "random": by_lot, **kind._asdict()}
            )
    return table
