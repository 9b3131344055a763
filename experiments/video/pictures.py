"""Pictures for frames: scikit-learn's digits, crops of its two photos, strokes and noise, as arrays of numbers.

A picture is uint8 [3, height, width].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import MemxError

Split = Literal["train", "test"]
Pixels = NDArray[np.uint8]
OTHERS = ("photo", "strokes", "noise")
_SIDE = 8  # of scikit-learn's pictures of digits
_BRIGHTEST = 16  # number of their brightest point


@dataclass(frozen=True)
class Digits:
    """Pictures of digits: images [N, 8, 8] in [0, 1], and which of them show each digit."""

    images: NDArray[np.float64]
    by_digit: tuple[NDArray[np.int64], ...]


@cache
def digits(split: Split) -> Digits:
    """Load scikit-learn's 1,797 pictures of digits; every fourth of each digit is for tests.

    Args:
        split: "train" or "test". No picture is in both.

    Returns:
        The pictures.

    Raises:
        MemxError: scikit-learn is not installed.
    """
    datasets = _datasets()
    found = datasets.load_digits()
    chosen = []
    for digit in range(10):
        of_digit = np.flatnonzero(found.target == digit)
        test = np.arange(len(of_digit)) % 4 == 3
        chosen.append(of_digit[test if split == "test" else ~test])
    return Digits(found.images / _BRIGHTEST, tuple(chosen))


@cache
def _photos(split: Split) -> tuple[Pixels, ...]:
    """scikit-learn's two photos [3, H, W]: their left three quarters to train on, the right quarter for tests."""
    photos = []
    for photo in _datasets().load_sample_images().images:
        edge = photo.shape[1] * 3 // 4
        photos.append(np.moveaxis(photo[:, edge:] if split == "test" else photo[:, :edge], 2, 0))
    return tuple(photos)


def _datasets() -> Any:
    try:
        from sklearn import datasets
    except ImportError:
        raise MemxError("video clips need scikit-learn", hint="pip install 'memx[universal]'") from None
    return datasets


def drawn_digit(rng: np.random.Generator, digit: int, split: Split, side: int) -> NDArray[np.float64]:
    """Draw a picture of a digit and enlarge it.

    Args:
        rng: Source of randomness.
        digit: The digit, 0 to 9.
        split: Which pictures to draw from.
        side: Its new height and width in pixels.

    Returns:
        Brightness in [0, 1], [side, side].
    """
    known = digits(split)
    image = known.images[rng.choice(known.by_digit[digit])]
    weights = _enlarging(side)
    return weights @ image @ weights.T


@cache
def _enlarging(side: int) -> NDArray[np.float64]:
    """Linear interpolation of 8 points to `side` points, as a matrix [side, 8]."""
    where = np.clip((np.arange(side) + 0.5) * _SIDE / side - 0.5, 0, _SIDE - 1)
    return np.maximum(0, 1 - np.abs(where[:, None] - np.arange(_SIDE)))


def drawn_other(rng: np.random.Generator, kind: str, split: Split, side: int) -> Pixels:
    """Draw a picture that shows no digit.

    Args:
        rng: Source of randomness.
        kind: One of `OTHERS`: "photo", a crop of a photo; "strokes", lines like those of letters; "noise".
        split: Which photos to crop.
        side: Height and width in pixels.

    Returns:
        The picture [3, side, side].
    """
    if kind == "photo":
        photo = _photos(split)[rng.integers(2)]
        zoom = int(rng.integers(1, 1 + min(4, min(photo.shape[1:]) // side)))
        y, x = (int(rng.integers(0, length - side * zoom + 1)) for length in photo.shape[1:])
        return np.ascontiguousarray(photo[:, y : y + side * zoom : zoom, x : x + side * zoom : zoom])
    if kind == "noise":
        return rng.integers(0, 256, (3, side, side), dtype=np.uint8)
    canvas = np.zeros((side, side))
    points = rng.uniform(0.15, 0.85, (int(rng.integers(3, 6)), 2)) * side
    for start, end in pairwise(points):
        for part in np.linspace(0, 1, 2 * side):
            y, x = (start + (end - start) * part).astype(int)
            canvas[y : y + 2, x : x + 2] = 1
    return (canvas * rng.uniform(120, 255, (3, 1, 1))).astype(np.uint8)
