"""A mixture of experts, a baseline for the memory layer: hidden states [..., d] -> outputs [..., d].

Sources: Fedus et al. 2021, "Switch Transformers" (arXiv 2101.03961), section 2 for top-1 and the load-balance loss;
Jiang et al. 2024, "Mixtral of Experts" (arXiv 2401.04088) for k > 1. T tokens, E experts, f expert width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MoeLayer(nn.Module):
    """A mixture of SwiGLU experts: a router sends each token to the k experts that it scores best.

    The outputs of the selected experts are weighted by the router's probabilities. For k > 1 these are normalised to
    sum to one over the selected experts. An expert takes any number of tokens, so no token is dropped.

    Sources: Fedus et al. 2021, "Switch Transformers" (arXiv 2101.03961), section 2; Jiang et al. 2024, "Mixtral of
    Experts" (arXiv 2401.04088).

    Args:
        width: Width d of the hidden states.
        experts: Number of experts E.
        expert_width: Inner width f of an expert.
        top_k: Experts k for each token, from 1 to E.
        std: Standard deviation of the initial weights.

    Attributes:
        balance: Load-balance loss of the last forward pass in training mode: E times the sum over experts of (share of
            tokens sent to it * mean probability). It is 1 if all experts are used equally (Fedus et al., equation 4).
        counted: Tokens [T] that the load-balance loss counts, bool; set it to leave out padding. None: all.
    """

    def __init__(self, width: int, experts: int, expert_width: int, *, top_k: int = 1, std: float = 0.02) -> None:
        super().__init__()
        assert 1 <= top_k <= experts, f"top_k {top_k} is not in 1..{experts}"
        self.top_k, self.std = top_k, std
        self.router = nn.Linear(width, experts, bias=False)
        self.gate = nn.Parameter(torch.empty(experts, expert_width, width))
        self.up = nn.Parameter(torch.empty(experts, expert_width, width))
        self.down = nn.Parameter(torch.empty(experts, width, expert_width))
        self.balance: Tensor | None = None
        self.counted: Tensor | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw N(0, std), the down projections scaled to the expert's width, as the base draws its feed-forward."""
        for weight in (self.router.weight, self.gate, self.up):
            nn.init.normal_(weight, std=self.std)
        nn.init.normal_(self.down, std=self.std * (self.gate.shape[2] / self.gate.shape[1]) ** 0.5)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "balance": None, "counted": None}  # of a step, which no copy may share

    def route(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For x [T, d]: experts [T, k], best first, their weights [T, k], and all probabilities [T, E]."""
        probabilities = self.router(x).softmax(-1, dtype=torch.promote_types(x.dtype, torch.float32))
        weights, experts = probabilities.topk(self.top_k, dim=-1)
        if self.top_k > 1:
            weights = weights / weights.sum(-1, keepdim=True)
        return experts, weights, probabilities

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer's output; in training mode, also set `balance`.

        Args:
            x: Hidden states [..., d].

        Returns:
            The output [..., d], in the dtype of `x`.
        """
        flat = x.flatten(0, -2)  # [T, d]
        self.balance = None
        if not len(flat):
            return torch.zeros_like(x)
        experts, weights, probabilities = self.route(flat)
        counts = torch.bincount(experts.flatten(), minlength=len(self.gate))  # [E]
        if self.training:
            self.balance = self._balance(experts, probabilities)
        order = experts.flatten().argsort(stable=True)  # [T*k], tokens of one expert side by side
        rows = flat[order // self.top_k]
        # unbound at once: backward through each gate[i] alone would write a gradient of all experts
        each = zip(rows.split(counts.tolist()), self.gate.unbind(), self.up.unbind(), self.down.unbind(), strict=True)
        parts = [_expert(part, *matrices) for part, *matrices in each if len(part)]
        outputs = torch.cat(parts)[order.argsort()].unflatten(0, (-1, self.top_k))  # [T, k, d]
        return (outputs * weights.to(outputs.dtype)[..., None]).sum(1).to(x.dtype).view(x.shape)

    def _balance(self, experts: Tensor, probabilities: Tensor) -> Tensor:
        if self.counted is not None:
            experts, probabilities = experts[self.counted], probabilities[self.counted]
        share = torch.bincount(experts.flatten(), minlength=len(self.gate)) / max(1, experts.numel())
        return len(self.gate) * (share * probabilities.sum(0)).sum() / max(1, len(probabilities))


def _expert(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)
