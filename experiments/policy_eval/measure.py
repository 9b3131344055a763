"""One prompt -> how well a host answers it with the full cache, and under each policy at each budget.

Post hoc one reading of the context serves all policies; online those of a budget read on in one batch after what they
share. Figures are those when the question begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any
from zlib import crc32

import torch

from ...namm.cache.cache import EvictingCache
from ...namm.cache.state import LayerState
from ...namm.policies.base import Policy, Rule
from ...namm.policies.network import Namm
from ...namm.policies.panel import PolicyBatch, PolicySlots, keep_all
from ...namm.policies.simple import Full, make_policy
from ...namm.threshold import score_context, with_threshold
from ...results.namm.rows import FULL, PER_HEAD
from ..config.policy_eval import EvalConfig
from ..eviction.answers import Prompt, answer, branched, feed, read, write
from ..eviction.score import LOG_LIKELIHOOD, score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Facts = dict[str, Any]  # what one policy did with one prompt, as plain data


@dataclass(frozen=True)
class Baseline:
    """A policy in the tables, made for a budget; a NAMM under its own rule for None."""

    variant: str
    make: Callable[[float | None], Policy]
    rule: Rule | None = None  # a NAMM's own

    @property
    def threshold(self) -> bool:
        """Whether it is a NAMM that decides by itself how much it keeps."""
        return self.rule is not None and self.rule.budget is None

    def called(self, share: float | None) -> str:
        """Its name in the tables where every head keeps the same share."""
        return self.variant + (PER_HEAD if self.threshold and share is not None else "")


def baselines(config: EvalConfig, namms: Sequence[Namm], seed: int) -> list[Baseline]:
    """The NAMMs [as in config.namms], then the rivals; seed: of the random one's lots."""

    def of_namm(namm: Namm) -> Callable[[float | None], Policy]:
        mine = replace(namm, every=config.every)
        return lambda budget: mine if budget is None else replace(mine, rule=Rule(budget=budget))

    def rival(name: str) -> Callable[[float | None], Policy]:
        return lambda budget: make_policy(name, budget=budget, every=config.every, seed=seed)

    found = [Baseline(source.label, of_namm(namm), namm.rule) for source, namm in zip(config.namms, namms, strict=True)]
    return [*found, *(Baseline(name, rival(name)) for name in config.policies)]


class PolicyEvaluator:
    """Judges all policies of an evaluation on a host; `check` is called before each batch and may raise to stop."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast | None,
        config: EvalConfig,
        namms: Sequence[Namm],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.model, self.tokenizer, self.config, self.check = model, tokenizer, config, check
        self.namms = namms
        self.baselines = baselines(config, namms, config.seed)
        self.seats = PolicySlots(tuple(one.make(0.5) for one in self.baselines))
        self.online = config.mode == "online"
        self.heads: list[int] = []  # query heads of each layer, once something was read

    @torch.no_grad()
    def judge(self, prompt: Prompt) -> list[Facts]:
        """The facts of the full cache and of every policy at every budget, and at the own size of each threshold."""
        shared = self.read(prompt.context)
        found = [self._full(prompt, shared)]
        moved = [] if self.online else [self._moved(shared, one) for one in self.baselines if one.threshold]
        for budget in self.config.shares:
            found += self._panels(prompt, shared, self.baselines, budget, budget=budget, size="budget")
            for one in moved:  # each under a threshold of its own
                found += self._panels(prompt, shared, [one], budget, budget=budget, size="budget")
        for one in self.baselines:
            if one.threshold:
                found += self._own_size(prompt, shared, one, found[0]["layers"])
        return found

    def read(self, context: torch.Tensor) -> EvictingCache:
        """What all policies share: the context [N], or online what comes before their first run. Draws new lots."""
        self.baselines = baselines(self.config, self.namms, crc32(context.numpy().tobytes(), self.config.seed))
        stop = min(self.config.every, len(context)) if self.online else len(context)
        shared = read(self.model, context[:stop], self.seats)
        self.heads = [0 if layer.state.recent is None else layer.state.recent.shape[1] for layer in shared.layers]
        return shared

    def chosen(self, context: torch.Tensor, shared: EvictingCache, members: tuple[Policy, ...]) -> EvictingCache:
        """What each policy holds when the context [N] is read: a cache of one sequence a policy."""
        cache = branched(
            shared, PolicyBatch(self.seats, members), keep_all(self.seats), len(members), online=self.online
        )
        self._read_on(context, cache)
        return cache

    def own_budget(self, share: float, tokens: int, most: Sequence[float] = (1.0,)) -> float:
        """The budget under which layers together hold a share of so many tokens, after the last run, rounded.

        most: the share that each layer can hold, less than 1 where it has a window.
        """
        every = self.config.every
        seen = tokens // every * every if self.online else tokens
        if not seen:
            return 1.0
        room = min(range(1, tokens + 1), key=lambda n: abs(fmean(min(n / tokens, one) for one in most) - share))
        return min(1.0, (max(room - (tokens - seen), 1) + 0.5) / seen)

    def sizes(self, prompt: Prompt, facts: Sequence[Facts]) -> list[tuple[float, Facts]]:
        """The share of the cache at each size that policies were judged at, and the size's labels."""
        found: list[tuple[float, Facts]] = [
            (share, {"budget": share, "size": "budget"}) for share in self.config.shares
        ]
        for one in facts:
            if one["size"] == "own" and "beside" not in one:
                share = self.own_budget(one["held"], len(prompt.context), facts[0]["layers"])
                found.append((share, {"budget": None, "size": "own", "beside": one["variant"]}))
        return found

    def _moved(self, shared: EvictingCache, one: Baseline) -> Baseline:
        """A NAMM with its threshold where its layers together hold as much of this context as a share of each does.

        Heads of a layer hold as many as its most generous one, so that this is so in bytes as well.
        """
        policy: Any = one.make(None)
        found = score_context(shared, PolicyBatch(self.seats, (policy,)))

        def placed(share: float | None) -> Policy:
            assert share is not None
            return with_threshold(policy, found.threshold(found.equal_share(share), "layer_max"), "layer_max")

        return Baseline(one.variant, placed)

    def _own_size(self, prompt: Prompt, shared: EvictingCache, one: Baseline, most: Sequence[float]) -> list[Facts]:
        """A NAMM under its threshold, and its rivals at the share of bytes that it held."""
        own = self._panels(prompt, shared, [one], None, budget=None, size="own")
        budget = self.own_budget(own[0]["held"], len(prompt.context), most)
        rivals = [other for other in self.baselines if other.rule is None]
        return own + self._panels(prompt, shared, rivals, budget, budget=None, size="own", beside=one.variant)

    def _full(self, prompt: Prompt, shared: EvictingCache) -> Facts:
        cache = shared.fork(keep_all(self.seats), continue_with=Full())
        self._read_on(prompt.context, cache)
        return self._facts(prompt, cache, [FULL], (Full(),), budget=None, size="budget")[0]

    def _read_on(self, context: torch.Tensor, cache: EvictingCache) -> None:
        done = cache.get_seq_length()
        if done < len(context):
            feed(self.model, context[done:], cache)

    def _panels(
        self, prompt: Prompt, shared: EvictingCache, chosen: Sequence[Baseline], share: float | None, **labels: Any
    ) -> list[Facts]:
        """The facts of some policies, made for the same share of the cache, in batches."""
        found: list[Facts] = []
        for start in range(0, len(chosen), self.config.at_once):
            self.check()
            part = chosen[start : start + self.config.at_once]
            members = tuple(one.make(share) for one in part)
            cache = self.chosen(prompt.context, shared, members)
            found += self._facts(prompt, cache, [one.called(share) for one in part], members, **labels)
        return found

    def _facts(
        self, prompt: Prompt, cache: EvictingCache, names: Sequence[str], members: tuple[Policy, ...], **labels: Any
    ) -> list[Facts]:
        """What each sequence of a cache holds and answers."""
        found = [
            {"variant": name, **labels, **held_by(cache, number, member, self.heads)}
            for number, (name, member) in enumerate(zip(names, members, strict=True))
        ]
        texts: list[str] = []
        if self.config.write and prompt.example.metric != LOG_LIKELIHOOD:
            assert self.tokenizer is not None
            texts = write(self.model, prompt, deepcopy(cache), self.tokenizer)
        told = answer(self.model, prompt, cache)
        for number, facts in enumerate(found):
            facts["log_likelihood"] = float(told.log_likelihood[number])
            facts["exact"] = bool(told.exact[number])
            if texts:
                facts |= {"score": score(prompt.example, texts[number]), "text": texts[number]}
        return found


def held_by(cache: EvictingCache, sequence: int, policy: Policy, heads: Sequence[int]) -> Facts:
    """What a sequence of a cache holds: the share of its tokens over layers and heads, of each layer, and bytes.

    held: the share of bytes, as a layer's tensors are as long as its fullest head. Bytes are those of a cache of that
    sequence alone, attached to that policy. heads: query heads of each layer.
    """
    tokens = cache.seen[sequence]
    counts = [layer.state.counts[sequence] for layer in cache.layers]
    layers = [sum(held) / len(held) / tokens for held in counts]
    sizes = [_bytes(layer.state, sequence, policy, of, tokens) for layer, of in zip(cache.layers, heads, strict=True)]
    return {
        "kept": fmean(layers),
        "held": fmean(max(held) / tokens for held in counts),
        "layers": [round(share, 5) for share in layers],
        "kv_bytes": sum(size for size, _ in sizes),
        "bookkeeping_bytes": sum(size for _, size in sizes),
    }


def _bytes(layer: LayerState, sequence: int, policy: Policy, heads: int, tokens: int) -> tuple[int, int]:
    """Bytes of a layer's keys and values, and of all that its policy needs beside them."""
    alone = LayerState(layer.index, policy, layer.window, ())
    alone.start(layer.keys[:1], layer.values[:1])  # of the policy's own width and type
    held = layer.keys.shape[1] * max(layer.counts[sequence])
    key, value = (part.shape[3] * part.itemsize for part in (layer.keys, layer.values))
    waiting = tokens % policy.hop if policy.hop else 0  # of these nothing is noted yet
    beside = held * alone.positions.itemsize
    beside += (held - layer.keys.shape[1] * waiting) * policy.width * alone.policy_state.itemsize
    queries = policy.context + waiting if policy.hop else min(policy.context, tokens)
    sums = policy.context * max(4, layer.keys.itemsize) if policy.hop else 0  # log-sum-exps, float32 or wider
    return held * (key + value), beside + heads * (queries * key + sums)
