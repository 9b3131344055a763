"""What was forgotten, to read: an eviction -> one HTML page with the prompt's tokens, kept and dropped, by layer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from html import escape

from .page_parts import SCRIPT, STYLE
from .report import EvictionReport, LayerCache, Unit, Written, in_bytes, kept_share, size_table, written_line

LEVELS = 8  # colours of a token: h0 nobody holds it, h8 everybody does
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_SPACES = re.compile(r"[ \t\r\n]+")
_SEEN = {" ": "·<wbr>", "\n": "↵\n", "\t": "⇥\t", "\r": "␍"}
_JOINERS = "\u200c\u200d"  # parts of emoji and of some scripts, which must stay what they are


def evict_page(report: EvictionReport) -> str:
    """The page: self-contained, readable in light and dark, without its script too (then over all layers)."""
    title = f"{report.policy} on {report.host}: {100 * kept_share(report.layers):.0f}% of the cache is left"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{_facts(report)}
{_answers(report)}
{_controls(report)}
<pre id="prompt">{"".join(_prompt(report))}</pre>
{_sizes(report)}
<script type="application/json" id="data">{_data(report)}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""


def level(share: float) -> int:
    """The colour of a share: 0 for none alone, LEVELS for all alone."""
    if share <= 0:
        return 0
    return LEVELS if share >= 1 - 1e-6 else min(LEVELS - 1, 1 + int(share * (LEVELS - 1)))


def shown(text: str) -> str:
    """Text as HTML: white space to be seen, and nothing that controls the text around it."""
    out, end = [], 0
    for spaces in _SPACES.finditer(text):
        out.append(_plain(text[end : spaces.start()]))
        out.append(f"<i>{''.join(_SEEN[c] for c in spaces.group())}</i>")
        end = spaces.end()
    return "".join([*out, _plain(text[end:])])


def _plain(text: str) -> str:
    parts = []
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in _JOINERS:
            parts.append(f"<i>U+{ord(character):04X}</i>")
        else:
            parts.append(escape(character))
    return "".join(parts)


def _facts(report: EvictionReport) -> str:
    held = sum(layer.kv_bytes for layer in report.layers)
    full = sum(layer.full_bytes for layer in report.layers)
    books = sum(layer.bookkeeping_bytes for layer in report.layers)
    facts = {
        "host": f"{report.host} ({len(report.layers)} layers, {report.dtype} on {report.device})",
        "policy": f"{report.policy}, {report.rule}",
        "runs": report.ran,
        "prompt": f"{report.tokens:,} tokens",
        "cache": f"{in_bytes(held)} of {in_bytes(full)} ({100 * kept_share(report.layers):.1f}%) when the answer "
        f"begins, {100 * kept_share(report.after):.1f}% when it ends; and {in_bytes(books)} of bookkeeping",
    }
    if report.protect:
        facts["protected"] = "tokens " + ", ".join(f"{start} to {stop - 1}" for start, stop in report.protect)
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items())
    return f"<dl>{lines}</dl>"


def _answers(report: EvictionReport) -> str:
    texts = [_answer("Answer" if report.full is None else "Answer with what is left", report.policy, report.answer)]
    if report.full is not None:
        texts.append(_answer("Answer with the full cache", "full cache", report.full))
    return f'<div class="answers">{"".join(texts)}</div>'


def _answer(title: str, name: str, written: Written) -> str:
    small = written_line(name, written)
    return f"<section><h2>{title}</h2><pre>{escape(written.text)}</pre><small>{escape(small)}</small></section>"


def _controls(report: EvictionReport) -> str:
    count = len(report.layers)
    boxes = "".join(f'<span class="h{step}">{text}</span> ' for step, text in ((8, "all"), (4, "half"), (0, "none")))
    legend = [f"held by {boxes}of the heads"]
    if report.protect:
        legend.append('<span class="safe">protected</span>')
    if report.runs:
        legend.append(f'<b class="run">{report.runs[0]}</b>the policy ran here')
    legend.append("<i>· ↵ ⇥</i> white space")
    return f"""<div class="controls">
<p class="script"><label>layer <input id="layer" type="range" min="-1" max="{count - 1}" value="-1" step="1"></label>
<output id="said">all layers</output>
<label><input id="hide" type="checkbox"> only what is left</label></p>
<p>{" &emsp; ".join(legend)}</p>
<canvas id="map" class="script" title="layers by tokens; click for a layer and a place"></canvas>
</div>"""


def _prompt(report: EvictionReport) -> Iterator[str]:
    shares, runs = report.by_token, set(report.runs)
    for unit in report.units:
        share = sum(shares[unit.start : unit.stop]) / (unit.stop - unit.start)
        yield _token(unit, share, safe=any(a < unit.stop and unit.start < b for a, b in report.protect))
        for run in range(unit.start + 1, unit.stop + 1):
            if run in runs:
                yield f'<b class="run" title="the policy ran here, after {run:,} tokens">{run}</b>'


def _token(unit: Unit, share: float, *, safe: bool) -> str:
    classes = f"h{level(share)}" + (" safe" if safe else "") + (" special" if unit.special else "")
    number = unit.stop - unit.start
    several = f' data-n="{number}"' if number > 1 else ""
    title = f"{token_name(unit)} · held by {100 * share:.0f}% of all layers and heads"
    return f'<span class="{classes}"{several} title="{title}">{shown(unit.text)}</span>'


def token_name(unit: Unit) -> str:
    """Token 17, or tokens 17-19."""
    return f"token {unit.start}" if unit.stop == unit.start + 1 else f"tokens {unit.start}-{unit.stop - 1}"


def _sizes(report: EvictionReport) -> str:
    table = size_table(report)
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in table.lines)
    return (
        f"<details><summary>{escape(table.title)}</summary>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></details>"
    )


def _data(report: EvictionReport) -> str:
    """A digit for each token of each layer, how many of so many heads hold it; and what the slider says of a layer."""
    tops = [_top(layer) for layer in report.layers]
    rows = ",".join(
        '"' + "".join(_digit(share, top) for share in held) + '"' for held, top in zip(report.held, tops, strict=True)
    )
    said = ",".join(
        f'"layer {layer.layer}: {layer.tokens:,.0f} tokens a head, {100 * kept_share([layer]):.0f}%"'
        for layer in report.layers
    )
    heads = ",".join(str(layer.heads) for layer in report.layers)
    return f'{{"held":[{rows}],"tops":[{",".join(map(str, tops))}],"heads":[{heads}],"said":[{said}]}}'


def _top(layer: LayerCache) -> int:
    """What a digit is a share of: the heads, or so many parts where heads are more than digits."""
    return min(layer.heads, len(_DIGITS) - 1)


def _digit(share: float, top: int) -> str:
    part = round(share * top)
    if 0 < share < 1 - 1e-6:  # rounding makes none of some, nor all
        part = min(max(part, 1), max(top - 1, 1))
    return _DIGITS[part]
