"""One prompt -> how well a host answers it with the full cache, and under each policy at each budget.

Post hoc one reading of the context serves all policies; online those of a budget read on in one batch after what they
share. Figures are those when the question begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from zlib import crc32

import torch

from ...namm.cache.cache import EvictingCache
from ...namm.policies.base import Policy
from ...namm.policies.heuristics import Full
from ...namm.policies.keep import Allocation
from ...namm.policies.network import Namm
from ...namm.policies.panel import PolicyBatch, PolicySlots, keep_all
from ...namm.policies.shares import HeadShares, allowed
from ...namm.threshold import score_context, with_threshold
from ...results.namm.rows import CEILINGS, FULL
from ..config.eviction.policy_eval import EvalConfig
from ..eviction.answers import Prompt, branched, feed, read
from ..eviction.kvzip import kvzip_scores
from ..eviction.measurements import CacheSize, Measurements, measure_answers
from .baselines import Baseline, baselines
from .cache_use import cache_use
from .online_thresholds import Thresholds, with_calibrated
from .own_size import own_budget
from .rows import Key

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
        taken: Policies and sizes that were measured before, and are told of each prompt; they are not measured again.
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
        taken: frozenset[Key] = frozenset(),
    ) -> None:
        assert tokenizer is not None or not (config.write or set(CEILINGS) & {*config.policies})
        self.model, self.config, self.check, self.tokenizer = model, config, check, tokenizer
        self.writer = tokenizer if config.write else None
        self.namms, self.shares, self.thresholds = namms, shares, thresholds or {}
        self.taken, self.known = taken, dict[Key, Measurements]()
        self.baselines = baselines(config, namms, config.seed, shares)
        measured = [one for one in self.baselines if not self._all_taken(one)]
        self.slots = PolicySlots(tuple(baseline.make(0.5, "equal") for baseline in measured))
        self.online = config.mode == "online"
        self.heads: list[int] = []  # query heads of each layer, once something was read

    @torch.no_grad()
    def evaluate(self, prompt: Prompt, known: Mapping[Key, Measurements] = MappingProxyType({})) -> list[Measurements]:
        """Measure all policies on one prompt.

        Args:
            prompt: The prompt.
            known: What was measured before: that of all that is taken over.

        Returns:
            The full cache, then every policy at every budget and allocation, then at the own size of each NAMM with a
            threshold that NAMM and the other policies.
        """
        self.known = known
        shared = self.read(prompt.context)
        measured = [self._full(prompt, shared)]
        thresholds = [baseline for baseline in self.baselines if baseline.threshold]
        # online a threshold that yields a share cannot be known before the context is read; layer_max is that already
        plain = [one for one in thresholds if "layer_max" not in self.config.allocations_for(one.variant)]
        equal = [] if self.online else [self._with_equal_share(shared, baseline) for baseline in plain]
        for budget in self.config.shares:
            for allocation in self.config.all_allocations:
                chosen = self._with_allocation(self.baselines, allocation)
                measured += self._batches(prompt, shared, chosen, budget, CacheSize(budget), allocation)
            for baseline in with_calibrated(self.baselines, self.thresholds, budget):
                measured += self._batches(prompt, shared, [baseline], budget, CacheSize(budget))
            for baseline in equal:  # one by one: each has a threshold of its own
                measured += self._batches(prompt, shared, [baseline], budget, CacheSize(budget))
        for baseline in thresholds:
            measured += self._own_size(prompt, shared, baseline, measured[0].cache.layers)
        return measured

    def read(self, context: torch.Tensor, *, ceilings: bool = True) -> EvictingCache:
        """Read what all policies share, and draw anew what the random policy evicts.

        Args:
            context: The tokens of a prompt's context [N].
            ceilings: Read it once more for policies that do so; without, those cannot be asked.

        Returns:
            A cache of one sequence that holds all of it, or online what comes before the first eviction.
        """
        # seeded by the context, so that a resumed run draws the same whatever it skips
        seed = crc32(context.numpy().tobytes(), self.config.seed)
        stop = min(self.config.every, len(context)) if self.online else len(context)
        shared = read(self.model, context[:stop], self.slots, length=len(context))
        ceiling = None
        if ceilings and any(one.variant in CEILINGS and not self._all_taken(one) for one in self.baselines):
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

    def _with_equal_share(self, shared: EvictingCache, baseline: Baseline) -> Baseline:
        """A NAMM with its threshold where its layers together hold as much of this context as a share of each does.

        Heads of a layer hold as many as its most generous one, so that this is so in bytes as well.
        """
        policy: Any = baseline.make(None, "equal")
        length = shared.get_seq_length()
        scores = score_context(shared, PolicyBatch(self.slots, (policy,)))

        def make(share: float | None, allocation: Allocation) -> Policy:
            assert share is not None
            return with_threshold(
                policy,
                scores.threshold(scores.equal_share(float(allowed(share, length) / length)), "layer_max"),
                "layer_max",
            )

        return Baseline(baseline.variant, make)

    def _own_size(
        self, prompt: Prompt, shared: EvictingCache, namm: Baseline, most: Sequence[float]
    ) -> list[Measurements]:
        """A NAMM under its threshold, and the other policies at the share of bytes that it held."""
        own = self._batches(prompt, shared, [namm], None, CacheSize(None, "own"))
        budget = own_budget(self.config, own[0].cache.held, len(prompt.context), most)
        others = [baseline for baseline in self.baselines if baseline.rule is None]
        at = CacheSize(None, "own", namm.variant)
        for allocation in self.config.all_allocations:
            own += self._batches(prompt, shared, self._with_allocation(others, allocation), budget, at, allocation)
        return own

    def _with_allocation(self, chosen: Sequence[Baseline], allocation: Allocation) -> list[Baseline]:
        """Those that are evaluated with an allocation."""
        return [one for one in chosen if allocation in self.config.allocations_for(one.variant)]

    def _full(self, prompt: Prompt, shared: EvictingCache) -> Measurements:
        if (known := self.known.get(Key(FULL, CacheSize(None)))) is not None:
            return known
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
        named = [(baseline.called(share, allocation), baseline) for baseline in chosen]
        made = [(name, one.make(share, allocation)) for name, one in named if Key(name, at) not in self.known]
        measured: list[Measurements] = []
        # a batch has one rule: that of a NAMM may protect more tokens than that of the others
        for _, alike in groupby(made, key=lambda one: one[1].rule):
            same = list(alike)
            for start in range(0, len(same), self.config.at_once):
                self.check()
                names, members = zip(*same[start : start + self.config.at_once], strict=True)
                cache = self.chosen(prompt.context, shared, members)
                measured += self._measure(prompt, cache, names, members, at)
        found = {one.variant: one for one in measured}
        return [self.known.get(Key(name, at)) or found[name] for name, _ in named]

    def _all_taken(self, baseline: Baseline) -> bool:
        """Whether all of a policy was measured before.

        Not beside a NAMM with a threshold, at whose own size nothing is taken over, nor of a NAMM that is to evict from
        documents, or while reading.
        """
        if not self.taken or any(one.threshold for one in self.baselines):
            return False
        if baseline.rule is not None and (self.config.documents or self.thresholds):
            return False
        of, shares = self.config.allocations_for(baseline.variant), self.config.shares
        return all(Key(baseline.called(share, way), CacheSize(share)) in self.taken for share in shares for way in of)

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
