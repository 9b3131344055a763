"""AdamW in three groups (matrices, vectors and keys, value tables), its schedule and its clipping.

The value tables have their own learning rate, their own clipping norm and no decay (arXiv 2412.09764, section 3).
"""

from __future__ import annotations

from math import cos, pi

import torch
from torch import nn

from ..memory_layers.layer import MemoryLayer, MemoryValues
from .config import TrainingConfig


class Optimizer:
    """AdamW over a model, stepped with the learning rate of its schedule."""

    def __init__(self, model: nn.Module, config: TrainingConfig) -> None:
        self.config = config
        self.groups = parameter_groups(model)
        peaks = {"matrices": config.lr, "others": config.lr, "values": config.value_lr}
        decays = {"matrices": config.weight_decay, "others": 0.0, "values": 0.0}
        self.names = [name for group in self.groups.values() for name, _ in group]
        self.adam = torch.optim.AdamW(
            [
                {"params": [p for _, p in group], "lr": peaks[kind], "peak": peaks[kind], "weight_decay": decays[kind]}
                for kind, group in self.groups.items()
                if group
            ],
            betas=config.betas,
            fused=True,
        )

    def step(self, step: int) -> dict[str, float]:
        """Clip, update and clear the gradients of step `step` (0-based); returns the norms and the learning rate."""
        share = learning_rate_share(step, self.config)
        for group in self.adam.param_groups:
            group["lr"] = group["peak"] * share
        rest = [p for kind in ("matrices", "others") for _, p in self.groups[kind]]
        values = [p for _, p in self.groups["values"]]
        norms = {"gradient_norm": self._clip(rest)}
        if values:
            norms["value_gradient_norm"] = self._clip(values)
        self.adam.step()
        self.adam.zero_grad()
        return {**norms, "lr": self.config.lr * share}

    def _clip(self, parameters: list[nn.Parameter]) -> float:
        limit = float("inf") if self.config.clip is None else self.config.clip
        return float(nn.utils.clip_grad_norm_(parameters, limit))

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """The moments and step counts, by parameter name."""
        state = self.adam.state
        parameters = (p for group in self.adam.param_groups for p in group["params"])
        return {
            f"{name}/{key}": value
            for name, parameter in zip(self.names, parameters, strict=True)
            for key, value in state.get(parameter, {}).items()
        }

    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Restore what `state_tensors` gave."""
        parameters = [p for group in self.adam.param_groups for p in group["params"]]
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            name, _, moment = key.rpartition("/")
            state.setdefault(self.names.index(name), {})[moment] = value
        plain = self.adam.state_dict()
        assert set(state) == set(range(len(parameters))) or not state, "moments are missing"
        self.adam.load_state_dict({**plain, "state": state})


def parameter_groups(model: nn.Module) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Split the parameters: value tables; keys, norms and biases (never decayed); every other matrix."""
    values = {id(p) for module in model.modules() if isinstance(module, MemoryValues) for p in module.parameters()}
    keys = {id(module.keys) for module in model.modules() if isinstance(module, MemoryLayer)}
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {"matrices": [], "others": [], "values": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        vector = parameter.dim() < 2 or id(parameter) in keys
        groups["values" if id(parameter) in values else "others" if vector else "matrices"].append((name, parameter))
    return groups


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
