"""Candidates of a NAMM's evolution on long-context prompts: parameters -> how well each answers, what it kept.

P candidates, n parameters. Two ways, never to be mixed in one table: `post_hoc`, where a context is read once with
everything kept and each candidate then chooses from it, once; and `online`, where candidates evict as they read, as a
NAMM in use does. Either way what all candidates share is computed once, and they answer in one batch.

What a candidate evicts is dropped from its own copy of the context, or post hoc hidden from it by a mask on the one
context that all share; the answers are the same but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ...namm.cache.cache import EvictingCache
from ...namm.cache.masked import MaskedCache, masked
from ...namm.evolution.population import ObserveOnly, Population
from ...namm.policies.base import View
from ...namm.policies.heuristics import Full
from ...namm.policies.network import Namm
from ...namm.policies.panel import some_sequences
from ..eviction.answers import Prompt, answer, branched, feed, read, write
from ..eviction.score import score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Mode = Literal["post_hoc", "online"]


@dataclass(frozen=True)
class CandidateScores:
    """Of each candidate [P]: the gold answer's mean log-likelihood in nats a token, and the share of the cache kept.

    The share is of tokens times heads, when the question begins.
    """

    log_likelihood: Tensor
    kept: Tensor


@dataclass(frozen=True)
class Written:
    """Of each candidate [P]: its greedy answer, its score, 0 to 1, and the share of the cache kept."""

    texts: list[str]
    score: Tensor
    kept: Tensor


class CandidateEvaluator:
    """Evaluates candidates of one NAMM on a base model, all candidates in one batch.

    Args:
        model: the base model, in eval mode.
        namm: all of a candidate but its parameters.
        mode: whether candidates choose once from a whole context ("post_hoc") or evict as they read ("online").
        remember: keep the contexts that were read, for the next time that their prompt is asked.
        masks: hide what a candidate evicts in the shared context, in place of evicting it from a copy; post hoc only.
        context_dtype: of the keys and values of contexts under masks; None: the base model's. What scorers read of a
            context is computed before they are rounded.

    Attributes:
        seconds: spent so far, by what they went to: "context", "choice", "answer".
    """

    def __init__(
        self,
        model: PreTrainedModel,
        namm: Namm,
        *,
        mode: Mode = "post_hoc",
        remember: bool = True,
        masks: bool = False,
        context_dtype: torch.dtype | None = None,
    ) -> None:
        assert mode == "post_hoc" or not masks, "masks hide tokens of a whole context"
        assert masks or context_dtype is None, "copies have the base model's dtype"
        self.model, self.namm, self.mode, self.remember, self.masks = model, namm, mode, remember, masks
        self.context_dtype = context_dtype
        self.seconds: dict[str, float] = {}
        self._shared: dict[int, tuple[Prompt, EvictingCache]] = {}
        self._inputs: dict[int, dict[int, Tensor]] = {}  # by prompt and layer
        self._base: dict[tuple[int, str], tuple[Prompt, float]] = {}

    @torch.no_grad()
    def evaluate(self, prompt: Prompt, parameters: Tensor, budget: float | None = None) -> CandidateScores:
        """The gold answer's likelihood under each candidate [P, n], and what each keeps.

        budget: the share of the cache to keep, in place of the NAMM's own; None: its own.
        """
        cache = self._chosen(prompt, parameters, budget)
        kept = _kept(cache)  # before the answer, which the cache reads on with
        return CandidateScores(self._answer(prompt, cache), kept)

    @torch.no_grad()
    def write(
        self, prompt: Prompt, parameters: Tensor, tokenizer: PreTrainedTokenizerFast, budget: float | None = None
    ) -> Written:
        """Let candidates [P, n] answer one prompt greedily, all in one batch, and score what they write."""
        cache = self._chosen(prompt, parameters, budget)
        kept = _kept(cache)
        texts = self._write(prompt, cache, tokenizer)
        return Written(texts, torch.tensor([score(prompt.example, text) for text in texts]), kept)

    @torch.no_grad()
    def base(self, prompt: Prompt) -> float:
        """The log-likelihood of the answer with the full cache, nats a token; computed once."""
        return self._once(prompt, "log_likelihood", lambda cache: float(self._answer(prompt, cache)[0]))

    @torch.no_grad()
    def base_score(self, prompt: Prompt, tokenizer: PreTrainedTokenizerFast) -> float:
        """The score of the greedy answer with the full cache; computed once."""
        return self._once(
            prompt, "score", lambda cache: score(prompt.example, self._write(prompt, cache, tokenizer)[0])
        )

    def release_contexts(self) -> None:
        """Let go of the contexts that were read, and of what the full cache brought on them."""
        self._shared.clear()
        self._inputs.clear()
        self._base.clear()

    def _chosen(self, prompt: Prompt, parameters: Tensor, budget: float | None) -> EvictingCache | MaskedCache:
        """What candidates [P, n] hold of the context when the question begins, under the policy they go on with."""
        own = self.namm
        namm = own if budget is None else replace(own, rule=replace(own.rule, budget=budget))
        population = Population(parameters, namm)
        shared, online = self._read(prompt), self.mode == "online"
        if self.masks:
            inputs = self._inputs.setdefault(id(prompt), {})
            with self._timed("choice"):
                chosen = shared.choices(_Choices(parameters, namm, inputs), len(parameters))
            if not self.remember:
                del self._inputs[id(prompt)]
            return MaskedCache(shared, chosen, self.model.dtype)
        with self._timed("choice"):
            cache = branched(shared, population, Keep(namm=self.namm), len(parameters), online=online)
        done = shared.get_seq_length()
        if online and done < len(prompt.context):
            with self._timed("context"):
                feed(self.model, prompt.context[done:], cache)
        return cache

    def _once(self, prompt: Prompt, what: str, measure: Callable[[EvictingCache | MaskedCache], float]) -> float:
        """What the full cache brings, remembered."""
        # the prompt is held with its value, so that its id is not given to another prompt
        known = self._base.get((id(prompt), what))
        if known is None:
            shared = self._read(prompt)
            known = self._base[id(prompt), what] = (prompt, measure(self._whole(prompt, shared)))
            if not self.remember:
                self._inputs.pop(id(prompt), None)
        return known[1]

    def _whole(self, prompt: Prompt, shared: EvictingCache) -> EvictingCache | MaskedCache:
        """The full cache of a context; of one that is kept in another dtype, by masks that hide nothing."""
        if self.context_dtype is not None:
            return MaskedCache(shared, shared.choices(Keep(namm=self.namm)), self.model.dtype)
        cache = shared.fork(Keep(namm=self.namm), continue_with=Full())
        if shared.get_seq_length() < len(prompt.context):
            feed(self.model, prompt.context[shared.get_seq_length() :], cache)
        return cache

    def _read(self, prompt: Prompt) -> EvictingCache:
        """What all candidates share: the whole context, or online what comes before the first run."""
        if (known := self._shared.get(id(prompt))) is not None:
            return known[1]
        stop = len(prompt.context) if self.mode == "post_hoc" else min(self.namm.every, len(prompt.context))
        with self._timed("context"):
            cache = read(self.model, prompt.context[:stop], ObserveOnly(namm=self.namm), length=len(prompt.context))
            if self.context_dtype is not None:
                self._round(prompt, cache, self.context_dtype)
        if self.remember:
            self._shared[id(prompt)] = (prompt, cache)
        return cache

    def _round(self, prompt: Prompt, cache: EvictingCache, dtype: torch.dtype) -> None:
        """Keep what scorers read of a context, then its keys and values in another dtype."""
        inputs = self._inputs[id(prompt)] = {}
        cache.choices(_Choices(self.namm.parameters[None], self.namm, inputs))
        for layer in cache.layers:
            layer.state.keys, layer.state.values = layer.state.keys.to(dtype), layer.state.values.to(dtype)

    def _answer(self, prompt: Prompt, cache: EvictingCache | MaskedCache) -> Tensor:
        """The answer's mean log-likelihood in each sequence of a cache: [P], float32, on the CPU."""
        with self._timed("answer"), self._under(cache):
            return answer(self.model, prompt, cache).log_likelihood

    def _write(
        self, prompt: Prompt, cache: EvictingCache | MaskedCache, tokenizer: PreTrainedTokenizerFast
    ) -> list[str]:
        """What each sequence of a cache goes on with after the question, greedily."""
        with self._timed("answer"), self._under(cache):
            return write(self.model, prompt, cache, tokenizer)

    def _under(self, cache: EvictingCache | MaskedCache) -> AbstractContextManager[None]:
        return masked(self.model, cache) if isinstance(cache, MaskedCache) else nullcontext()

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start


@dataclass(frozen=True)
class _Choices(Population):
    """A population for copies of one sequence, of which each layer's inputs are computed once and kept in `inputs`."""

    inputs: dict[int, Tensor] = field(default_factory=dict)

    def scores(self, view: View) -> Tensor:
        """Each member's scores of the one sequence: [P, H, T]."""
        one = some_sequences(view, slice(0, 1))
        if view.layer not in self.inputs:
            self.inputs[view.layer] = self.namm.tokens(one)
        return self.namm.score(self.parameters, self.inputs[view.layer], one.recent.exists, layer=view.layer).flatten(
            0, 1
        )


class Keep(ObserveOnly):
    """Reads what a NAMM reads and keeps everything."""

    def scores(self, view: View) -> Tensor:
        """All alike."""
        return view.ages.float() * 0


def _kept(cache: EvictingCache | MaskedCache) -> Tensor:
    return cache.kept_share() if isinstance(cache, MaskedCache) else held_share(cache)


def held_share(cache: EvictingCache) -> Tensor:
    """The share of all tokens that each sequence still holds, over layers and heads: [B]."""
    held = torch.tensor([layer.state.counts for layer in cache.layers], dtype=torch.float32)  # [L, B, H]
    return held.mean((0, 2)) / torch.tensor(cache.seen)
