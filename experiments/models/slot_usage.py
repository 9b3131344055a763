"""Use statistics of a training run: which slots each memory layer looks up -> metrics of each window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...memory_layers.engram.layer import EngramLayer
from ...memory_layers.tables.table_layer import TableLayer
from ...memory_layers.usage import Usage, UsageWindow

if TYPE_CHECKING:
    from ..distributed.parallel import Parallelism


class SlotUsage:
    """Watches every memory layer of a model. `last` is what the last window held, by block."""

    def __init__(self, model: nn.Module) -> None:
        self.windows: dict[str, UsageWindow] = {}
        self.last: dict[str, Usage] = {}
        self._layers: list[TableLayer] = []
        for name, module in model.named_modules():
            if isinstance(module, TableLayer):
                block = next((part for part in name.split(".") if part.isdigit()), name)
                block = f"{block}.engram" if isinstance(module, EngramLayer) else block
                while block in self.windows:  # several memories beside one feed-forward
                    block += "+"
                self.windows[block] = UsageWindow(module.slots, next(module.parameters()).device)
                self._layers.append(module)
        self._watch(True)

    def count_only(self, mask: Tensor | None) -> None:
        """Tokens [T] that count in the next lookups; None is all."""
        for window in self.windows.values():
            window.mask = mask

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing inside."""
        self._watch(False)
        try:
            yield
        finally:
            self._watch(True)

    def gather(self, parallelism: Parallelism) -> None:
        """Put the windows of all ranks together on the first one, and begin new ones on the others."""
        if parallelism.world.size == 1:
            return  # as it is: a window that was put together again could differ in the last bit
        for window in self.windows.values():
            window.gather(parallelism.total, keep=parallelism.world.is_first)

    def gathered(self, parallelism: Parallelism) -> dict[str, Tensor]:
        """`state_tensors` of all ranks together, on the first one."""
        self.gather(parallelism)
        return self.state_tensors()

    def read(self) -> dict[str, dict[str, float]]:
        """The window's statistics by block, as metrics; a new window begins."""
        for block, window in self.windows.items():
            found = window.read()
            if found is not None:
                self.last[block] = found
            window.reset()
        return {block: {"used": found.used, "kl": found.kl} for block, found in self.last.items()}

    def state_tensors(self) -> dict[str, Tensor]:
        """The windows at hand and the last ones, by block."""
        found = {f"last/{block}": torch.tensor(usage, dtype=torch.float64) for block, usage in self.last.items()}
        for block, window in self.windows.items():
            found.update({f"{name}/{block}": tensor for name, tensor in window.state_tensors().items()})
        return found

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state_tensors` gave."""
        for block, window in self.windows.items():
            window.load_state_tensors({name: tensors[f"{name}/{block}"] for name in ("rows", "counts", "entropy")})
            if f"last/{block}" in tensors:
                used, kl, lookups = tensors[f"last/{block}"].tolist()
                self.last[block] = Usage(used, kl, int(lookups))

    def _watch(self, on: bool) -> None:
        for layer, window in zip(self._layers, self.windows.values(), strict=True):
            layer.observe = window.add if on else None
