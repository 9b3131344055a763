"""Tables of an evaluation: policies at each cache size, and NAMMs against the full cache and the best baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...results.labels import INTERVALS, difference_of, score_of
from ...results.namm.rows import budget_text, is_ceiling, split_allocation
from ...results.store.rows import Row
from .console import print_table, say
from .dry_run import print_folders

if TYPE_CHECKING:
    from ...experiments.planning.estimate_caches import CacheCost, PolicyCache
    from ...experiments.policy_eval.cost import EvaluationCost

_SETS = ("trained/all", "held-out/all")
_ABOUT = {"trained/all": "trained", "held-out/all": "held-out"}
_FULL = "full"
# names of policies end with how heads share the budget, unless all have the same share
_EQUAL = "equal"
_ALLOCATED = {
    _EQUAL: "equal: every head keeps the same share.",
    "global": "global: the best tokens of all layers and heads together, as many as equal shares hold.",
    "table": "table: each head keeps its own share, measured once on other prompts; as many tokens in all.",
    "layer_max": "layer_max: one threshold for all layers and heads, and layers filled up to their fullest head.",
}
_NATS_AND_EXACT = (("log_likelihood", 2), ("exact", 1))
Line = tuple[str, float | None, str, str]  # variant, budget, size, beside


def print_evaluation(rows: Sequence[Row]) -> None:
    """Print a table of policies for each cache size, then the differences of the NAMMs to other policies."""
    found = _by_line(rows)
    full = next(line for line in found if line[0] == _FULL)
    sets = [one for one in _SETS if ("exact", one) in found[full]]
    for size, lines in _sizes(found, full):
        _print_size(size, [full, *lines], found, sets)
    _print_verdicts(rows, [line for line in found if line[0].split()[0] == "namm"], found, sets)
    if any(line[0].endswith(" per head") for line in found):
        say(
            "namm with a budget: one threshold per prompt, chosen so that the whole cache has that size; "
            "layers may keep different shares.\nnamm per head, and the other policies: the same share in every head."
        )
    for suffix, text in _ALLOCATED.items():
        if any(_name(line, found).endswith(f" {suffix}") for line in found):
            say(text)
    if any(line[0].startswith("kvpress ") for line in found):
        say("kvpress may evict any token of the context; the other policies always keep the newest (fewer than 16).")


def _by_line(rows: Sequence[Row]) -> dict[Line, dict[tuple[str, str], Row]]:
    """The rows of each line of the tables, by metric and data set."""
    found: dict[Line, dict[tuple[str, str], Row]] = {}
    for row in rows:
        labels = row.labels
        if labels.layer is not None or labels.token_text:
            continue
        line = row.variant, labels.budget, labels.size, labels.beside
        found.setdefault(line, {})[row.metric, row.dataset] = row
    return found


def _sizes(found: Mapping[Line, Any], full: Line) -> Iterator[tuple[str, list[Line]]]:
    """What each table is about, and its lines but the full cache."""
    lines = [line for line in found if line != full]
    for budget in dict.fromkeys(line[1] for line in lines if line[2] == "budget"):
        yield f"budget {budget_text(budget or 1)}", [line for line in lines if line[1:3] == (budget, "budget")]
    for variant in dict.fromkeys(line[3] or line[0] for line in lines if line[2] == "own"):
        own = [line for line in lines if line[2] == "own" and variant in (line[0], line[3])]
        yield f"cache size of {variant} at its own threshold", own


def _name(line: Line, found: Mapping[Line, Any]) -> str:
    """A policy's name in a table: with `equal` where it is in the tables with another allocation too."""
    variant, budget = line[:2]
    of = {other[0] for other in found}
    shared = {split_allocation(other)[0] for other in of if split_allocation(other)[1].strip() in _ALLOCATED}
    equal = budget is not None and variant in shared and f"{variant} per head" not in of
    return f"{variant} {_EQUAL}" if equal else variant


def _print_size(size: str, lines: Sequence[Line], found: Mapping[Line, Any], sets: Sequence[str]) -> None:
    columns, table = ["policy"], []
    scored = [one for one in sets if ("score", one) in found[lines[0]]]
    for one in sets:
        columns += [
            f"{_ABOUT[one]}: exact match %",
            f"{_ABOUT[one]}: relative likelihood",
            f"{_ABOUT[one]}: nats lost",
            *([f"{_ABOUT[one]}: score %"] if one in scored else []),
        ]
    for line in lines:
        rows = found[line]
        cells = [_name(line, found)]
        for one in sets:
            cells += [score_of(rows["exact", one], 1), score_of(rows["relative_log_likelihood", one], 2)]
            cells.append(score_of(rows["lost_nats", one], 2))
            if one in scored:
                cells.append(score_of(rows["score", one], 1))
        cells += [f"{rows[size, 'all/all'].value:.1f}%" for size in ("held", "kept")]
        table.append([*cells, _policy_state(rows)])
    n = ", ".join(f"{found[lines[0]]['exact', one].n} {_ABOUT[one]}" for one in sets)
    print_table(
        f"{size} (prompts: {n}; {INTERVALS})",
        [*columns, "cache size", "tokens kept", "policy state, % of the cache"],
        table,
    )


def _policy_state(rows: Mapping[tuple[str, str], Row]) -> str:
    """What the cache holds beside keys and values, in percent of those that are left; nothing for kvpress."""
    beside, held = (rows.get((name, "all/all")) for name in ("bookkeeping_bytes", "kv_bytes"))
    if beside is None or held is None or not held.value or beside.labels.package == "kvpress":
        return ""
    return f"{100 * beside.value / held.value:.1f}%"


def _print_verdicts(rows: Sequence[Row], namms: Sequence[Line], found: Mapping[Line, Any], sets: Sequence[str]) -> None:
    """Print NAMM minus full cache, and minus the best baseline at its cache size, in nats per token and in points.

    Where budgets are shared in several ways, the best baseline of each way has a line of its own.
    """
    over = _over_baselines(rows)
    ways = list(dict.fromkeys(way for _, _, _, way in over))
    told = len(ways) > 1 or any(map(is_ceiling, ways))
    table = []
    for line in namms:
        size = budget_text(line[1]) if line[1] is not None else f"own size, {found[line]['held', 'all/all'].value:.1f}%"
        for one in sets:
            for way in [way for way in ways if ("exact", line, one, way) in over] or [""]:
                cells = [_name(line, found), size, _ABOUT[one], *([way] if told else [])]
                cells += [difference_of(found[line][f"{metric}_minus_full", one], n) for metric, n in _NATS_AND_EXACT]
                for metric, digits in (("relative_log_likelihood", 2), *_NATS_AND_EXACT):
                    best = over.get((metric, line, one, way))
                    cells.append("" if best is None else f"{difference_of(best, digits)} {best.labels.rival}")
                table.append(cells)
    columns = [
        "NAMM",
        "cache size",
        "tasks",
        *(["baselines"] if told else []),
        "nats per token: minus full cache",
        "exact match, points: minus full cache",
        "relative likelihood: minus best baseline",
        "nats per token: minus best baseline",
        "exact match, points: minus best baseline",
    ]
    title = "NAMM minus other policies (95% CI); the best baseline was chosen on these same prompts, which favours it"
    print_table(title, columns, table, left=4 if told else 3)


def _over_baselines(rows: Sequence[Row]) -> dict[tuple[str, Line, str, str], Row]:
    """NAMMs minus the best baseline of each allocation: by metric, line, data set and allocation.

    A policy that reads the context twice is no baseline, and has a line by its own name.
    """
    best: dict[tuple[str, Line, str, str], Row] = {}
    for row in rows:
        labels = row.labels
        metric = row.metric.removesuffix("_over")
        if metric == row.metric:
            continue
        line = row.variant, labels.budget, labels.size, labels.beside
        rival, suffix = split_allocation(labels.rival)
        way = rival if is_ceiling(rival) else suffix.strip() or "equal"
        key = metric, line, row.dataset, way
        if key not in best or row.value < best[key].value:
            best[key] = row
    return best


def print_evaluation_cost(cost: EvaluationCost) -> None:
    """Print what an evaluation would do."""
    sizes = [budget_text(budget) for budget in cost.budgets]
    sizes += [f"{cost.own_sizes} set by a threshold"] * bool(cost.own_sizes)
    asked = ", question read before eviction" if cost.question == "before" else ""
    online = f", then {cost.read_online:,} tokens over all policies and sizes" if cost.read_online else ""
    lines = [
        ["model", cost.host],
        *(["NAMM", namm] for namm in cost.namms),
        ["trained tasks", ", ".join(cost.trained) or "none"],
        ["held-out tasks", ", ".join(cost.held_out) or "none"],
        ["policies", f"{', '.join(cost.policies)}, full cache; mode {cost.mode}{asked}"],
        *([["allocations", "; ".join(cost.allocations)]] if cost.allocations != ["equal"] else []),
        ["cache sizes", ", ".join(sizes)],
        ["prompts", f"{cost.prompts:,}, up to {cost.length:,} tokens each"],
        ["prefills", f"{cost.prefills:,}, up to {cost.prefill_tokens:,} tokens each{online}"],
        *([["kvpress", ", ".join(cost.presses)]] if cost.presses else []),
        *([["documents", f"{cost.documents} to record which tokens are evicted"]] if cost.documents else []),
        ["answers", f"{cost.answers:,} scored by likelihood" + (", and generated" if cost.written else "")],
    ]
    if cost.reuse:
        lines.append(["reuse", f"{cost.reuse}: what it measured is not measured again, but is counted here"])
    if cost.not_counted:
        lines.append(["caches", f"not counted: {cost.not_counted}"])
    print_table("Dry run: nothing was loaded or evaluated", ["what", "amount"], lines, left=2)
    if cost.cache is not None:
        _print_caches(cost.cache)
    print_folders([cost.folder])


def _print_caches(cost: CacheCost) -> None:
    """Print what one prompt's cache holds at each size, what each policy stores besides, and what a token takes."""
    sizes: dict[str, PolicyCache] = {"100%": cost.full}
    states: dict[str, dict[str, str]] = {"full": {"100%": _bytes(cost.full.policy_bytes)}}
    for one in sorted(cost.policies, key=lambda one: -(one.budget or 1)):
        size = "its own" if one.budget is None else budget_text(one.budget)
        sizes.setdefault(size, one)
        states.setdefault(one.policy, {})[size] = _bytes(one.policy_bytes)
    lines = [
        [
            size,
            f"{one.tokens:,.0f}",
            _bytes(one.kv_bytes),
            _bytes(one.decode_bytes),
            f"{one.decode_flops:.2g}",
            f"{1000 * one.decode_seconds:.3g}",
        ]
        for size, one in sizes.items()
    ]
    title = f"Cache of one prompt of {cost.length:,} tokens, {cost.token_bytes:,} bytes per token"
    of_token = ["read per new token", "FLOPs", "ms (estimate)"]
    print_table(title, ["cache size", "tokens per head", "keys and values", *of_token], lines)
    groups: dict[tuple[str, ...], list[str]] = {}
    for policy, by_size in states.items():
        groups.setdefault(tuple(by_size.get(size, "") for size in sizes), []).append(policy)
    stored = [[", ".join(names), *cells] for cells, names in groups.items()]
    print_table("Stored besides by each policy", ["policies", *sizes], stored, left=1)
    if "its own" in sizes:
        say("its own: as its threshold decides, at most the full cache.")
    say(
        f"Weights: {cost.parameters / 1e9:.3g}B parameters, {_bytes(cost.weight_bytes)}. Reading the prompt: "
        f"{cost.prefill_flops:.3g} FLOPs, about {cost.prefill_seconds:.2g} s."
    )
    say(f"Times are estimates for {cost.assumption}.")


def _bytes(number: float) -> str:
    """Bytes in MiB, from 1024 of them on in GiB."""
    return f"{number / 2**20:,.1f} MiB" if number < 2**30 else f"{number / 2**30:,.2f} GiB"
