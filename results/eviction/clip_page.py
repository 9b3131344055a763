"""What was evicted of a clip, to see: one HTML page with its frames as pictures, kept or struck, by layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ..labels import in_bytes
from .clip_report import ClipReport, Frame, kinds_table
from .page import level, shown
from .report import kept_share


class _Picture(NamedTuple):
    """A frame on the page: address, classes, caption and tooltip, and the number and level of each of its tokens."""

    address: str
    classes: str
    caption: str
    title: str
    side: int
    tokens: list[tuple[int, int]]


class _Word(NamedTuple):
    """A word on the page."""

    token: int
    classes: str
    text: Markup


def clip_page(report: ClipReport) -> str:
    """The page of a clip: self-contained, readable in light and dark, without its script too.

    Args:
        report: The clip, its cache and the answers.

    Returns:
        HTML; without the script, what is struck is that over all layers.
    """
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, keep_trailing_newline=True)
    shares = report.by_token
    stop = report.frames[0].start
    words = [_Word(one.start, f"h{level(shares[one.start])}", shown(one.text)) for one in report.words]
    return templates.get_template("clip.html").render(
        title=f"{report.policy} on {report.host}: {100 * kept_share(report.layers):.0f}% of the cache kept",
        report=report,
        facts=_facts(report),
        answers=[
            ("Answer with the evicted cache", report.evicted, report.evicted.text == report.right),
            ("Answer with the full cache", report.full, report.full.text == report.right),
        ],
        pictures=[_picture(frame, number, shares) for number, frame in enumerate(report.frames)],
        before=[word for word in words if word.token < stop],
        behind=[word for word in words if word.token > stop],
        table=kinds_table(report),
        data=Markup(_data(report)),  # JSON of numbers alone
    )


def _facts(report: ClipReport) -> dict[str, str]:
    held, full = (sum(getattr(layer, name) for layer in report.layers) for name in ("kv_bytes", "full_bytes"))
    return {
        "model": f"{report.host} ({len(report.layers)} layers)",
        "policy": f"{report.policy}, {report.rule}",
        "evictions": report.mode,
        "clip": f"{len(report.frames)} frames, {len(report.held[0]):,} tokens with the words around them",
        "cache": f"{in_bytes(held)} of {in_bytes(full)} ({100 * kept_share(report.layers):.1f}%)",
    }


def _picture(frame: Frame, number: int, shares: list[float]) -> _Picture:
    of_frame = shares[frame.start : frame.stop]
    mean = sum(of_frame) / len(of_frame)
    digit = "no digit" if frame.digit is None else f"digit {frame.digit}"
    return _Picture(
        address=frame.address,
        classes="frame" if any(of_frame) else "frame gone",
        caption=frame.kind,
        title=f"frame {number}: {frame.kind}, {digit} · {100 * mean:.0f}% kept",
        side=frame.side,
        tokens=[(frame.start + place, level(share)) for place, share in enumerate(of_frame)],
    )


def _data(report: ClipReport) -> str:
    return json.dumps(
        {
            "held": [[round(share, 4) for share in held] for held in report.held],
            "heads": [layer.heads for layer in report.layers],
            "said": [
                f"layer {layer.layer}: {layer.tokens_text} tokens per head, {100 * kept_share([layer]):.0f}%"
                for layer in report.layers
            ],
        },
        separators=(",", ":"),
    )
