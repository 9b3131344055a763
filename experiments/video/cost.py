"""What a run of `memx train video` would be, for a dry run. No torch here."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from ...errors import MemxError
from ..config.hosts.video import VideoConfig
from ..runtime.options import Options


def check_environment(config: VideoConfig) -> None:
    """Raise MemxError if the pictures of digits, which every config needs, are not installed."""
    if find_spec("sklearn") is None:
        raise MemxError("video clips need scikit-learn", hint="pip install 'memx[universal]'")


def cost_of(config: VideoConfig, options: Options) -> dict[str, Any]:
    """What a run would be.

    Args:
        config: The run's config.
        options: Not read.

    Returns:
        Names and numbers in the order in which they are shown.
    """
    training, clips, model = config.training, config.clips, config.model
    single, short = round(training.single * training.steps), round(training.short * training.steps)
    tokens = (clips.size // model.patch // model.pool) ** 2
    return {
        "steps": training.steps,
        "of these on single frames": single,
        "of these on short clips": short,
        "frames of a clip": clips.frames,
        "tokens of a frame": tokens,
        "tokens of a clip": clips.frames * tokens,
        "decoder": f"{model.layers} layers of width {model.width}",
        "vision tower": f"{model.vision_layers} layers of width {model.vision_width}",
    }
