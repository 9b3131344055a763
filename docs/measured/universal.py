"""NAMMs and their rivals on hosts that read no text: scores, differences, and what is forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memx.results.namm.looks import policy_label
from memx.results.namm.rows import FULL, is_namm
from memx.results.store.rows import Row
from memx.results.universal.kinds_figure import kinds_of
from memx.results.universal.rows import Cell, Key, budgets_of, by_host, cells, main_metric, policies_of

from .text import interval, rows_of, table


def scores_of(name: str) -> Callable[[str], str]:
    """The table of scores by policy and budget of a file of rows."""

    def scores(page: str) -> str:
        lines: list[list[str]] = []
        hosts = by_host(rows_of(name))
        for host, rows in hosts.items():
            found, names = cells(rows, main_metric(rows)), policies_of(rows)
            lead = [host] if len(hosts) > 1 else []
            full = _cell(found[FULL, None])
            lines.append([*lead, "full cache", *[full] * len(budgets_of(rows))])
            for policy in names:
                own = [_cell(found[policy, budget]) for budget in budgets_of(rows)]
                lines.append([*lead, policy_label(policy, names), *own])
        first = next(iter(hosts.values()))
        lead = ["host"] if len(hosts) > 1 else []
        sizes = [f"{100 * budget:g}% of the cache" for budget in budgets_of(first)]
        return table([*lead, "policy", *sizes], lines, left=1 + len(lead))

    return scores


def differences_of(name: str) -> Callable[[str], str]:
    """The table of paired differences of NAMMs: to the full cache, and to every rival under the same allocation."""

    def differences(page: str) -> str:
        lines: list[list[str]] = []
        hosts = by_host(rows_of(name))
        for host, rows in hosts.items():
            metric, names = main_metric(rows), policies_of(rows)
            lead = [host] if len(hosts) > 1 else []
            for namm in filter(is_namm, names):
                own = policy_label(namm, names)
                lost = cells(rows, f"{metric}_minus_full")
                lines.append([*lead, own, "full cache", *_line(lost, namm, rows)])
                for rival in [one for one in names if not is_namm(one)]:
                    over = cells(rows, f"{metric}_over", rival=rival)
                    lines.append([*lead, own, policy_label(rival, names), *_line(over, namm, rows)])
        first = next(iter(hosts.values()))
        lead = ["host"] if len(hosts) > 1 else []
        sizes = [f"{100 * budget:g}% of the cache" for budget in budgets_of(first)]
        return table([*lead, "NAMM", "minus", *sizes], lines, left=2 + len(lead))

    return differences


def kinds_table_of(name: str) -> Callable[[str], str]:
    """The table of what is kept of each kind of token, at the smallest budget of a file of rows."""

    def kinds(page: str) -> str:
        lines: list[list[str]] = []
        hosts = by_host(rows_of(name))
        columns: list[str] = []
        for rows in hosts.values():
            names, budget = policies_of(rows), budgets_of(rows)[-1]
            columns = kinds_of(rows)
            found = {kind: cells(rows, "kept_kind", kind=kind) for kind in columns}
            for policy in names:
                own = [f"{found[kind][policy, budget].value:.1f}" for kind in columns]
                lines.append([policy_label(policy, names), *own])
        return table(["policy", *columns], lines)

    return kinds


def _cell(cell: Cell) -> str:
    return interval(cell.value, cell.low, cell.high, 1)


def _line(found: dict[Key, Cell], namm: str, rows: Sequence[Row]) -> list[str]:
    given = [found.get((namm, budget)) for budget in budgets_of(rows)]
    return ["" if one is None else interval(one.value, one.low, one.high, 1, "+") for one in given]


decision_scores = scores_of("universal/decision/decision")
decision_differences = differences_of("universal/decision/decision")
decision_kinds = kinds_table_of("universal/decision/decision")
