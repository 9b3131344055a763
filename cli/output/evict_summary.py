"""What `memx evict` prints: the answers, the table of the cache, warnings and what to try next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .console import note, print_json_text, print_table, say

if TYPE_CHECKING:
    from ...results.eviction.report import EvictionReport

_OVER = 1.2  # a share that is more than this times the budget is worth a warning
_STEP_LEFT = 16  # a better interval leaves at least this many tokens fewer


def print_eviction(report: EvictionReport, written: Sequence[Path], *, json: bool) -> None:
    """Print a report on stdout, and on stderr a warning or what to try next.

    Args:
        report: What the run found.
        written: The files of the report, the page first.
        json: Whether to print JSON in place of text.
    """
    if json:
        _print_json(report, written)
    else:
        _print(report, written)
    warning = _nothing_evicted(report) or _over_budget(report)
    for line in warning:
        note(line)
    if not json and report.runs:
        note(f"open {written[0]} to see which tokens were evicted; next: {_next(report)}")
    elif not json and not warning:
        note(f"the policy {report.policy} evicts no tokens; next: try another --policy")


def _nothing_evicted(report: EvictionReport) -> list[str]:
    """The lines for a prompt that is shorter than the interval; none if the policy ran, or never does."""
    if report.every is None or report.runs:
        return []
    later = " before the answer" if report.tokens + report.answer.tokens > report.every else ""
    often = f", or --interval {report.better_interval}" if report.better_interval else ""
    warning = (
        f"warning: the prompt has {report.tokens:,} tokens and {report.policy} evicts every {report.every}: "
        f"no tokens were evicted{later}"
    )
    return [warning, f"hint: give a longer prompt{often}"]


def _over_budget(report: EvictionReport) -> list[str]:
    """A line if the tokens after the last eviction take the cache far above its budget, and an interval helps."""
    from ...results.eviction.report import kept_share
    from ...results.namm.rows import budget_text

    share, better = kept_share(report.layers), report.better_interval
    if report.budget is None or better is None:
        return []
    wanted = report.budget if report.budget <= 1 else report.budget / max(report.tokens, 1)
    if share <= _OVER * wanted:
        return []
    if report.waiting - report.tokens % better < _STEP_LEFT:
        return []
    above = f"{share:.1%} of the cache is kept, more than the budget of {budget_text(report.budget)}"
    return [f"warning: {above}: the last {report.waiting:,} tokens await the next eviction; use --interval {better}"]


def _print_json(report: EvictionReport, written: Sequence[Path]) -> None:
    from ...results.eviction.report import report_facts, report_json

    print_json_text(report_json({"files": [str(path) for path in written], **report_facts(report)}))


def _print(report: EvictionReport, written: Sequence[Path]) -> None:
    from ...results.eviction.report import size_table, written_line

    if report.full is not None:
        say(f"--- with {report.policy}, {report.rule}")
    say(report.answer.text)
    if report.full is not None:
        say("--- with the full cache")
        say(report.full.text)
    say("")
    table = size_table(report)
    print_table(table.title, table.columns, table.lines, left=table.left, names=table.names)
    say(f"evictions: {report.ran}")
    say(written_line(report.policy, report.answer))
    if report.full is not None:
        say(written_line("full cache", report.full))
    for path in written:
        say(str(path))


def _next(report: EvictionReport) -> str:
    """A command worth trying after this one."""
    if report.full is None:
        return "add --compare to see the answer with the full cache"
    return "try another --policy or --budget"
