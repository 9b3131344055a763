"""Clips and all their questions as one batch: each question sees the clip and itself, as if it came right after it.

B clips of a batch, N tokens of a clip with the words around it, M tokens of its questions and answers together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config.video import VideoConfig
from .clips import draw_clip
from .model import context_ids, frame_tokens, pixel_values, question_ids
from .questions import PAD, WORDS, draw_questions

NONE = -100  # a target that is not counted


@dataclass(frozen=True)
class Batch:
    """What the model takes: ids, positions and targets [B, N + M], mask [B, 1, N + M, N + M], pixels of the frames."""

    ids: Tensor
    positions: Tensor
    targets: Tensor
    mask: Tensor
    pixels: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(*(getattr(self, name).to(device) for name in ("ids", "positions", "targets", "mask", "pixels")))


def train_batch(config: VideoConfig, step: int, frames: int, count: int) -> Batch:
    """Draw the clips of a step and their questions.

    Args:
        config: The run's.
        step: Number of the step: the same number gives the same batch.
        frames: Frames of each clip.
        count: Number of clips.

    Returns:
        The batch.
    """
    rng = np.random.default_rng([2, config.seed, step])
    context = context_ids(frames, frame_tokens(config))
    rows, pixels = [], []
    for number in range(count):
        clip = draw_clip(config.clips, "train", config.seed, step * 4096 + number, frames)
        pixels.append(clip.pixels)
        rows.append([question_ids(question) for question in draw_questions(clip, rng, config.clips.questions)])
    return _batch(context, rows, torch.from_numpy(np.stack(pixels)))


def _batch(context: Sequence[int], rows: Sequence[Sequence[tuple[list[int], list[int]]]], pixels: Tensor) -> Batch:
    start = len(context)
    width = start + max(sum(len(asked) + len(answer) - 1 for asked, answer in row) for row in rows)
    ids = torch.full((len(rows), width), WORDS.index(PAD))
    positions, targets = torch.zeros_like(ids), torch.full_like(ids, NONE)
    part = torch.full_like(ids, -1)  # which question a token belongs to; 0: the clip; -1: none
    ids[:, :start], part[:, :start] = torch.tensor(context), 0
    positions[:, :start] = torch.arange(start)
    for row, questions in enumerate(rows):
        place = start
        for number, (asked, answer) in enumerate(questions, start=1):
            text = torch.tensor([*asked, *answer[:-1]])
            span = slice(place, place + len(text))
            ids[row, span], part[row, span] = text, number
            positions[row, span] = start + torch.arange(len(text))
            targets[row, place + len(asked) - 1 : span.stop] = torch.tensor(answer)
            place = span.stop
    own = (part[:, :, None] == part[:, None, :]) | (part[:, None, :] == 0)
    mask = own & torch.ones(width, width, dtype=torch.bool).tril()
    return Batch(ids, positions, targets, mask[:, None], pixel_values(pixels))
