"""Clips: frames in which digits hold still, move and change, between frames of other things; all drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config.hosts.video import ClipConfig
from .pictures import OTHERS, Pixels, Split, drawn_digit, drawn_other

CHANGING, MOVING, STATIC, REPEATED, OTHER = "changing", "moving", "static", "repeated", "distractor"
FRAME_KINDS = (CHANGING, MOVING, STATIC, REPEATED, OTHER)
"""A new digit; one that moved; one in its place under new noise; the frame before once more; no digit at all."""
_NOISE = 8.0  # standard deviation of a frame's own noise, of 255
_SPLITS = {"train": 0, "test": 1}


@dataclass(frozen=True)
class Clip:
    """A clip of F frames.

    Attributes:
        pixels: The frames, uint8 [F, 3, size, size].
        shown: The digit of each frame, -1 where there is none: [F].
        kinds: What each frame is, one of `FRAME_KINDS`: F names.
        order: The digits in the order in which they come, all different.
    """

    pixels: Pixels
    shown: NDArray[np.int64]
    kinds: tuple[str, ...]
    order: tuple[int, ...]

    def first_frame(self, digit: int) -> int:
        """The number of the frame in which a digit of the clip appears."""
        return int(np.flatnonzero(self.shown == digit)[0])


def draw_clip(config: ClipConfig, split: Split, seed: int, number: int, frames: int | None = None) -> Clip:
    """Draw a clip.

    Args:
        config: What clips are like.
        split: Which pictures it is made of; clips of "train" and "test" differ in their seeds as well.
        seed: Random seed of all clips.
        number: The clip's number; the same number gives the same clip.
        frames: Its length. None: that of the config. A clip that is too short for so many digits has fewer.

    Returns:
        The clip.
    """
    rng = np.random.default_rng([_SPLITS[split], seed, number])
    length = frames or config.frames
    most = max(1, min(config.most, length // 2))
    order = rng.permutation(10)[: rng.integers(min(config.fewest, most), most + 1)]
    parts: list[int] = []  # the digit of each part, -1 without
    for digit in (*order, None):
        if rng.random() < config.distractors and len(parts) + len(order) < length:
            parts.append(-1)
        parts += [] if digit is None else [int(digit)]
    lengths = _split_length(rng, length, len(parts))
    pixels, shown, kinds = [], [], []
    for digit, count in zip(parts, lengths, strict=True):
        made, of_frames = (
            _digit_part(rng, config, split, digit, count) if digit >= 0 else _other_part(rng, config, split, count)
        )
        pixels += made
        kinds += of_frames
        shown += [digit] * count
    return Clip(np.stack(pixels), np.array(shown), tuple(kinds), tuple(int(digit) for digit in order))


def draw_frame(rng: np.random.Generator, config: ClipConfig, split: Split, digit: int) -> Pixels:
    """Draw a single frame that shows a digit, or -1 for none: [3, size, size]."""
    frames, _ = _digit_part(rng, config, split, digit, 1) if digit >= 0 else _other_part(rng, config, split, 1)
    return frames[0]


def _split_length(rng: np.random.Generator, length: int, parts: int) -> list[int]:
    """A length as a sum of so many parts of at least 1, those of unequal sizes."""
    shares = rng.gamma(2.0, size=parts)
    extra = np.floor(shares / shares.sum() * (length - parts)).astype(int)
    extra[rng.integers(parts)] += length - parts - extra.sum()
    return [int(one) + 1 for one in extra]


def _digit_part(
    rng: np.random.Generator, config: ClipConfig, split: Split, digit: int, count: int
) -> tuple[list[Pixels], list[str]]:
    """Frames of one picture of a digit, which moves, holds still under noise, or stands still as it is."""
    side = int(rng.integers(config.size * 5 // 8, config.size * 7 // 8 + 1))
    picture = drawn_digit(rng, digit, split, side)[None] * rng.uniform(140, 255, (3, 1, 1))
    free = config.size - side
    place, speed = rng.uniform(0, free, 2), rng.choice([-2, -1, 1, 2], 2)
    frames, kinds = [], []
    kind = CHANGING
    for number in range(count):
        if number == 1 or (number > 1 and rng.random() < 0.15):
            kind = str(rng.choice([MOVING, STATIC, REPEATED], p=[0.35, 0.25, 0.4]))
        if kind == REPEATED:
            frames.append(frames[-1])
        else:
            if kind == MOVING:
                bounced = (place + speed < 0) | (place + speed > free)
                speed = np.where(bounced, -speed, speed)
                place = np.clip(place + speed, 0, free)
            canvas = rng.normal(20, _NOISE, (3, config.size, config.size))
            y, x = place.astype(int)
            canvas[:, y : y + side, x : x + side] += picture
            frames.append(np.clip(canvas, 0, 255).astype(np.uint8))
        kinds.append(kind)
    return frames, kinds


def _other_part(
    rng: np.random.Generator, config: ClipConfig, split: Split, count: int
) -> tuple[list[Pixels], list[str]]:
    """Frames without a digit: one picture that stands still, or a new one in each frame."""
    kind, changes = str(rng.choice(OTHERS)), rng.random() < 0.5
    frames = [drawn_other(rng, kind, split, config.size)]
    while len(frames) < count:
        frames.append(drawn_other(rng, kind, split, config.size) if changes else frames[-1])
    return frames, [OTHER] * count
