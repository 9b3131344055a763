"""Mean and variance of each input of a scorer over the tokens of calibration prompts: what standardises them."""

from __future__ import annotations

import torch
from torch import Tensor

from ....errors import MemxError
from .spectrum import BINS, SMALLEST_DEVIATION


class Normalisation:
    """Collects mean and variance of each input over batch, heads, tokens and layers, in float64."""

    def __init__(self, inputs: int = BINS) -> None:
        self.count = 0
        self.total = torch.zeros(inputs, dtype=torch.float64)
        self.squares = torch.zeros(inputs, dtype=torch.float64)

    def add(self, numbers: Tensor) -> None:
        """Count the inputs [..., inputs] of some tokens."""
        flat = numbers.detach().flatten(0, -2).double().cpu()
        self.count += len(flat)
        self.total += flat.sum(0)
        self.squares += flat.square().sum(0)

    def result(self) -> tuple[Tensor, Tensor]:
        """mean [inputs] and variance [inputs], float32. Raises MemxError if nothing was added."""
        if self.count == 0:
            raise MemxError("no features were collected for normalisation", hint="run the calibration prompts first")
        mean = self.total / self.count
        return mean.float(), (self.squares / self.count - mean.square()).clamp_min(0).float()


def standardise(numbers: Tensor, chosen: Tensor, mean: Tensor, variance: Tensor, eps: float = 0.0) -> Tensor:
    """Inputs less their mean, over their deviation: [..., inputs], float32.

    chosen [inputs], bool: which are standardised; the others stay as they are. mean, variance: of the chosen. eps is
    added to the variance: 0, or `OLD_EPS` for a NAMM that was made so.
    """
    chosen = chosen.to(numbers.device)
    shift, scale = torch.zeros(len(chosen), device=numbers.device), torch.ones(len(chosen), device=numbers.device)
    shift[chosen] = mean.to(numbers.device).float()
    scale[chosen] = (variance.to(numbers.device).float() + eps).sqrt().clamp_min(SMALLEST_DEVIATION)
    return (numbers - shift) / scale
