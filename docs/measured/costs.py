"""What memx costs: a training step, ops and their kernels, eviction, a generation of an evolution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from memx.results.bench.rows import Measured, floor_share, measured
from memx.results.store.rows import Row

from .text import rows_of, slots, table

OWN = "memx"  # how the names of memx's layers begin in rows of a step
# names in rows, and what tables say in their place
_PLAIN = {
    "a moment a row": "one moment per row",
    "contexts unread": "contexts read in this generation",
    "contexts read": "contexts read earlier",
    "one by one": "one candidate at a time",
}


def step(page: str) -> str:
    """Milliseconds of a layer's training step by table size."""
    values = {(row.kind, row.memory_slots, row.metric): row for row in rows_of("step/step")}
    sizes = sorted({size for _, size, _ in values})
    lines = []
    for kind in dict.fromkeys(kind for kind, *_ in values):
        times = [values[kind, size, "step_ms"] for size in sizes]
        line = [_plain(kind), *(f"{row.value:,.0f}" for row in times[:-1]), _quantiles(times[-1])]
        peak = values[kind, sizes[-1], "peak_memory_gb"].value
        lines.append([*line, f"{times[-1].value / times[0].value:.1f}x", f"{peak:.1f}"])
    largest = slots(sizes[-1])
    columns = ["layer and optimizer", *map(slots, sizes[:-1]), f"{largest} (20% to 80%)"]
    return table([*columns, f"{largest} over {slots(sizes[0])}", "peak memory, GB"], lines)


def fastest_step(own: bool) -> Row:
    """The shortest step at the most slots, of memx's default layer or of the implementations that are not memx's."""
    rows = [row for row in rows_of("step/step") if row.metric == "step_ms"]
    largest = [row for row in rows if row.memory_slots == max(one.memory_slots for one in rows)]
    chosen = [row for row in largest if (row.kind == OWN if own else not row.kind.startswith(OWN))]
    return min(chosen, key=lambda row: row.value)


def ops(page: str) -> str:
    """Each op at its largest shape: times, share of the roofline floor, and the fastest other implementation."""
    lines = []
    everything = measured(rows_of("bench/bench"))
    for op in dict.fromkeys(line.op for line in everything):
        shape = [line.shape for line in everything if line.op == op][-1]
        here = [line for line in everything if (line.op, line.shape) == (op, shape) and line.time("forward")]
        own, other = (_fastest(line for line in here if line.rival is rival) for rival in (False, True))
        cells = [op, shape.replace(" ", ", "), own.name, *_pass(own, "forward"), *_pass(own, "backward"), other.name]
        lines.append([*cells, *(_times(own, other, which) for which in ("forward", "backward"))])
    columns = ["op", "shape", "implementation", "forward ms", "of floor", "backward ms", "of floor"]
    return table([*columns, "fastest other", "its forward", "its backward"], lines, left=3)


def resources(page: str) -> str:
    """Registers, spills and shared memory of each kernel, compiled for two kinds of GPU."""
    rows = rows_of("bench/resources")
    values = {(row.kind, row.model, row.metric): row for row in rows}
    lines = []
    for kernel in dict.fromkeys(row.kind for row in rows):
        both = {
            metric: [values[kernel, model, metric].value for model in ("sm_90", "sm_80")]
            for metric in ("registers", "spills", "shared", "programs")
        }
        both["shared"] = [value / 1024 for value in both["shared"]]
        formats = {"shared": ".1f"}
        cells = [" / ".join(f"{v:{formats.get(name, 'g')}}" for v in pair) for name, pair in both.items()]
        matrix = (values[kernel, "sm_90", "registers"].model_extra or {}).get("matrix") or "none"
        lines.append([_plain(kernel), *cells, matrix])
    columns = ["kernel", "registers, sm_90 / sm_80", "spilled bytes", "shared KB", "programs per SM", "matrix units"]
    return table(columns, lines)


def prefill(page: str) -> str:
    """Policies on SmolLM2: time of the prompt for two intervals of eviction, and what is left of the cache."""
    often, once = (_values(name, "prefill") for name in ("evict/prefill", "evict/prefill-once"))
    columns = {
        "kept_tokens": ("tokens kept by a head, mean", ",.0f"),
        "kept_in_pieces": ("most of a head, prompt in pieces", ",.0f"),
        "kv_mb": ("keys and values, MB", ".1f"),
        "beside_percent": ("policy state, % of these", ".1f"),
        "peak_memory_mb": ("peak memory, MB", ",.0f"),
    }
    lines = []
    for policy, found in often.items():
        times = [f"{found['prefill_ratio'].value:.2f}", _ratio(once.get(policy, {}))]
        lines.append([policy, *times, *(f"{found[m].value:{form}}" for m, (_, form) in columns.items())])
    titles = ["times plain, evicting every 512 tokens", "times plain, evicting once"]
    return table(["policy", *titles, *(title for title, _ in columns.values())], lines)


def generate(page: str) -> str:
    """Policies on SmolLM2: a long prompt and an answer, each in a process of its own."""
    columns = {
        "total_ms": ("seconds in all", 1e3, ".1f"),
        "prefill_ms": ("prefill, seconds", 1e3, ".1f"),
        "token_ms": ("ms per token", 1, ".0f"),
        "kv_mb": ("keys and values, MB", 1, ".1f"),
        "beside_percent": ("policy state, % of these", 1, ".1f"),
        "peak_memory_mb": ("peak memory, MB", 1, ",.0f"),
    }
    lines = [
        [policy, *(f"{found[m].value / unit:{form}}" for m, (_, unit, form) in columns.items())]
        for policy, found in _values("evict/generate", "generate").items()
    ]
    return table(["policy", *(title for title, *_ in columns.values())], lines)


def writing(page: str) -> str:
    """Written tokens a second under budgets in tokens, next to the unmodified model."""
    found = _values("ruler/speed", "generate")
    usual = found["plain"]["token_ms"].value
    lines = [
        [policy, f"{1e3 / rows['token_ms'].value:.1f}", f"{usual / rows['token_ms'].value:.2f}x",
         f"{rows['kv_mb'].value:.1f}", f"{rows['peak_memory_mb'].value:,.0f}"]
        for policy, rows in found.items()
    ]  # fmt: skip
    columns = ["policy, tokens of each head", "written tokens per second", "speed over the unmodified model"]
    return table([*columns, "keys and values, MB", "peak memory, MB"], lines)


def generation(page: str) -> str:
    """A generation of an evolution: candidates in one batch against one by one."""
    found: dict[str, dict[str, float]] = {}
    for row in rows_of("namm/generation"):
        found.setdefault(row.kind, {})[row.metric] = row.value
    lines = [
        [_plain(name), f"{values['generation_ms'] / 1e3:.1f}", f"{values.get('speedup', 1):.1f}x",
         f"{values['host_percent']:.0f}%", f"{values['scorer_percent']:.0f}%"]
        for name, values in found.items() if "generation_ms" in values
    ]  # fmt: skip
    return table(["scorer, evaluation", "seconds", "speedup", "time in the model", "time in the scorer"], lines)


def _values(name: str, op: str) -> dict[str, dict[str, Row]]:
    """Rows of an operation by policy and metric, without those that were checked alone."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows_of(name):
        if row.labels.op == op:
            found.setdefault(row.kind, {})[row.metric] = row
    timed = {policy: rows for policy, rows in found.items() if len(rows) > 1}
    return dict(sorted(timed.items(), key=lambda one: (not one[0].startswith("plain"), "kvpress" in one[0])))


def _plain(name: str) -> str:
    start, comma, end = name.partition(", ")
    return start + comma + _PLAIN.get(end, end.replace(" a row", " per row"))


def _ratio(rows: dict[str, Row]) -> str:
    return f"{rows['prefill_ratio'].value:.2f}" if "prefill_ratio" in rows else ""


def _fastest(lines: Iterable[Measured]) -> Measured:
    return min(lines, key=lambda line: row.value if (row := line.time("forward")) else 0.0)


def _pass(line: Measured, which: str) -> Sequence[str]:
    row = line.time(which)
    return ("", "") if row is None else (f"{row.value:.3g}", f"{100 * (floor_share(row) or 0):.0f}%")


def _times(own: Measured, other: Measured, which: str) -> str:
    """The other's time over memx's."""
    mine, theirs = own.time(which), other.time(which)
    return f"{theirs.value / mine.value:.1f}x" if mine and theirs else ""


def _quantiles(row: Row) -> str:
    spread = "" if row.low is None or row.high is None else f" ({row.low:,.0f} to {row.high:,.0f})"
    return f"{row.value:,.0f}{spread}"
