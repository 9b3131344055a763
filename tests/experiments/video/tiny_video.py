"""A tiny video model's config: seconds of training, too short to learn anything."""

from __future__ import annotations

from typing import Any

import torch
from memx.experiments.config.hosts.kinds import load_host_config
from memx.experiments.config.hosts.video import VideoConfig
from memx.experiments.video.host import VideoHost
from memx.experiments.video.model import build_model

SETTINGS: dict[str, Any] = {
    "clips.frames": 16,
    "clips.questions": 6,
    "model.width": 32,
    "model.layers": 2,
    "model.feed_forward": 32,
    "model.vision_width": 16,
    "model.vision_layers": 1,
    "model.vision_heads": 2,
    "training.steps": 5,
    "training.batch": 2,
    "training.frames": 4,
    "training.short_frames": 4,
    "training.short_batch": 2,
    "training.checkpoint_every": 2,
    "training.threads": 1,
    "evaluation.units": 14,
    "evaluation.at_once": 7,
    "evaluation.every": 32,
}


def video_config(**changes: Any) -> VideoConfig:
    """Such a config; keys with two underscores for dots."""
    given = {key.replace("__", "."): value for key, value in changes.items()}
    config = load_host_config("video", list((SETTINGS | given).items()))
    assert isinstance(config, VideoConfig)
    return config


def random_host(mode: str = "post_hoc", **changes: Any) -> VideoHost:
    """A host with random weights in float64, larger than usual, so that its attention differs between tokens."""
    config = video_config(**changes)
    torch.manual_seed(0)
    model = build_model(config).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, weight[0].numel() ** -0.5, generator=generator)
    return VideoHost(model, config, mode)
