"""Which rows of a table a batch of new facts may change: slots scored against batches of ordinary text. N slots.

Sources: TF-IDF: Lin et al. 2025, "Continual Learning via Sparse Memory Finetuning" (arXiv 2510.15103), section 3; the
divergence from ordinary text: arXiv 2604.05248.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

SlotScore = Literal["tfidf", "kl"]


class SlotScores:
    """Scores of slots: which rows a batch looks up often that batches of ordinary text seldom do.

    Source: Lin et al. 2025 (arXiv 2510.15103), section 3, for `tfidf`; arXiv 2604.05248 for `kl`.

    Args:
        slots: N, the rows of the table.
        device: Where the counts [N] are.
        by: The score: `tfidf`, or `kl`, a slot's share of the divergence of the batch's lookups from those of text.
    """

    def __init__(self, slots: int, device: torch.device | str = "cpu", *, by: SlotScore = "tfidf") -> None:
        self.by = by
        self.batches = 0
        self.batches_with = torch.zeros(slots, dtype=torch.int32, device=device)
        self.lookups = torch.zeros(slots, dtype=torch.int64, device=device)

    @torch.no_grad()
    def add_reference(self, slots: Tensor) -> None:
        """Count one reference batch, given all the slots, any shape, that it looked up."""
        rows, counts = torch.unique(slots, return_counts=True)
        rows = rows.to(self.lookups.device, torch.int64)
        self.batches_with[rows] += 1
        self.lookups[rows] += counts.to(self.lookups.device)
        self.batches += 1

    @torch.no_grad()
    def scores(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Score the rows that a batch looked up.

        With p(i) = c(i) / sum of c the batch's share of lookups of row i:

        - tfidf: p(i) * log((|B| + 1) / (number of reference batches with i + 1)), |B| the number of these batches;
        - kl: p(i) * log(p(i) / q(i)), with q(i) = (r(i) + 1) / (sum of r + N) and r(i) the lookups of all reference
          batches. The scores of all rows add up to the Kullback-Leibler divergence of p from q.

        Args:
            slots: All slots that the batch looked up, any shape.

        Returns:
            Rows [U], ascending, and their scores [U], float64.
        """
        rows, counts = torch.unique(slots, return_counts=True)
        share = counts.double() / counts.sum()
        if self.by == "tfidf":
            return rows, share * torch.log((self.batches + 1) / (self.batches_with[rows.long()].double() + 1))
        # one more lookup of each row: q is nowhere zero
        usual = (self.lookups[rows.long()].double() + 1) / (self.lookups.sum() + len(self.lookups))
        return rows, share * torch.log(share / usual)

    def top_rows(self, slots: Tensor, most: int) -> Tensor:
        """The at most `most` rows of a batch that score best, ascending [<= most]; ties go to the lower row."""
        rows, scores = self.scores(slots)
        best = scores.argsort(descending=True, stable=True)[:most]
        return rows[best].sort().values
