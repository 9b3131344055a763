"""The learning-rate schedule: step -> share of the peak. No torch here."""

from __future__ import annotations

from math import cos, pi

from ..config.training import TrainingConfig


def warmup_cosine(step: int, steps: int, warmup: int, final: float) -> float:
    """Linear warm-up, then a cosine down to a share of the peak.

    Args:
        step: From 0.
        steps: Steps in all.
        warmup: Steps of warm-up.
        final: The last rate as a share of the peak.

    Returns:
        The learning rate of the step as a share of its peak.
    """
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return final + (1 - final) * 0.5 * (1 + cos(pi * min(1.0, done)))


def learning_rate_share(step: int, config: TrainingConfig) -> float:
    """The learning rate of a step (0-based) as a share of its peak: linear warm-up, then cosine or stable-and-decay."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "cosine":
        done = (step - config.warmup) / max(1, config.steps - config.warmup)
        falling = 0.5 * (1 + cos(pi * min(1.0, done)))
    else:
        decay_steps = max(1, round(config.decay * config.steps))
        falling = min(1.0, (config.steps - step) / decay_steps)
    return config.final_lr + (1 - config.final_lr) * falling


def value_rate_share(step: int, config: TrainingConfig) -> float:
    """The same of value tables: that of all weights, or linear warm-up, then linear decay (arXiv 2411.12364)."""
    if config.value_schedule == "same" or step < config.warmup:
        return learning_rate_share(step, config)
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.final_lr + (1 - config.final_lr) * (1 - min(1.0, done))
