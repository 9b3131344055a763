"""What `memx evict` found: a prompt, who still holds each of its tokens, sizes and texts, as plain data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

from ..labels import Table, in_bytes

INTERVAL_STEP = 16  # an interval is a multiple of this


@dataclass(frozen=True)
class Unit:
    """A readable piece of the prompt: tokens start to stop, more than one where a character is cut into parts.

    special: the text is a token's name and stands nowhere in the prompt.
    """

    start: int
    stop: int
    text: str
    special: bool = False


@dataclass(frozen=True)
class LayerCache:
    """What a layer's cache holds: tokens per head (a mean), slots of its fullest head, and bytes, summed over heads.

    full_bytes: those of the full cache: of all tokens so far, or of a window's. by_head: tokens of each head.
    """

    layer: int
    heads: int
    tokens: float
    slots: int
    kv_bytes: int
    bookkeeping_bytes: int
    full_bytes: int
    by_head: tuple[float, ...] = ()

    @property
    def tokens_text(self) -> str:
        """Tokens per head, and those of the emptiest and the fullest head where heads differ."""
        least, most = (f"{end(self.by_head, default=0):,.0f}" for end in (min, max))
        return f"{self.tokens:,.0f}" if least == most else f"{self.tokens:,.0f} ({least} to {most})"


@dataclass(frozen=True)
class Written:
    """A generated text: new tokens in it, whether the model ended it, seconds of the prefill and of each token after.

    agrees: how many of its first tokens the full cache would also have written, if that was asked.
    """

    text: str
    tokens: int
    ended: bool
    prefill_seconds: float
    token_seconds: float | None
    agrees: int | None = None


@dataclass(frozen=True)
class EvictionReport:
    """A prompt and its cache when the answer begins: held [layers][tokens] is the share of heads that hold a token.

    rule: how the policy chooses, in words; every: tokens between its runs; layers and after: the caches at the end of
    the prompt and at the end of the answer; full: what the full cache writes, if it was asked; budget: what each run
    keeps, a share or above 1 tokens of each head, None for a threshold; shortest: the smallest interval that the policy
    works with.
    """

    host: str
    policy: str
    rule: str
    every: int | None
    protect: tuple[tuple[int, int], ...]
    device: str
    dtype: str
    units: tuple[Unit, ...]
    held: list[list[float]]
    layers: tuple[LayerCache, ...]
    after: tuple[LayerCache, ...]
    answer: Written
    full: Written | None = None
    budget: float | None = None
    shortest: int = INTERVAL_STEP

    @property
    def tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.held[0])

    @property
    def runs(self) -> list[int]:
        """After how many tokens of the prompt the policy ran."""
        return [] if self.every is None else list(range(self.every, self.tokens + 1, self.every))

    @property
    def ran(self) -> str:
        """When the policy ran, and what waits for its next run, in words."""
        if self.every is None:
            return "none: the policy keeps everything"
        if not self.runs:
            return f"none: the prompt is shorter than the eviction interval of {self.every} tokens"
        waits = f"; the last {self.waiting:,} tokens await the next eviction" if self.waiting else ""
        return f"every {self.every} tokens, last after token {self.runs[-1]:,}{waits}"

    @property
    def waiting(self) -> int:
        """Tokens at the end of the prompt that no run of the policy has seen."""
        return self.tokens - self.runs[-1] if self.runs else self.tokens

    @property
    def better_interval(self) -> int | None:
        """The largest smaller interval that leaves the fewest tokens waiting, in steps of 16; None if there is none."""
        most = min((self.every or 0) - 1, self.tokens // 2) // INTERVAL_STEP * INTERVAL_STEP
        intervals = range(most, self.shortest - 1, -INTERVAL_STEP)
        return min(intervals, key=lambda interval: self.tokens % interval // INTERVAL_STEP, default=None)

    @property
    def by_token(self) -> list[float]:
        """The share of all heads of all layers that hold each token of the prompt."""
        weights = [layer.heads for layer in self.layers]
        columns = zip(*self.held, strict=True)
        return [sum(w * share for w, share in zip(weights, c, strict=True)) / sum(weights) for c in columns]


def kept_share(layers: Sequence[LayerCache]) -> float:
    """Bytes of keys and values that are held, as a share of the full cache's."""
    return sum(layer.kv_bytes for layer in layers) / max(1, sum(layer.full_bytes for layer in layers))


def size_table(report: EvictionReport) -> Table:
    """A line for each layer when the answer begins, or for neighbours that are alike, and one for all of them.

    Tokens are a head's mean, cache entries those of the fullest head, bytes those of a layer; the last line adds them
    up.
    """
    layers = report.layers
    count = len(layers)
    total = LayerCache(
        -1,
        sum(layer.heads for layer in layers),
        sum(layer.tokens for layer in layers) / count,
        round(sum(layer.slots for layer in layers) / count),
        *(sum(getattr(layer, name) for layer in layers) for name in ("kv_bytes", "bookkeeping_bytes", "full_bytes")),
        by_head=tuple(tokens for layer in layers for tokens in layer.by_head),
    )
    lines = []
    for _, group in groupby(layers, lambda layer: replace(layer, layer=0)):
        alike = list(group)
        name = f"{alike[0].layer} to {alike[-1].layer}, each" if len(alike) > 1 else str(alike[0].layer)
        lines.append(_line(name, alike[0]))
    columns = ["layer", "tokens per head", "cache entries", "KV cache", "policy state", "of full cache"]
    facts = [{**asdict(layer), "share": kept_share([layer])} for layer in layers]
    title = f"Cache after the prompt of {report.tokens:,} tokens"
    return Table(title, columns, [*lines, _line("all", total)], facts)


def _line(name: str, layer: LayerCache) -> list[str]:
    return [
        name,
        layer.tokens_text,
        f"{layer.slots:,}",
        in_bytes(layer.kv_bytes),
        in_bytes(layer.bookkeeping_bytes),
        f"{100 * kept_share([layer]):.1f}%",
    ]


def written_line(name: str, written: Written) -> str:
    """How long a text took, and how far it agrees with the full cache's."""
    speed = "" if written.token_seconds is None else f", then {1000 * written.token_seconds:.1f} ms per token"
    line = f"{name}: {written.tokens} new tokens; prefill {written.prefill_seconds:.2f} s{speed}"
    if written.agrees is None:
        return line
    if written.agrees == written.tokens:
        return f"{line}; same answer as the full cache"
    return f"{line}; the first {written.agrees} tokens match the full cache's answer"


def report_facts(report: EvictionReport) -> dict[str, Any]:
    """Everything as JSON types; `held` last."""
    return {
        **{name: getattr(report, name) for name in ("host", "policy", "rule", "every", "device", "dtype")},
        "protect": [list(span) for span in report.protect],
        "prompt_tokens": report.tokens,
        "runs": report.runs,
        "share": kept_share(report.layers),
        "share_after": kept_share(report.after),
        "answer": asdict(report.answer),
        "full": None if report.full is None else asdict(report.full),
        "layers": size_table(report).facts,
        "after": [asdict(layer) for layer in report.after],
        "units": [asdict(unit) for unit in report.units],
        "held": [[round(share, 4) for share in layer] for layer in report.held],
    }


def report_json(facts: dict[str, Any]) -> str:
    """One JSON document, a line for each piece of text and each layer's shares."""
    parts = []
    for name, value in facts.items():
        if name in ("units", "held", "layers", "after"):
            rows = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in value)
            parts.append(f"  {json.dumps(name)}: [\n{rows}\n  ]")
        else:
            parts.append(f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(parts) + "\n}"
