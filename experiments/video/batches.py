"""Clips and all their questions as one batch: each question sees the clip and itself, as if it came right after it.

B clips of a batch, N tokens of a clip with the words around it, M tokens of its questions and answers together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config.hosts.video import VideoConfig
from .clips import Clip, draw_clip, draw_frame
from .model import context_ids, frame_tokens, question_ids
from .questions import PAD, WORDS, draw_questions

NONE = -100  # a target that is not counted
NO_DIGIT = 10


@dataclass(frozen=True)
class Batch:
    """What the model takes.

    Attributes:
        ids: Tokens [B, N + M].
        positions: Their positions.
        targets: The token after each, where it is of an answer; else `NONE`.
        mask: Which tokens each sees [B, 1, N + M, N + M], bool.
        pixels: The frames [B, F, 3, size, size], uint8.
        shown: The digit of each frame [B, F], `NO_DIGIT` where there is none.
    """

    ids: Tensor
    positions: Tensor
    targets: Tensor
    mask: Tensor
    pixels: Tensor
    shown: Tensor


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
    rows, clips = [], []
    for number in range(count):
        clip = draw_clip(config.clips, "train", config.seed, step * 4096 + number, frames)
        clips.append(clip)
        rows.append([question_ids(question) for question in draw_questions(clip, rng, config.clips.questions)])
    return make_batch(context, rows, clips)


def single_frames(config: VideoConfig, step: int, count: int) -> tuple[Tensor, Tensor]:
    """Draw single frames of digits and of other things.

    Args:
        config: The run's.
        step: Number of the step: the same number gives the same frames.
        count: Number of frames.

    Returns:
        Pixels [count, 3, size, size], uint8, and the digit of each [count], `NO_DIGIT` where there is none.
    """
    rng = np.random.default_rng([3, config.seed, step])
    shown = rng.integers(0, 12, count)
    frames = [draw_frame(rng, config.clips, "train", int(digit) if digit < NO_DIGIT else -1) for digit in shown]
    return torch.from_numpy(np.stack(frames)), torch.from_numpy(shown.clip(max=NO_DIGIT))


def make_batch(
    context: Sequence[int], rows: Sequence[Sequence[tuple[list[int], list[int]]]], clips: Sequence[Clip]
) -> Batch:
    """Put clips and their questions together.

    Args:
        context: The tokens of a clip with the words around it, alike for all.
        rows: For each clip the tokens of its questions and answers.
        clips: The clips.
    """
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
    shown = torch.from_numpy(np.stack([clip.shown for clip in clips]))
    pixels = torch.from_numpy(np.stack([clip.pixels for clip in clips]))
    return Batch(ids, positions, targets, mask[:, None], pixels, torch.where(shown < 0, NO_DIGIT, shown))
