"""What was evicted, to read: an eviction -> one HTML page with the prompt's tokens, kept and evicted, by layer."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ..labels import in_bytes
from .report import EvictionReport, LayerCache, Unit, Written, kept_share, size_table, written_line

LEVELS = 8  # colours of a token: h0 nobody holds it, h8 everybody does
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_SPACES = re.compile(r"[ \t\r\n]+")
_SEEN = {" ": "·<wbr>", "\n": "↵\n", "\t": "⇥\t", "\r": "␍"}
_JOINERS = "\u200c\u200d"  # parts of emoji and of some scripts, which must stay what they are


class _Piece(NamedTuple):
    """A piece of the prompt: its classes, number of tokens, tooltip and text, and the runs of the policy in it."""

    classes: str
    tokens: int
    title: str
    text: Markup
    runs: list[int]


class _Answer(NamedTuple):
    title: str
    text: str
    speed: str


def evict_page(report: EvictionReport) -> str:
    """The page of an eviction: self-contained, readable in light and dark, without its script too.

    Args:
        report: The prompt, its cache and the answers; their text may hold anything and is escaped.

    Returns:
        HTML; without the script, colours are those over all layers.
    """
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, keep_trailing_newline=True)
    return templates.get_template("page.html").render(
        title=f"{report.policy} on {report.host}: {100 * kept_share(report.layers):.0f}% of the cache kept",
        report=report,
        facts=_facts(report),
        answers=_answers(report),
        pieces=_pieces(report),
        table=size_table(report),
        data=Markup(_data(report)),  # JSON of numbers and of words of memx alone
    )


def level(share: float) -> int:
    """The colour of a share: 0 for none alone, LEVELS for all alone."""
    if share <= 0:
        return 0
    return LEVELS if share >= 1 - 1e-6 else min(LEVELS - 1, 1 + int(share * (LEVELS - 1)))


def shown(text: str) -> Markup:
    """Text as HTML: white space to be seen, and nothing that controls the text around it."""
    out, end = [], 0
    for spaces in _SPACES.finditer(text):
        out.append(_plain(text[end : spaces.start()]))
        out.append(f"<i>{''.join(_SEEN[c] for c in spaces.group())}</i>")
        end = spaces.end()
    return Markup("".join([*out, _plain(text[end:])]))


def _plain(text: str) -> str:
    parts = []
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in _JOINERS:
            parts.append(f"<i>U+{ord(character):04X}</i>")
        else:
            parts.append(escape(character))
    return "".join(parts)


def _facts(report: EvictionReport) -> dict[str, str]:
    held = sum(layer.kv_bytes for layer in report.layers)
    full = sum(layer.full_bytes for layer in report.layers)
    books = sum(layer.bookkeeping_bytes for layer in report.layers)
    facts = {
        "model": f"{report.host} ({len(report.layers)} layers, {report.dtype} on {report.device})",
        "policy": f"{report.policy}, {report.rule}",
        "evictions": report.ran,
        "prompt": f"{report.tokens:,} tokens",
        "cache": f"{in_bytes(held)} of {in_bytes(full)} ({100 * kept_share(report.layers):.1f}%) after the prompt, "
        f"{100 * kept_share(report.after):.1f}% after the answer; plus {in_bytes(books)} of policy state",
    }
    if report.protect:
        facts["protected"] = "tokens " + ", ".join(f"{start} to {stop - 1}" for start, stop in report.protect)
    return facts


def _answers(report: EvictionReport) -> list[_Answer]:
    """What the evicted cache wrote, and what the full one did if it was asked."""

    def answer(title: str, name: str, written: Written) -> _Answer:
        return _Answer(title, written.text, written_line(name, written))

    if report.full is None:
        return [answer("Answer", report.policy, report.answer)]
    evicted = answer("Answer with the evicted cache", report.policy, report.answer)
    return [evicted, answer("Answer with the full cache", "full cache", report.full)]


def _pieces(report: EvictionReport) -> Iterator[_Piece]:
    shares, runs = report.by_token, set(report.runs)
    for unit in report.units:
        share = sum(shares[unit.start : unit.stop]) / (unit.stop - unit.start)
        safe = any(start < unit.stop and unit.start < stop for start, stop in report.protect)
        yield _Piece(
            f"h{level(share)}" + (" safe" if safe else "") + (" special" if unit.special else ""),
            unit.stop - unit.start,
            f"{token_name(unit)} · kept by {100 * share:.0f}% of all heads",
            shown(unit.text),
            [run for run in range(unit.start + 1, unit.stop + 1) if run in runs],
        )


def token_name(unit: Unit) -> str:
    """Token 17, or tokens 17-19."""
    return f"token {unit.start}" if unit.stop == unit.start + 1 else f"tokens {unit.start}-{unit.stop - 1}"


def _data(report: EvictionReport) -> str:
    """A digit for each token of each layer, how many of so many heads hold it; and what the slider says of a layer."""
    tops = [_top(layer) for layer in report.layers]
    data = {
        "held": ["".join(_digit(share, top) for share in held) for held, top in zip(report.held, tops, strict=True)],
        "tops": tops,
        "heads": [layer.heads for layer in report.layers],
        "said": [
            f"layer {layer.layer}: {layer.tokens_text} tokens per head, {100 * kept_share([layer]):.0f}%"
            for layer in report.layers
        ],
    }
    return json.dumps(data, separators=(",", ":"))


def _top(layer: LayerCache) -> int:
    """What a digit is a share of: the heads, or so many parts where heads are more than digits."""
    return min(layer.heads, len(_DIGITS) - 1)


def _digit(share: float, top: int) -> str:
    part = round(share * top)
    if 0 < share < 1 - 1e-6:  # rounding makes none of some, nor all
        part = min(max(part, 1), max(top - 1, 1))
    return _DIGITS[part]
