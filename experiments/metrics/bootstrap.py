"""The bootstrap over prompts within families: figures of each prompt -> means over families with 95% intervals.

N prompts, K figures of each (policies side by side, say), R resamples. All figures see the same resamples, so that
differences between them are paired. Of a family of n prompts n - 1 are drawn, with replacement: their mean then varies
as much as the family's own does (Rao and Wu 1988, "Resampling Inference with Complex Survey Data", section 2), where n
of n would vary less by a factor of (n - 1) / n.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .estimates import Estimate

Array = NDArray[np.float64]


class Bootstrap:
    """Resamples of prompts by family, drawn once; a family of one prompt does not vary.

    Args:
        families: The family of each prompt [N].
        resamples: How many resamples are drawn.
        seed: Of the draw.

    Attributes:
        groups: The indices of each family's prompts.
    """

    def __init__(self, families: Sequence[str], *, resamples: int = 2000, seed: int = 0) -> None:
        draw = np.random.default_rng(seed)
        self.groups: dict[str, NDArray[np.int64]] = {}
        self._drawn: dict[str, NDArray[np.int64]] = {}
        self.resamples = resamples
        for family in dict.fromkeys(families):
            members = np.flatnonzero([name == family for name in families])
            self.groups[family] = members
            self._drawn[family] = members[draw.integers(len(members), size=(resamples, max(len(members) - 1, 1)))]

    def mean(self, figures: Array, families: Sequence[str] | None = None) -> Estimate:
        """Average a figure over prompts within each family, then over families.

        Args:
            figures: The figure of each prompt [N].
            families: The families that count; None for all.

        Returns:
            The mean with its bootstrap standard error and interval.
        """
        chosen = list(self.groups if families is None else families)
        value = np.mean([figures[self.groups[family]].mean() for family in chosen])
        drawn = np.mean([figures[self._drawn[family]].mean(1) for family in chosen], axis=0)
        return self._estimate(float(value), drawn, chosen)

    def ratio(self, figures: Array, base: Array, families: Sequence[str] | None = None) -> Estimate | None:
        """Average over families the ratio of two means over a family's prompts.

        A family whose base is 0 on average is left out, also of a resample in which it is.

        Args:
            figures: The numerator of each prompt [N].
            base: The denominator of each prompt [N].
            families: The families that count; None for all.

        Returns:
            The mean ratio, where n counts the prompts of families that are in; None if all are left out.
        """
        chosen = list(self.groups if families is None else families)
        chosen = [family for family in chosen if base[self.groups[family]].mean() != 0]
        if not chosen:
            return None
        groups = [self.groups[family] for family in chosen]
        value = np.mean([figures[group].mean() / base[group].mean() for group in groups])
        ratios = []  # of each family [R]; NaN where a resample has no base
        for drawn in map(self._drawn.__getitem__, chosen):
            below = base[drawn].mean(1)
            ratios.append(np.divide(figures[drawn].mean(1), below, out=np.full(len(drawn), np.nan), where=below != 0))
        count = np.isfinite(ratios).sum(0)
        drawn = np.divide(np.nansum(ratios, axis=0), count, out=np.full(len(count), np.nan), where=count > 0)
        return self._estimate(float(value), drawn, chosen)

    def _estimate(self, value: float, drawn: Array, families: Sequence[str]) -> Estimate:
        n = sum(len(self.groups[family]) for family in families)
        drawn = drawn[np.isfinite(drawn)]
        if len(drawn) < 2 or max(len(self.groups[family]) for family in families) < 2:
            return Estimate(value, n, None, value, value)
        low, high = np.quantile(drawn, [0.025, 0.975])
        return Estimate(value, n, float(drawn.std(ddof=1)), float(low), float(high))
