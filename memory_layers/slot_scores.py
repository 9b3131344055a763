"""Which rows of a table a batch of new facts may change: TF-IDF of slots against batches of ordinary text.

Source: Lin et al. 2025, "Continual Learning via Sparse Memory Finetuning" (arXiv 2510.15103), section 3. N slots.
"""

from __future__ import annotations

import torch
from torch import Tensor


class SlotScores:
    """TF-IDF of slots: which rows a batch looks up often that batches of ordinary text seldom do.

    Source: Lin et al. 2025 (arXiv 2510.15103), section 3.

    Args:
        slots: N, the rows of the table.
        device: Where the counts [N] are.
    """

    def __init__(self, slots: int, device: torch.device | str = "cpu") -> None:
        self.batches = 0
        self.batches_with = torch.zeros(slots, dtype=torch.int32, device=device)

    @torch.no_grad()
    def add_reference(self, slots: Tensor) -> None:
        """Count one reference batch, given all the slots, any shape, that it looked up."""
        self.batches_with[torch.unique(slots).to(self.batches_with.device, torch.int64)] += 1
        self.batches += 1

    @torch.no_grad()
    def scores(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Score the rows that a batch looked up.

        score(i) = c(i) / sum of c * log((|B| + 1) / (number of reference batches with i + 1)), with c the lookups of
        the batch and |B| the number of reference batches.

        Args:
            slots: All slots that the batch looked up, any shape.

        Returns:
            Rows [U], ascending, and their scores [U], float64.
        """
        rows, counts = torch.unique(slots, return_counts=True)
        rarity = torch.log((self.batches + 1) / (self.batches_with[rows.long()].double() + 1))
        return rows, counts.double() / counts.sum() * rarity

    def top_rows(self, slots: Tensor, most: int) -> Tensor:
        """The at most `most` rows of a batch that score best, ascending [<= most]; ties go to the lower row."""
        rows, scores = self.scores(slots)
        best = scores.argsort(descending=True, stable=True)[:most]
        return rows[best].sort().values
