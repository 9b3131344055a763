"""Which kinds of token NAMMs drop: documents of code and prose under each NAMM at its own size, and under a lot."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...namm.cache.cache import EvictingCache
from ...namm.policies.simple import make_policy
from ...results.store.rows import Row
from ..config.policy_eval import EvalConfig
from ..data.long_context.material import documents
from ..metrics.bootstrap import Array, Bootstrap
from .measure import Baseline, Facts, PolicyEvaluator
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


def draw_documents(config: EvalConfig, tokenizer: PreTrainedTokenizerFast) -> Iterator[Document]:
    """So many documents of code and of prose, drawn by seed from the longer half of the config's split.

    Each begins at a drawn line, as far from its end as the config's length asks for, if it is as long as that.
    """
    start = [] if tokenizer.bos_token_id is None else tokenizer("")["input_ids"][:1]  # if it begins texts by itself
    for name, (source, kinds_of) in TEXTS.items():
        known = sorted(documents(source, config.split), key=len)
        draw = random.Random(f"documents {name} {config.seed}")
        drawn = draw.sample(known[len(known) // 2 :], min(config.documents, len(known) - len(known) // 2))
        for number, text in enumerate(drawn):
            last = max(len(text) - _CHARACTERS * config.length, 0)
            first = draw.choice([place for place in line_starts(text) if place <= last])
            found = tokenizer(text[first:], add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            room = config.length - len(start)
            ids: list[int] = found["input_ids"][:room]  # type: ignore[assignment]
            kinds = of_tokens(kinds_of(text)[first:], found["offset_mapping"][:room])  # type: ignore[arg-type]
            yield Document(name, number, torch.tensor([*start, *ids]), kinds)


@torch.no_grad()
def dropped_of(judge: PolicyEvaluator, document: Document) -> dict[str, Any]:
    """How often each kind is in a document, and how many of its tokens each NAMM drops, and the lot at its size."""
    shared = judge.read(document.tokens)
    found, budgets = [], set()
    for one in judge.baselines:
        if one.rule is None:
            continue
        own = one.rule.budget
        mine, share = _dropped(judge, document, shared, one, None)
        found.append({"variant": one.variant, "budget": own, "size": "own" if own is None else "budget", **mine})
        if own not in budgets:  # under the same budget the lot is the same
            lot = Baseline(
                CHANCE,
                lambda budget: make_policy(CHANCE, budget=budget, every=judge.config.every, seed=judge.config.seed),
            )
            budget = own or judge.own_budget(share, len(document.tokens))
            chance, _ = _dropped(judge, document, shared, lot, budget)
            labels = {"size": "own", "beside": one.variant} if own is None else {"size": "budget"}
            found.append({"variant": CHANCE, "budget": own, **labels, **chance})
            budgets |= {own} - {None}
    counts = Counter(document.kinds)
    return {"document": document.text, "number": document.number, "kinds": counts, "facts": found}


def _dropped(
    judge: PolicyEvaluator, document: Document, shared: EvictingCache, one: Baseline, budget: float | None
) -> tuple[Facts, float]:
    """What a policy drops of each kind, in tokens, how long runs of dropped ones are; and the share it keeps."""
    cache = judge.chosen(document.tokens, shared, (one.make(budget),))
    kept = kept_by_head(cache)
    gone = 1 - kept.float().mean((0, 1))[len(document.tokens) - len(document.kinds) :].double().numpy()
    by_kind = {
        kind: float(gone[[other == kind for other in document.kinds]].sum()) for kind in dict.fromkeys(document.kinds)
    }
    return {"dropped": by_kind, "dropped_run": mean_run(~kept)}, float(kept.float().mean())


def kept_by_head(cache: EvictingCache, sequence: int = 0) -> Tensor:
    """Which tokens of a sequence each head holds: [layers, heads, tokens], bool, on the CPU."""
    heads = max(len(layer.state.counts[sequence]) for layer in cache.layers)
    kept = torch.zeros(len(cache.layers), heads, cache.seen[sequence], dtype=torch.bool)
    for place, layer in enumerate(cache.layers):
        for head, count in enumerate(layer.state.counts[sequence]):
            positions = layer.state.positions[sequence, head, layer.keys.shape[2] - count :]
            kept[place, head, positions.long().cpu()] = True
    return kept


def mean_run(dropped: Tensor) -> float:
    """How many tokens are dropped in a row, the mean over all such runs of all heads [..., tokens]; 0 without any."""
    begins = dropped.clone()
    begins[..., 1:] &= ~dropped[..., :-1]
    return float(dropped.sum() / begins.sum()) if begins.any() else 0.0


def kind_rows(report: EvalReport, lines: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Rows on what was dropped of each kind, with intervals over documents, and on lengths of runs."""
    for text in dict.fromkeys(line["document"] for line in lines):
        mine = [line for line in lines if line["document"] == text]
        boot = Bootstrap([text] * len(mine), resamples=report.config.resamples, seed=report.config.seed)
        counts = {kind: _of(mine, kind) for kind in dict.fromkeys(kind for line in mine for kind in line["kinds"])}
        total = sum(counts.values())
        assert isinstance(total, np.ndarray)
        for place, facts in enumerate(mine[0]["facts"]):
            key = Key(facts["variant"], facts["budget"], facts["size"], facts.get("beside", ""))
            own = [line["facts"][place] for line in mine]
            for kind, count in counts.items():
                gone = np.array([one["dropped"].get(kind, 0.0) for one in own])
                if (estimate := boot.ratio(100 * gone, count)) is not None:
                    share = 100 * float(count.sum() / total.sum())
                    yield report.row(key, f"kinds/{text}", "dropped", estimate, token_kind=kind, share=share)
            runs = np.array([one["dropped_run"] for one in own])
            yield report.row(key, f"kinds/{text}", "dropped_run", boot.mean(runs))


def _of(lines: Sequence[Mapping[str, Any]], kind: str) -> Array:
    return np.array([float(line["kinds"].get(kind, 0)) for line in lines])
