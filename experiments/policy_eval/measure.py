"""One prompt -> how well a host answers it with the full cache, and under each policy at each budget.

Post hoc one reading of the context serves all policies; online those of a budget read on in one batch after what they
share. Figures are those when the question begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from statistics import fmean
from typing import TYPE_CHECKING, Any
from zlib import crc32

import torch

from ...namm.cache.cache import EvictingCache
from ...namm.policies.base import Policy
from ...namm.policies.heuristics import Full
from ...namm.policies.keep import Allocation
from ...namm.policies.network import Namm
from ...namm.policies.panel import PolicyBatch, PolicySlots, keep_all
from ...namm.policies.shares import HeadShares
from ...namm.threshold import score_context, with_threshold
from ...results.namm.rows import CEILINGS, FULL, NAMM, THRESHOLD
from ..config.eviction.policy_eval import EvalConfig
from ..eviction.answers import Prompt, branched, feed, read
from ..eviction.kvzip import kvzip_scores
from ..eviction.measurements import CacheSize, Measurements, measure_answers
from .baselines import Baseline, baselines
from .cache_use import cache_use
from .online_thresholds import Thresholds

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


class PolicyEvaluator:
    """Measures all policies of an evaluation on a base model.

    Args:
        model: The base model, in eval mode.
        tokenizer: Its tokenizer, which writes greedy answers if `config.write` is set.
        config: The evaluation.
        namms: The NAMM of each entry of `config.namms`.
        check: Called before each batch; may raise to stop.
        shares: The table of head shares, if the config has the allocation table.
        thresholds: The threshold of NAMMs for each budget, by label, if the config asks for them.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast | None,
        config: EvalConfig,
        namms: Sequence[Namm],
        check: Callable[[], None] = lambda: None,
        shares: HeadShares | None = None,
        thresholds: Thresholds | None = None,
    ) -> None:
        assert tokenizer is not None or not (config.write or set(CEILINGS) & {*config.policies})
        self.model, self.config, self.check, self.tokenizer = model, config, check, tokenizer
        self.writer = tokenizer if config.write else None
        self.namms, self.shares, self.thresholds = namms, shares, thresholds or {}
        self.baselines = baselines(config, namms, config.seed, shares)
        self.slots = PolicySlots(tuple(baseline.make(0.5, "equal") for baseline in self.baselines))
        self.online = config.mode == "online"
        self.heads: list[int] = []  # query heads of each layer, once something was read

    @property
    def _with_thresholds(self) -> bool:
        """Whether NAMMs with a threshold are measured with one for each prompt too: layer_max does the same."""
        return "layer_max" not in self.config.allocations_for(NAMM)

    @torch.no_grad()
    def evaluate(self, prompt: Prompt) -> list[Measurements]:
        """Measure all policies on one prompt.

        Args:
            prompt: The prompt.

        Returns:
            The full cache, then every policy at every budget and allocation, then at the own size of each NAMM with a
            threshold that NAMM and the other policies.
        """
        shared = self.read(prompt.context)
        measured = [self._full(prompt, shared)]
        thresholds = [baseline for baseline in self.baselines if baseline.threshold]
        # online a threshold that yields a share cannot be known before the context is read
        equal = [] if self.online or not self._with_thresholds else thresholds
        equal = [self._with_equal_share(shared, baseline) for baseline in equal]
        for budget in self.config.shares:
            for allocation in self.config.all_allocations:
                chosen = self._with_allocation(self.baselines, allocation)
                measured += self._batches(prompt, shared, chosen, budget, CacheSize(budget), allocation)
            for baseline in self._with_calibrated(budget):
                measured += self._batches(prompt, shared, [baseline], budget, CacheSize(budget))
            for baseline in equal:  # one by one: each has a threshold of its own
                measured += self._batches(prompt, shared, [baseline], budget, CacheSize(budget))
        for baseline in thresholds:
            measured += self._own_size(prompt, shared, baseline, measured[0].cache.layers)
        return measured

    def read(self, context: torch.Tensor) -> EvictingCache:
        """Read what all policies share, and draw anew what the random policy evicts.

        Args:
            context: The tokens of a prompt's context [N].

        Returns:
            A cache of one sequence that holds all of it, or online what comes before the first eviction.
        """
        # seeded by the context, so that a resumed run draws the same whatever it skips
        seed = crc32(context.numpy().tobytes(), self.config.seed)
        stop = min(self.config.every, len(context)) if self.online else len(context)
        shared = read(self.model, context[:stop], self.slots, length=len(context))
        ceiling = None
        if set(CEILINGS) & {*self.config.policies}:
            assert self.tokenizer is not None and not self.online

            def after_context(policy: Policy) -> EvictingCache:
                return shared.fork(keep_all(self.slots), continue_with=policy)

            ceiling = kvzip_scores(self.model, self.tokenizer, context, after_context=after_context)
        self.baselines = baselines(self.config, self.namms, seed, self.shares, ceiling)
        self.heads = [0 if layer.state.recent is None else layer.state.recent.shape[1] for layer in shared.layers]
        return shared

    def chosen(self, context: torch.Tensor, shared: EvictingCache, members: tuple[Policy, ...]) -> EvictingCache:
        """Let each policy choose what it keeps of a context.

        Args:
            context: The tokens [N].
            shared: What `read` gave for them.
            members: The policies [B].

        Returns:
            A cache of one sequence for each policy [B], with the whole context read.
        """
        batch = PolicyBatch(self.slots, members)
        cache = branched(shared, batch, keep_all(self.slots), len(members), online=self.online)
        self._read_on(context, cache)
        return cache

    def own_budget(self, share: float, tokens: int, most: Sequence[float] = (1.0,)) -> float:
        """Find the budget under which layers together hold a share of a context when it is read.

        Args:
            share: The share of the context, 0 to 1.
            tokens: Its length.
            most: The share that each layer can hold, less than 1 where it has a window.

        Returns:
            The budget of every layer, to the nearest token.
        """
        every = self.config.every
        seen = tokens // every * every if self.online else tokens
        if not seen:
            return 1.0
        # layers with a window hold less than the others, so the same count for all must be searched for
        room = min(range(1, tokens + 1), key=lambda n: abs(fmean(min(n / tokens, top) for top in most) - share))
        # online the tokens after the last eviction are all held, and the budget is of those before it; half a token
        # more, so that rounding down gives this count whatever the division leaves
        return min(1.0, (max(room - (tokens - seen), 1) + 0.5) / seen)

    def sizes(self, prompt: Prompt, measured: Sequence[Measurements]) -> list[tuple[float, CacheSize]]:
        """List the sizes at which policies were measured, for implementations that run after them.

        Args:
            prompt: The prompt.
            measured: What `evaluate` gave for it.

        Returns:
            The share of the cache at each size, and the size as the tables name it for a policy that is no NAMM.
        """
        sizes = [(share, CacheSize(share)) for share in self.config.shares]
        for entry in measured:
            if entry.at.size == "own" and not entry.at.beside:
                share = self.own_budget(entry.cache.held, len(prompt.context), measured[0].cache.layers)
                sizes.append((share, CacheSize(None, "own", entry.variant)))
        return sizes

    def _with_equal_share(self, shared: EvictingCache, baseline: Baseline) -> Baseline:
        """A NAMM with its threshold where its layers together hold as much of this context as a share of each does.

        Heads of a layer hold as many as its most generous one, so that this is so in bytes as well.
        """
        policy: Any = baseline.make(None, "equal")
        scores = score_context(shared, PolicyBatch(self.slots, (policy,)))

        def make(share: float | None, allocation: Allocation) -> Policy:
            assert share is not None
            return with_threshold(policy, scores.threshold(scores.equal_share(share), "layer_max"), "layer_max")

        return Baseline(baseline.variant, make)

    def _with_calibrated(self, share: float) -> list[Baseline]:
        """NAMMs with the thresholds that were calibrated to keep a share while reading."""
        found = []
        for baseline in self.baselines:
            threshold = self.thresholds.get(baseline.variant, {}).get(share) if baseline.rule is not None else None
            if threshold is not None:
                policy: Any = baseline.make(share, "equal")
                moved = with_threshold(policy, threshold, "per_head")
                found.append(Baseline(baseline.variant + THRESHOLD, lambda share, allocation, moved=moved: moved))
        return found

    def _own_size(
        self, prompt: Prompt, shared: EvictingCache, namm: Baseline, most: Sequence[float]
    ) -> list[Measurements]:
        """A NAMM under its threshold, and the other policies at the share of bytes that it held."""
        own = self._batches(prompt, shared, [namm], None, CacheSize(None, "own"))
        budget = self.own_budget(own[0].cache.held, len(prompt.context), most)
        others = [baseline for baseline in self.baselines if baseline.rule is None]
        at = CacheSize(None, "own", namm.variant)
        for allocation in self.config.all_allocations:
            own += self._batches(prompt, shared, self._with_allocation(others, allocation), budget, at, allocation)
        return own

    def _with_allocation(self, chosen: Sequence[Baseline], allocation: Allocation) -> list[Baseline]:
        """Those that are evaluated with an allocation."""
        return [one for one in chosen if allocation in self.config.allocations_for(one.variant)]

    def _full(self, prompt: Prompt, shared: EvictingCache) -> Measurements:
        cache = shared.fork(keep_all(self.slots), continue_with=Full())
        self._read_on(prompt.context, cache)
        return self._measure(prompt, cache, [FULL], (Full(),), CacheSize(None))[0]

    def _read_on(self, context: torch.Tensor, cache: EvictingCache) -> None:
        done = cache.get_seq_length()
        if done < len(context):
            feed(self.model, context[done:], cache)

    def _batches(
        self,
        prompt: Prompt,
        shared: EvictingCache,
        chosen: Sequence[Baseline],
        share: float | None,
        at: CacheSize,
        allocation: Allocation = "equal",
    ) -> list[Measurements]:
        """Measure some policies, made for the same share of the cache and one allocation of it, in batches."""
        made = [(baseline.called(share, allocation), baseline.make(share, allocation)) for baseline in chosen]
        measured: list[Measurements] = []
        # a batch has one rule: that of a NAMM may protect more tokens than that of the others
        for _, alike in groupby(made, key=lambda one: one[1].rule):
            same = list(alike)
            for start in range(0, len(same), self.config.at_once):
                self.check()
                names, members = zip(*same[start : start + self.config.at_once], strict=True)
                cache = self.chosen(prompt.context, shared, members)
                measured += self._measure(prompt, cache, names, members, at)
        return measured

    def _measure(
        self, prompt: Prompt, cache: EvictingCache, names: Sequence[str], members: tuple[Policy, ...], at: CacheSize
    ) -> list[Measurements]:
        """What each sequence of a cache holds and answers."""
        # before the answers, which the cache reads on with
        uses = [
            (name, cache_use(cache, number, member, self.heads))
            for number, (name, member) in enumerate(zip(names, members, strict=True))
        ]
        return measure_answers(self.model, prompt, cache, uses, at, self.writer)
