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
    """Resamples of prompts by family, drawn once; a family of one prompt does not vary."""

    def __init__(self, families: Sequence[str], *, resamples: int = 2000, seed: int = 0) -> None:
        """families [N]: of each prompt."""
        draw = np.random.default_rng(seed)
        self.groups: dict[str, NDArray[np.int64]] = {}
        self._drawn: dict[str, NDArray[np.int64]] = {}
        self.resamples = resamples
        for family in dict.fromkeys(families):
            own = np.flatnonzero([one == family for one in families])
            self.groups[family] = own
            self._drawn[family] = own[draw.integers(len(own), size=(resamples, max(len(own) - 1, 1)))]

    def mean(self, figures: Array, families: Sequence[str] | None = None) -> Estimate:
        """The mean over some families (None: all) of the mean over their prompts of figures [N]."""
        chosen = list(self.groups if families is None else families)
        value = np.mean([figures[self.groups[family]].mean() for family in chosen])
        drawn = np.mean([figures[self._drawn[family]].mean(1) for family in chosen], axis=0)
        return self._estimate(float(value), drawn, chosen)

    def ratio(self, figures: Array, base: Array, families: Sequence[str] | None = None) -> Estimate | None:
        """The mean over families of the ratio of means of figures [N] and base [N].

        A family whose base is 0 on average is left out, also of a resample in which it is; None if there is no other.
        n counts the prompts that are in.
        """
        chosen = list(self.groups if families is None else families)
        chosen = [family for family in chosen if base[self.groups[family]].mean() != 0]
        if not chosen:
            return None
        value = np.mean([figures[own].mean() / base[own].mean() for own in map(self.groups.__getitem__, chosen)])
        parts = []
        for drawn in map(self._drawn.__getitem__, chosen):
            below = base[drawn].mean(1)
            parts.append(np.divide(figures[drawn].mean(1), below, out=np.full(len(drawn), np.nan), where=below != 0))
        there = np.isfinite(parts)
        count = there.sum(0)
        drawn = np.divide(np.nansum(parts, axis=0), count, out=np.full(len(count), np.nan), where=count > 0)
        return self._estimate(float(value), drawn, chosen)

    def _estimate(self, value: float, drawn: Array, families: Sequence[str]) -> Estimate:
        n = sum(len(self.groups[family]) for family in families)
        drawn = drawn[np.isfinite(drawn)]
        if len(drawn) < 2 or max(len(self.groups[family]) for family in families) < 2:
            return Estimate(value, n, None, value, value)
        low, high = np.quantile(drawn, [0.025, 0.975])
        return Estimate(value, n, float(drawn.std(ddof=1)), float(low), float(high))
