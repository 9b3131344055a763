"""The questions that a host is asked, by number: each about a clip of its own, kinds of question in turn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..config.hosts.video import KINDS, VideoConfig
from .clips import FRAME_KINDS, Clip, draw_clip
from .model import context_ids, frame_tokens
from .questions import BEFORE, Question, all_questions

TEXT = "text"
_FIRST = 1 + len(BEFORE)  # of the tokens of a clip, behind the words before it


@dataclass(frozen=True)
class Asked:
    """A question about a clip of its own.

    Attributes:
        number: Its number.
        clip: The clip, of pictures that no host is trained on.
        question: The question.
        tokens: Tokens of a frame.
    """

    number: int
    clip: Clip
    question: Question
    tokens: int

    @cached_property
    def kinds(self) -> dict[str, NDArray[np.bool_]]:
        """Of each kind of frame, and of text, which tokens of the context are of it [N]."""
        frames = np.repeat(np.array(self.clip.kinds), self.tokens)
        length = len(context_ids(len(self.clip.kinds), self.tokens))
        found = {}
        for kind in FRAME_KINDS:
            found[kind] = np.zeros(length, dtype=bool)
            found[kind][_FIRST : _FIRST + len(frames)] = frames == kind
        text = np.ones(length, dtype=bool)
        text[_FIRST : _FIRST + len(frames)] = False
        return {**found, TEXT: text}


def asked(config: VideoConfig, number: int) -> Asked:
    """The question of a number, about a clip that is drawn from the run's seed: hosts of other seeds get others.

    Args:
        config: The run's.
        number: The question's number; its kind is that of `KINDS` in turn.

    Returns:
        The question and its clip.
    """
    clip = draw_clip(config.clips, "test", config.seed, number)
    rng = np.random.default_rng([4, config.seed, number])
    kind = KINDS[number % len(KINDS)]
    fitting = [one for one in all_questions(clip, rng) if one.kind == kind]
    if kind == "shown":  # as often yes as no
        answer = ("yes", "no")[number // len(KINDS) % 2]
        fitting = [one for one in fitting if one.answer == answer]
    if not fitting:  # a clip of one digit has none that follows
        fitting = [one for one in all_questions(clip, rng) if one.kind == "first"]
    return Asked(number, clip, fitting[rng.integers(len(fitting))], frame_tokens(config))
