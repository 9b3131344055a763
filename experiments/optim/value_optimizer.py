"""The optimizer of value tables: gradients kept as slots and weights -> an update of the touched rows alone.

Nothing here reads or writes a whole table: a step costs what its tokens touch, however many rows there are. Adam
would move an untouched row too, while its moments decay. Such updates are lazy: a row notes the step that touched it
last, and moves ahead by what Adam would move it until it is touched again, if that takes as long as the last time. When
it is touched, its moments decay for all steps between, and the guess is put right (`kernels/sparse_adam/catch_up.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace

import torch
from torch import Tensor

from ...errors import MemxError
from ...kernels.embedding_bag.gradient import BagGradient, RowGradient, row_gradient
from ...kernels.huge_pages import use_huge_pages
from ...kernels.sparse_adam import TableState, WholeRows, make_state, sparse_adam, sparse_sgd
from ...memory_layers.tables.exchange import total
from ...memory_layers.tables.table_shards import of_all_copies
from ...memory_layers.tables.values import MemoryValues
from ..config.training import TrainingConfig

# a table's name and what its gradient consists of -> the rows [U] that may be trained, sorted; None for all
ChooseRows = Callable[[str, list[BagGradient]], Tensor | None]


class ValueOptimizer:
    """Row-wise Adam, or SGD, over the named tables of a model. The tables' dense gradients are switched off."""

    def __init__(
        self,
        tables: Mapping[str, MemoryValues],
        config: TrainingConfig,
        *,
        seed: int = 0,
        sgd: bool = False,
        trainable_rows: ChooseRows | None = None,
    ) -> None:
        """Give each table a gradient buffer and the state of its rows.

        Args:
            tables: by name, as the model names them.
            config: betas, and the formats of moments and master weights.
            seed: of the stochastic rounding of bfloat16 tables.
            sgd: step by SGD, which keeps no state.
            trainable_rows: chooses the rows that a step may train; none for all.

        Raises:
            MemxError: with these betas, the lazy update of an untouched row would have no bound.
        """
        self.tables, self.config, self.seed, self.trainable_rows = dict(tables), config, seed, trainable_rows
        if self.tables and not sgd and config.betas[0] ** 2 >= config.betas[1]:
            raise MemxError(
                f"training.betas {config.betas}: the sparse value optimizer needs beta1 below sqrt(beta2)",
                hint="lower beta1, or set training.value_optimizer=dense",
            )
        self.states: dict[str, TableState] = {}
        self._trainable: dict[str, Tensor] = {}  # masks [N] by table, all false between steps
        for name, table in self.tables.items():
            table.gradient_buffer = []
            use_huge_pages(table.weight.detach())  # a loaded one does not lie there yet
            if trainable_rows is not None:
                self._trainable[name] = torch.zeros(len(table.weight), dtype=torch.bool, device=table.weight.device)
            if not sgd:
                self.states[name] = self._new_state(table)

    def _new_state(self, table: MemoryValues) -> TableState:
        return make_state(
            table.weight,
            second_moment=self.config.value_second_moment,
            moments=_moments(table.weight, self.config),
            masters=self.config.value_rounding == "masters" and table.weight.dtype != torch.float32,
        )

    def release(self) -> None:
        """Give the tables their dense gradients back."""
        for table in self.tables.values():
            table.gradient_buffer = None

    def gradients(self) -> dict[str, RowGradient]:
        """What the backward passes since the last step left, by table; a second call finds nothing."""
        gradients = {}
        for name, table in self.tables.items():
            parts = [_without_unused(_of_all(part, table), table) for part in table.pop_gradients()]
            if parts:
                gradients[name] = self._grouped(name, parts)
        return gradients

    def squared_norms(self, gradients: Mapping[str, RowGradient]) -> list[float]:
        """The squared L2 norm of each gradient, over all parts of a shared-out table."""
        norms = []
        for name, gradient in gradients.items():
            norm, shard = gradient.squared_norm(), self.tables[name].shard
            norms.append(float(total(norm, shard.group) if shard is not None and shard.size > 1 else norm))
        return norms

    def _grouped(self, name: str, parts: list[BagGradient]) -> RowGradient:
        rows = self.trainable_rows(name, parts) if self.trainable_rows else None
        size = len(self.tables[name].weight)
        if rows is None:
            return row_gradient(parts, size=size)
        trainable = self._trainable[name]
        trainable[rows] = True
        gradient = row_gradient(parts, keep=trainable, size=size)
        trainable[rows] = False  # a new mask would cost the whole table each step
        return gradient

    def step(self, gradients: Mapping[str, RowGradient], step: int, lr: float, scale: float) -> None:
        """Update the touched rows in step `step` (0-based); scale is the clipping's share of the gradients."""
        for place, (name, gradient) in enumerate(gradients.items()):
            values = self.tables[name].weight
            generator = self._generator(self.tables[name], step, place)
            if name in self.states:
                sparse_adam(
                    values.detach(),
                    gradient,
                    self.states[name],
                    step=step + 1,
                    lr=lr,
                    betas=self.config.betas,
                    scale=scale,
                    generator=generator,
                    whole=_whole_rows(self.tables[name]),
                )
            else:
                sparse_sgd(values.detach(), gradient, lr=lr, scale=scale, generator=generator)

    def _generator(self, table: MemoryValues, step: int, place: int) -> torch.Generator | None:
        if table.weight.dtype == torch.float32:
            return None  # nothing is rounded
        drawn = (self.seed * 1_000_003 + step) * 64 + place
        part = table.shard.rank if table.shard is not None else 0  # each rounds on its own
        return torch.Generator(table.weight.device).manual_seed(drawn + (part << 48))

    def state_tensors(self) -> dict[str, Tensor]:
        """Moments, last steps and master weights, by table."""
        return {
            f"{name}/{field.name}": tensor
            for name, state in self.states.items()
            for field in fields(state)
            if (tensor := getattr(state, field.name)) is not None
        }

    def reset(self) -> None:
        """Forget all moments, as before the first step; master weights stay."""
        for name, state in self.states.items():
            self.states[name] = replace(self._new_state(self.tables[name]), master=state.master)

    @torch.no_grad()
    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state_tensors` gave."""
        own = self.state_tensors()
        assert own.keys() == tensors.keys(), "the state is from a different optimizer"
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _moments(values: Tensor, config: TrainingConfig) -> torch.dtype:
    """The dtype that the config names; a float64 table, which no config asks for, keeps all its digits."""
    return torch.float64 if values.dtype == torch.float64 else getattr(torch, config.value_moments)


def _of_all(part: BagGradient, table: MemoryValues) -> BagGradient:
    return part if table.shard is None else of_all_copies(part, table.shard)


def _without_unused(part: BagGradient, table: MemoryValues) -> BagGradient:
    """Without the bags that no loss depends on, as those of padding: their rows were not touched."""
    if table.padded:
        part = _without_padding(part)
    counts = (part.dout != 0).any(-1)  # [B]
    if table.shard is not None and table.shard.size > 1 and table.shard.by == "width":
        counts = total(counts.int(), table.shard.group) > 0  # all columns of a bag, or none
    if part.bags is not None:
        counts = counts[part.bags[:, 0]]
        chosen = (part.slots[counts], part.weights[counts], part.dout, part.bags[counts])
        return part if bool(counts.all()) else BagGradient(*chosen)
    counts &= (part.weights != 0).any(-1)  # either factor may be the loss's
    return part if bool(counts.all()) else BagGradient(part.slots[counts], part.weights[counts], part.dout[counts])


def _without_padding(part: BagGradient) -> BagGradient:
    """Without slots that weigh nothing, each of the others with the number of its bag."""
    kept = part.weights != 0
    bags = part.bags
    if bags is None:
        bags = torch.arange(len(part.slots), device=part.slots.device)[:, None].expand(part.slots.shape)
    return BagGradient(part.slots[kept][:, None], part.weights[kept][:, None], part.dout, bags[kept][:, None])


def _whole_rows(table: MemoryValues) -> WholeRows | None:
    """How squares of a part's rows become those of whole rows; None where a part has them whole."""
    shard = table.shard
    if shard is None or shard.size == 1 or shard.by == "rows":
        return None
    return WholeRows(shard.width, lambda squares: total(squares, shard.group))
