"""What a policy kept of a clip, as plain data: frames and words, who still holds their tokens, and the answers."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..labels import Table
from .report import LayerCache, Unit


@dataclass(frozen=True)
class Frame:
    """A frame of a clip: its tokens start to stop, by rows of the picture, its kind, its digit if any, and a PNG."""

    start: int
    stop: int
    kind: str
    digit: int | None
    picture: bytes

    @property
    def side(self) -> int:
        """Tokens of a row of the picture."""
        return round((self.stop - self.start) ** 0.5)

    @property
    def address(self) -> str:
        """The picture as the address of an image in a page."""
        return f"data:image/png;base64,{base64.b64encode(self.picture).decode()}"


@dataclass(frozen=True)
class ClipAnswer:
    """What a cache writes to the question, and the mean log-likelihood of the right answer in nats a token."""

    text: str
    log_likelihood: float


@dataclass(frozen=True)
class ClipReport:
    """A clip and its cache when the question begins: held [layers][tokens] is the share of heads that hold a token.

    mode: when the policy evicts, in words; words: the text around the clip; right: the right answer; evicted, full:
    what the evicted and the full cache write.
    """

    host: str
    policy: str
    rule: str
    mode: str
    number: int
    frames: tuple[Frame, ...]
    words: tuple[Unit, ...]
    held: list[list[float]]
    layers: tuple[LayerCache, ...]
    question: str
    right: str
    evicted: ClipAnswer
    full: ClipAnswer

    @property
    def by_token(self) -> list[float]:
        """The share of all heads that hold each token."""
        heads = np.array([layer.heads for layer in self.layers], dtype=float)
        return (heads @ np.array(self.held) / heads.sum()).tolist()


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode a picture [3, height, width] as a PNG file."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    _, height, width = pixels.shape
    rows = np.moveaxis(pixels, 0, 2).reshape(height, width * 3)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], 1)  # each row begins with its filter: none
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits of each of three colours
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(filtered.tobytes(), 9)),
         chunk(b"IEND", b""))
    )  # fmt: skip


def kinds_table(report: ClipReport) -> Table:
    """The share of tokens kept of each kind of frame, and of text, by layer: percent."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for frame in report.frames:
        spans.setdefault(frame.kind, []).append((frame.start, frame.stop))
    spans["text"] = [(word.start, word.stop) for word in report.words]
    counts = {"text": "words"} | {kind: "frames" for kind in spans if kind != "text"}
    lines, facts = [], []
    for kind, of_kind in spans.items():
        by_layer = [_mean(held, of_kind) for held in report.held]
        everywhere = _mean(report.by_token, of_kind)
        lines.append([kind, f"{len(of_kind)} {counts[kind]}", *(f"{100 * x:.0f}%" for x in (everywhere, *by_layer))])
        facts.append({"kind": kind, "count": len(of_kind), "kept": everywhere, "kept_by_layer": by_layer})
    columns = ["kind", "count", "all layers", *(f"layer {layer.layer}" for layer in report.layers)]
    return Table("What is kept of each kind of frame", columns, lines, facts, left=2)


def clip_facts(report: ClipReport) -> dict[str, Any]:
    """All numbers of a report, without pictures."""
    names = ("host", "policy", "rule", "mode", "number", "question", "right")
    return {
        **{name: getattr(report, name) for name in names},
        "answers": {name: vars(getattr(report, name)) for name in ("evicted", "full")},
        "frames": [
            {"start": one.start, "stop": one.stop, "kind": one.kind, "digit": one.digit} for one in report.frames
        ],
        "kinds": kinds_table(report).facts,
        "layers": [vars(layer) for layer in report.layers],
        "held": report.held,
    }


def _mean(held: Sequence[float], spans: Sequence[tuple[int, int]]) -> float:
    return float(np.mean([held[token] for start, stop in spans for token in range(start, stop)]))
