"""What is trained: the video model, and beside it a linear layer that names the digit of a frame. Their loss by step.

The vision tower learns from single frames at first, as the towers of larger models come trained; then all learns. In
clips the decoder names the digit of each frame as well, at the frame's tokens: answers alone take long to begin.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config.hosts.video import VideoConfig
from .batches import NO_DIGIT, NONE, Batch, single_frames, train_batch
from .model import NUMBERS, build_model, pixel_values
from .questions import VIDEO


class Trainee(nn.Module):
    """The video model and a linear layer on its vision tower.

    Args:
        config: The run's.

    Attributes:
        video: The video model.
        naming: The linear layer: mean over the patches of a frame -> which digit it shows, or none.
    """

    def __init__(self, config: VideoConfig) -> None:
        super().__init__()
        self.config = config
        self.video = build_model(config)
        self.naming = nn.Linear(config.model.vision_width, NO_DIGIT + 1)
        self._words = torch.tensor([NUMBERS[word] for word in (*map(str, range(NO_DIGIT)), "no")])

    def loss(self, step: int) -> tuple[Tensor, int]:
        """The loss of a step, from 0, and the number of targets it is over."""
        training = self.config.training
        singles = round(training.single * training.steps)
        if step < singles:
            pixels, shown = single_frames(self.config, step, training.frames)
            return F.cross_entropy(self._named(self._patches(pixels)), shown.to(self._device)), len(shown)
        short = step < singles + round(training.short * training.steps)
        frames = min(training.short_frames, self.config.clips.frames) if short else self.config.clips.frames
        batch = train_batch(self.config, step, frames, training.short_batch if short else training.batch)
        return self._of_clips(batch)

    def _of_clips(self, batch: Batch) -> tuple[Tensor, int]:
        place = self._device
        logits = self.video(
            input_ids=batch.ids.to(place),
            pixel_values_videos=pixel_values(batch.pixels.to(place)),
            attention_mask=batch.mask.to(place),
            position_ids=batch.positions.to(place),
            use_cache=False,
        ).logits
        answers = F.cross_entropy(logits.flatten(0, 1), batch.targets.to(place).flatten(), ignore_index=NONE)
        of_frames = logits[batch.ids.to(place) == NUMBERS[VIDEO]]  # clip by clip, frame by frame
        words = self._words.to(place)[batch.shown.to(place)].flatten()
        named = F.cross_entropy(of_frames, words.repeat_interleave(len(of_frames) // len(words)))
        return answers + self.config.training.naming * named, int((batch.targets != NONE).sum())

    def _patches(self, pixels: Tensor) -> Tensor:
        return self.video.model.vision_tower(pixel_values(pixels.to(self._device))).last_hidden_state

    def _named(self, patches: Tensor) -> Tensor:
        return self.naming(patches[:, 1:].mean(1))  # without the class token, which the decoder does not get either

    @property
    def _device(self) -> torch.device:
        return self.naming.weight.device
