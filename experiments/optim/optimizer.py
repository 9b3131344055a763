"""AdamW for matrices, vectors and keys, dense or sparse Adam for value tables; schedule and clipping.

The value tables have their own learning rate, their own clipping norm and no decay (arXiv 2412.09764, section 3).
"""

from __future__ import annotations

from math import inf, isfinite
from typing import Any

import torch
from torch import nn

from ...memory_layers.llama import ultramem_layers_of
from ...memory_layers.product_keys import ProductKeys
from ...memory_layers.tables.values import MemoryValues
from ..config.training import TrainingConfig
from .schedule import learning_rate_share, value_rate_share
from .value_optimizer import ChooseRows, ValueOptimizer


class Optimizer:
    """AdamW for all weights of a model but its value tables, which have their own learning rate and no weight decay.

    The sparse step updates only the table rows that were read, with Adam. `step` also clips gradients and applies the
    learning-rate schedule. It works with any PyTorch module that contains memory layers.

    Source: Berges et al. 2024, "Memory Layers at Scale" (arXiv 2412.09764), section 3.

    Args:
        model: The model; its trainable parameters are updated.
        config: Learning rates, schedule, clipping, and how tables are updated.
        lookups: Table rows that a training step looks up, repeated ones counted. With `value_optimizer="auto"` the
            sparse step is used if the tables have at least as many rows.
        seed: Random seed of the stochastic rounding of bfloat16 tables.
        sgd: Update tables by SGD, which has no state. This selects the sparse step.
        trainable_rows: Chooses the rows that a step may train. This selects the sparse step, and so do sharded tables
            and tables in CPU memory.

    Example:
        ```python
        import torch
        from memx import MemoryLayer
        from memx.experiments.config.training import TrainingConfig
        from memx.experiments.optim.optimizer import Optimizer

        layer = MemoryLayer(64, slots=4096)
        optimizer = Optimizer(layer, TrainingConfig(steps=10, lr=3e-3, value_lr=1e-2), lookups=8 * 4 * 32)
        for step in range(10):
            layer(torch.randn(8, 64)).square().mean().backward()
            optimizer.step(step)  # also clears the gradients
        ```
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig,
        *,
        lookups: int = 0,
        seed: int = 0,
        sgd: bool = False,
        trainable_rows: ChooseRows | None = None,
    ) -> None:
        self.config = config
        self.groups = parameter_groups(model)
        tables = {name: table for name, table in model.named_modules() if isinstance(table, MemoryValues)}
        trained = {name: table for name, table in tables.items() if table.weight.requires_grad}
        for table in tables.values():
            table.gradient_buffer = None  # another optimizer may have left its own
        rows = sum(table.shape[0] for table in tables.values())
        apart = any(table.shard is not None or table.host is not None for table in tables.values())
        chosen = trained if sgd or trainable_rows is not None or apart or steps_sparsely(rows, config, lookups) else {}
        self.tables = ValueOptimizer(chosen, config, seed=seed, sgd=sgd, trainable_rows=trainable_rows)
        alone = {id(table.weight) for table in chosen.values()}
        self.groups["values"] = [(name, p) for name, p in self.groups["values"] if id(p) not in alone]
        peaks = {"matrices": config.lr, "others": config.lr, "values": config.value_lr}
        decays = {"matrices": config.weight_decay, "others": 0.0, "values": 0.0}
        self.names = [name for group in self.groups.values() for name, _ in group]
        groups = [
            dict(params=[p for _, p in group], lr=peaks[kind], peak=peaks[kind], weight_decay=decays[kind], kind=kind)
            for kind, group in self.groups.items()
            if group
        ]
        self.adam = torch.optim.AdamW(groups, betas=config.betas, fused=True) if groups else None

    @property
    def sparse(self) -> list[str]:
        """Names of the tables that the sparse step updates."""
        return list(self.tables.tables)

    @property
    def value_step(self) -> str:
        """How tables are updated: "sparse" or "dense"; empty without trained tables."""
        return "sparse" if self.sparse else "dense" if self.groups["values"] else ""

    def step(self, step: int) -> dict[str, float]:
        """Clip the gradients, update the weights and clear the gradients.

        Args:
            step: Number of the step, from 0; the schedule depends on it.

        Returns:
            L2 norms before clipping, `gradient_norm` and `value_gradient_norm`, and the learning rate `lr`.

        Raises:
            FloatingPointError: A norm is not finite; the weights are unchanged.
        """
        share, of_values = learning_rate_share(step, self.config), value_rate_share(step, self.config)
        rest = [p for kind in ("matrices", "others") for _, p in self.groups[kind]]
        norms = {"gradient_norm": self._clip(rest)} if rest else {}
        dense = [p for _, p in self.groups["values"]]
        rows, scale = self.tables.gradients(), 1.0
        if dense or self.tables.tables:
            squares = self.tables.squared_norms(rows)
            squares += [float(torch.linalg.vector_norm(p.grad)) ** 2 for p in dense if p.grad is not None]
            norm = norms["value_gradient_norm"] = sum(squares) ** 0.5
            scale = self._scale(norm)
            for p in dense:
                if p.grad is not None and scale < 1.0:
                    p.grad.mul_(scale)
        for name, norm in norms.items():
            if not isfinite(norm):
                raise FloatingPointError(f"the {name} is {norm}")
        if dense or self.tables.tables:
            self.tables.step(rows, step, self.config.value_lr * of_values, scale)
        if self.adam is not None:
            for group in self.adam.param_groups:
                group["lr"] = group["peak"] * (of_values if group["kind"] == "values" else share)
            self.adam.step()
            self.adam.zero_grad()
        return {**norms, "lr": self.config.lr * share}

    def reset(self) -> None:
        """Forget all moments, as before the first step; weights and learning rates stay."""
        self.tables.reset()
        if self.adam is not None:
            self.adam.state.clear()

    def _clip(self, parameters: list[nn.Parameter]) -> float:
        limit = inf if self.config.clip is None else self.config.clip
        norm: Any = nn.utils.clip_grad_norm_(parameters, limit)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)  # of weights that ranks share out

    def _scale(self, norm: float) -> float:
        return 1.0 if self.config.clip is None else min(1.0, self.config.clip / (norm + 1e-6))

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Return the optimizer's state for saving: moments and step counts by parameter name."""
        tensors = {f"tables/{key}": tensor for key, tensor in self.tables.state_tensors().items()}
        if self.adam is not None:
            parameters = (p for group in self.adam.param_groups for p in group["params"])
            for name, parameter in zip(self.names, parameters, strict=True):
                for key, value in self.adam.state.get(parameter, {}).items():
                    tensors[f"{name}/{key}"] = value
        return tensors

    def empty_state_tensors(self, device: str | None = None) -> dict[str, torch.Tensor]:
        """Tensors to read a state into, as `state_tensors` names them: zeros for moments, and the tables' own.

        Args:
            device: Where the zeros are; "meta" for none at all. None: where the weights are.
        """
        tensors = {f"tables/{key}": tensor for key, tensor in self.tables.state_tensors().items()}
        if self.adam is not None:
            parameters = (p for group in self.adam.param_groups for p in group["params"])
            for name, parameter in zip(self.names, parameters, strict=True):
                tensors[f"{name}/step"] = torch.zeros((), dtype=torch.float32, device=device or parameter.device)
                for key in ("exp_avg", "exp_avg_sq"):
                    tensors[f"{name}/{key}"] = torch.zeros_like(parameter.detach(), device=device)
        return tensors

    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Restore a state that `state_tensors` returned.

        Args:
            tensors: The tensors by name.
        """
        of_tables = {key: value for key, value in tensors.items() if key.startswith("tables/")}
        self.tables.load_state_tensors({key.removeprefix("tables/"): value for key, value in of_tables.items()})
        if self.adam is None:
            return
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key not in of_tables:
                name, _, moment = key.rpartition("/")
                state.setdefault(self.names.index(name), {})[moment] = value
        assert set(state) == set(range(len(self.names))) or not state, "moments are missing"
        self.adam.load_state_dict({**self.adam.state_dict(), "state": state})


def steps_sparsely(rows: int, config: TrainingConfig, lookups: int) -> bool:
    """Whether tables are stepped sparsely: as the config says, else if a step looks up no more rows than there are.

    Args:
        rows: of all tables together.
        config: whose `value_optimizer` may decide.
        lookups: of one step, each counted.
    """
    if config.value_optimizer != "auto":
        return config.value_optimizer == "sparse"
    return config.value_dtype != "float32" or lookups <= rows


def parameter_groups(model: nn.Module) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Split the parameters: value tables; keys, cores, norms and biases (never decayed); every other matrix."""
    values = {id(p) for module in model.modules() if isinstance(module, MemoryValues) for p in module.parameters()}
    keys = {id(module.keys) for module in model.modules() if isinstance(module, ProductKeys)}
    keys |= {id(layer.core) for layer in ultramem_layers_of(model)}
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {"matrices": [], "others": [], "values": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        vector = parameter.dim() < 2 or id(parameter) in keys
        groups["values" if id(parameter) in values else "others" if vector else "matrices"].append((name, parameter))
    return groups
