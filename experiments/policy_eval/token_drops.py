"""Documents of code and prose -> which kinds of token each NAMM drops at its own size, and the random policy there."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...namm.cache.cache import EvictingCache
from ...namm.policies.base import Policy
from ...namm.policies.heuristics import make_policy
from ...namm.policies.keep import Allocation
from ...results.store.rows import Row
from ..config.eviction.policy_eval import EvalConfig
from ..data.long_context.material import documents
from ..data.tokenizer import encode_texts
from ..eviction.measurements import CacheSize
from ..metrics.bootstrap import Array, Bootstrap
from .baselines import Baseline
from .measure import PolicyEvaluator
from .own_size import own_budget
from .rows import EvalReport, Key
from .token_kinds import code_kinds, line_starts, of_tokens, prose_kinds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEXTS = {"code": ("python-source", code_kinds), "prose": ("python-docs", prose_kinds)}
CHANCE = "random"
_CHARACTERS = 5  # of a token, at most, on average


@dataclass(frozen=True)
class Document:
    """The first tokens [N] of a document, and the kind of each of the last len(kinds) of them."""

    text: str
    number: int
    tokens: Tensor
    kinds: list[str]


@dataclass(frozen=True)
class Drops:
    """What one policy drops of one document.

    Attributes:
        variant: The policy's name in the tables.
        at: The size that it was measured at.
        by_kind: Dropped tokens of each kind, the mean over heads and layers.
        run: How many tokens are dropped in a row, on average.
    """

    variant: str
    at: CacheSize
    by_kind: dict[str, float]
    run: float

    def line(self) -> dict[str, Any]:
        """The JSON object of prompts.jsonl."""
        return {"variant": self.variant, **self.at.line(), "dropped": self.by_kind, "dropped_run": self.run}

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> Drops:
        """Read what `line` wrote."""
        return cls(line["variant"], CacheSize.from_line(line), line["dropped"], line["dropped_run"])


def draw_documents(config: EvalConfig, tokenizer: PreTrainedTokenizerFast) -> Iterator[Document]:
    """Draw documents of code and of prose by seed from the longer half of the config's split.

    Args:
        config: The evaluation, which says how many of each, and how long.
        tokenizer: The base model's.

    Yields:
        The documents. Each begins at a drawn line, as far from its end as the length asks for, if it is that long.
    """
    start = [] if tokenizer.bos_token_id is None else tokenizer("")["input_ids"][:1]  # if it begins texts by itself
    for name, (source, kinds_of) in TEXTS.items():
        texts = sorted(documents(source, config.split), key=len)
        draw = random.Random(f"documents {name} {config.seed}")
        drawn = draw.sample(texts[len(texts) // 2 :], min(config.documents, len(texts) - len(texts) // 2))
        for number, text in enumerate(drawn):
            last = max(len(text) - _CHARACTERS * config.length, 0)
            first = draw.choice([begin for begin in line_starts(text) if begin <= last])
            (encoded,) = encode_texts(tokenizer, [text[first:]], begin=False, offsets=True)
            room = config.length - len(start)
            ids = encoded.ids[:room]
            kinds = of_tokens(kinds_of(text)[first:], encoded.offsets[:room])
            yield Document(name, number, torch.tensor([*start, *ids]), kinds)


@torch.no_grad()
def drops_of(evaluator: PolicyEvaluator, document: Document) -> dict[str, Any]:
    """Count which kinds of token each NAMM drops from a document, and the random policy at the same size.

    Args:
        evaluator: The policies on a base model.
        document: The document.

    Returns:
        A line of prompts.jsonl: how often each kind is in the document, and what each policy drops of it.
    """
    shared = evaluator.read(document.tokens, ceilings=False)
    drops, budgets = [], set()
    for baseline in evaluator.baselines:
        if baseline.rule is None:
            continue
        own = baseline.rule.budget
        at = CacheSize(own, "own" if own is None else "budget")
        ways = evaluator.config.allocations_for(baseline.variant)
        way = baseline.rule.allocation if own is None or baseline.rule.allocation in ways else ways[0]
        by_namm, share = _drops(evaluator, document, shared, baseline, at, own, way)
        drops.append(by_namm)
        if own not in budgets:  # under the same budget the random policy drops the same
            at = replace(at, beside=baseline.variant if own is None else "")
            budget = own or own_budget(evaluator.config, share, len(document.tokens))
            drops.append(_drops(evaluator, document, shared, _random(evaluator.config), at, budget)[0])
            budgets |= {own} - {None}
    facts = [policy.line() for policy in drops]
    return {"document": document.text, "number": document.number, "kinds": Counter(document.kinds), "facts": facts}


def _random(config: EvalConfig) -> Baseline:
    """The policy that evicts at random."""

    def make(budget: float | None, allocation: Allocation) -> Policy:
        return make_policy(CHANCE, budget=budget, every=config.every, seed=config.seed)

    return Baseline(CHANCE, make)


def _drops(
    evaluator: PolicyEvaluator,
    document: Document,
    shared: EvictingCache,
    baseline: Baseline,
    at: CacheSize,
    budget: float | None,
    allocation: Allocation = "equal",
) -> tuple[Drops, float]:
    """What a policy that is made for a budget drops, and the share that it keeps."""
    cache = evaluator.chosen(document.tokens, shared, (baseline.make(budget, allocation),))
    kept = kept_by_head(cache)
    dropped = 1 - kept.float().mean((0, 1))[len(document.tokens) - len(document.kinds) :].double().numpy()
    kinds = np.array(document.kinds)
    by_kind = {kind: float(dropped[kinds == kind].sum()) for kind in dict.fromkeys(document.kinds)}
    return Drops(baseline.called(budget, allocation), at, by_kind, mean_run(~kept)), float(kept.float().mean())


def kept_by_head(cache: EvictingCache, sequence: int = 0) -> Tensor:
    """Mark which tokens of a sequence each head holds.

    Args:
        cache: The cache.
        sequence: The sequence's index.

    Returns:
        bool [layers, heads, tokens], on the CPU.
    """
    heads = max(len(layer.state.counts[sequence]) for layer in cache.layers)
    kept = torch.zeros(len(cache.layers), heads, cache.seen[sequence], dtype=torch.bool)
    for number, layer in enumerate(cache.layers):
        for head, positions in enumerate(layer.state.held(sequence)):
            kept[number, head, positions] = True
    return kept


def mean_run(dropped: Tensor) -> float:
    """Average the lengths of runs of dropped tokens.

    Args:
        dropped: Which tokens are dropped, bool [..., tokens].

    Returns:
        The mean over all runs of all heads, in tokens; 0 without any.
    """
    begins = dropped.clone()
    begins[..., 1:] &= ~dropped[..., :-1]
    return float(dropped.sum() / begins.sum()) if begins.any() else 0.0


def kind_rows(report: EvalReport, lines: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Make the rows on what was dropped of each kind, and on lengths of runs, with intervals over documents.

    Args:
        report: The report on the same evaluation.
        lines: The lines of prompts.jsonl that are about documents.

    Yields:
        The rows of each text, policy and kind.
    """
    for text in dict.fromkeys(line["document"] for line in lines):
        of_text = [line for line in lines if line["document"] == text]
        boot = Bootstrap([text] * len(of_text), resamples=report.config.resamples, seed=report.config.seed)
        kinds = dict.fromkeys(kind for line in of_text for kind in line["kinds"])
        counts = {kind: _of(of_text, kind) for kind in kinds}
        total = sum(counts.values())
        assert isinstance(total, np.ndarray)
        for by_document in zip(*(map(Drops.from_line, line["facts"]) for line in of_text), strict=True):
            key = Key(by_document[0].variant, by_document[0].at)
            for kind, count in counts.items():
                dropped = np.array([drops.by_kind.get(kind, 0.0) for drops in by_document])
                if (estimate := boot.ratio(100 * dropped, count)) is not None:
                    share = 100 * float(count.sum() / total.sum())
                    yield report.row(key, f"kinds/{text}", "dropped", estimate, token_kind=kind, share=share)
            runs = np.array([drops.run for drops in by_document])
            yield report.row(key, f"kinds/{text}", "dropped_run", boot.mean(runs))


def _of(lines: Sequence[Mapping[str, Any]], kind: str) -> Array:
    return np.array([float(line["kinds"].get(kind, 0)) for line in lines])
