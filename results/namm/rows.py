"""Rows of `memx eval-namm`: policies at sizes of the cache, checked to belong together, seeds of a NAMM as one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from math import isclose
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import MemxError
from ..store.rows import Row
from ..summary import without_seed

if TYPE_CHECKING:
    from ..selection import PlotRequest

FULL, NAMM, OWN = "full", "namm", "own"
PER_HEAD = " per head"  # after the name of a NAMM whose heads all hold the same share
# after the name of a policy whose heads share a budget in another way than equally: allocation to suffix
ALLOCATED = {allocation: f" {allocation}" for allocation in ("global", "table", "layer_max")}
THRESHOLD = " threshold"  # after the name of a NAMM that reads with a threshold calibrated to a budget
CEILINGS = ("kvzip",)  # policies that read the context a second time: no baselines, measured only if they are named
# presses of kvpress and the policies of memx that they are
PRESSES = {
    "KnormPress": "knorm",
    "SnapKVPress": "snapkv",
    "KeyDiffPress": "keydiff",
    "ExpectedAttentionPress": "expected_attention",
    "StreamingLLMPress": "streamingllm",
    "TOVAPress": "tova",
    "ObservedAttentionPress": "h2o",
    "RandomPress": "random",
}
CEILING_PRESSES = {"KVzipPress": "kvzip"}  # those that read the context twice, as CEILINGS do
EVICTION = "eviction"  # the kind of these rows
ALIKE = ("model", "mode", "question", "length", "every", "split")  # what policies on one figure have in common
DATASETS = {"held-out/all": "held-out tasks", "trained/all": "trained tasks", "all/all": "all tasks"}


class Score(NamedTuple):
    """How a metric is shown: its axis, its column, whether more is better, digits."""

    label: str
    column: str
    rises: bool
    digits: int


SCORES = {
    "relative_log_likelihood": Score(
        "likelihood per token, full cache = 1\n(capped at 1 per answer)", "likelihood", True, 2
    ),
    "exact": Score("exact match (%)", "exact match %", True, 1),
    "lost_nats": Score("nats per token lost against the full cache", "nats lost", False, 3),
    "log_likelihood": Score("log-likelihood (nats per token)", "log-likelihood", True, 3),
    "relative_exact": Score("exact match, full cache = 1", "relative exact match", True, 2),
    "score": Score("task score (%)", "score %", True, 1),
    "relative_score": Score("task score, full cache = 1", "relative score", True, 2),
}


def evaluated(request: PlotRequest, wanted: Callable[[Row], bool], what: str) -> list[Row]:
    """The wanted rows of evaluations. Raises MemxError, with a word for them, if there are none."""
    return request.rows(
        lambda row: row.kind == EVICTION and wanted(row),
        check=list,
        missing=f"there are no {what} here",
        hint="run `memx eval-namm RUN` on a run of `memx evolve-namm` first",
    )


def is_namm(policy: str) -> bool:
    """Whether a policy is a NAMM rather than a baseline or the full cache."""
    return policy == NAMM or policy.startswith(f"{NAMM} ")


def package_of(policy: str) -> str:
    """Whose implementation a policy is."""
    return policy.split()[0] if policy.startswith("kvpress ") else "memx"


def is_ceiling(policy: str) -> bool:
    """Whether a policy reads the context a second time, memx's own or a press of kvpress."""
    named = split_allocation(policy)[0]
    return named in CEILINGS or named.removeprefix("kvpress ") in CEILING_PRESSES


def split_allocation(policy: str) -> tuple[str, str]:
    """A policy's name without how its heads share a budget, and that: "knorm" and " table" of "knorm table"."""
    suffix = next((suffix for suffix in (PER_HEAD, THRESHOLD, *ALLOCATED.values()) if policy.endswith(suffix)), "")
    return policy.removesuffix(suffix), suffix


def allocation_of(row: Row, among: Collection[str] = ()) -> str:
    """How the heads of a policy share a budget.

    Rows of older versions do not tell it: a NAMM at the size of its own threshold, or at a budget that a threshold of
    its own meets beside one "per head", then has layer_max, all others equal.

    Args:
        row: The row.
        among: Names of all policies of its evaluation.

    Returns:
        equal, global, table, layer_max, or threshold where each head keeps what reaches one that is fixed; nothing of
        the full cache.
    """
    if row.variant == FULL:
        return ""
    told = row.labels.allocation or split_allocation(row.variant)[1].strip()
    by_threshold = row.labels.size == OWN or row.variant + PER_HEAD in among
    old = "layer_max" if is_namm(row.variant) and by_threshold else "equal"
    return {"": old, PER_HEAD.strip(): "equal"}.get(told, told)


def size_of(row: Row) -> str:
    """The size that a row is of: a budget as text, own (of the NAMM that a prepared row names) or full."""
    if row.variant == FULL:
        return FULL
    labels = row.labels
    if labels.size != OWN and labels.budget is not None:
        return size_text(labels.budget)
    return f"{OWN} {labels.own_of}".strip()


def is_own(size: str) -> bool:
    """Whether a size is a NAMM's own."""
    return size.partition(" ")[0] == OWN


def size_text(budget: float) -> str:
    """The size that a budget is: its number, without rounding one of tokens.

    Args:
        budget: A share of the cache, or above 1 a number of tokens of each head.
    """
    return f"{budget:.0f}" if budget > 1 else f"{budget:g}"


def budget_text(budget: float) -> str:
    """A budget as people read it: 25%, 512 tokens.

    Args:
        budget: A share of the cache, or above 1 a number of tokens of each head.
    """
    return f"{budget:,.0f} tokens" if budget > 1 else f"{100 * budget:g}%"


def size_label(size: str) -> str:
    """A size as people read it: 25%, 512 tokens, own size, full cache."""
    if is_own(size):
        return f"own size{size.removeprefix(OWN).replace(f' {NAMM} ', ' of ')}"
    return "full cache" if size == FULL else budget_text(float(size))


def tokens_of(size: str) -> float | None:
    """The number of tokens of each head that a size names; None for shares, own sizes and the full cache."""
    return float(size) if size not in (FULL, "") and not is_own(size) and float(size) > 1 else None


def at_size(size: str) -> str:
    """The same in a sentence: at 25% of the cache, at the NAMM's own size."""
    if is_own(size):
        return "at the NAMM's own size" if size == OWN else f"at the {size_label(size)}"
    return f"at {size_label(size)} of {'the cache' if tokens_of(size) is None else 'each head'}"


def in_order(sizes: Iterable[str]) -> list[str]:
    """Each size once: the full cache, budgets from the largest, own sizes."""
    return sorted(set(sizes), key=lambda size: (size != FULL, is_own(size), size if is_own(size) else -_share(size)))


def _share(size: str) -> float:
    return 1.0 if size == FULL else float(size)


def prepared(rows: Sequence[Row]) -> list[Row]:
    """Rows that may share a figure, each point once, NAMMs that differ in their seed alone under one name.

    Raises MemxError if hosts, modes, questions, lengths, intervals or splits differ, or two runs disagree on a point.
    """
    for name in ALIKE:
        values = {str(getattr(row, name, "after" if name == "question" else None)) for row in rows}
        if len(values) > 1:
            raise MemxError(
                f"these evaluations differ in {name}: {', '.join(sorted(values))}",
                hint="give only the run folders that agree, or choose with --experiment",
            )
    names = _policies(rows)
    by_point: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        known = by_point.setdefault(_point(row), row)
        if not isclose(known.value, row.value, rel_tol=1e-4, abs_tol=1e-9):
            raise MemxError(
                f"runs {known.run} and {row.run} disagree on {row.variant} at {size_label(size_of(row))}, {row.metric}",
                hint="give only one of them, or evaluate their NAMMs together: memx eval-namm RUN RUN2",
            )
    several = len({names[row.variant] for row in rows if is_namm(row.variant) and is_own(size_of(row))}) > 1
    return [_named(row, names, several) for row in by_point.values()]


def prompts_of(rows: Iterable[Row]) -> str:
    """How many prompts the rows are about, and of which split: 96 test prompts."""
    rows = list(rows)
    splits = sorted({row.labels.split for row in rows} - {""})
    names = [{"train": "training"}.get(split, split) for split in splits]
    return " ".join([str(max(row.n for row in rows)), *names, "prompts"])


def datasets_of(rows: Iterable[Row]) -> list[str]:
    """The means over tasks there are: held-out and trained ones, or over all if they are not told apart."""
    known = {row.dataset for row in rows}
    names = [name for name in DATASETS if name in known]
    return [name for name in names if name != "all/all"] or names


def _named(row: Row, names: dict[str, str], several: bool) -> Row:
    """A row under its policy's name; of an own size, with the NAMM whose own it is if there are several."""
    changes: dict[str, Any] = {"variant": names.get(row.variant, row.variant)}
    if several and is_own(size_of(row)):
        whose = row.variant if is_namm(row.variant) else row.labels.beside
        changes["own_of"] = names.get(whose, whose)
    return row.model_copy(update=changes)


def _policies(rows: Iterable[Row]) -> dict[str, str]:
    """The policy that each NAMM is of: those of one name are one if their seeds differ."""
    groups: dict[str, set[tuple[str, int]]] = {}
    for row in rows:
        if is_namm(row.variant):
            groups.setdefault(without_seed(row.variant), set()).add((row.variant, row.seed))
    return {
        variant: name if len({seed for _, seed in members}) == len(members) else variant
        for name, members in groups.items()
        for variant, _ in members
    }


def _point(row: Row) -> tuple[Any, ...]:
    """What a row is about, whichever run wrote it; a baseline at the own size of a NAMM is of that NAMM's run."""
    labels, size = row.labels, size_of(row)
    about = (labels.layer, labels.token_kind, labels.rival, labels.beside)
    return (row.run if is_own(size) else "", row.variant, row.seed, size, row.dataset, row.metric, *about)
