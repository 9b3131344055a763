"""The baselines of the benchmarks of eviction: names and budgets -> contexts in which a transformers model runs.

The plain model with torch's attention, in one piece and in the pieces that a policy cuts a prompt into; memx's
policies; and kvpress's presses at the same compression, where it is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ....errors import MemxError, nearest
from ....namm.attachment import attach
from ....namm.cache.cache import EvictingCache
from ....namm.plugins import find_class, is_plugin
from ....namm.policies.base import Policy, Rule
from ....namm.policies.heuristics import POLICIES, make_policy
from ....namm.policies.keep import Allocation, check_budget
from ....namm.policies.network import Namm
from ....namm.policies.scorer import BAM_PARAMETERS
from ....namm.policies.shares import HeadShares, allowed, total_tokens
from ....namm.saved.files import load
from ....namm.saved.places import SHIPPED
from ....results.namm.rows import ALLOCATED, PRESSES
from ...config.eviction.policy_eval import EAGER
from ...eviction.kvpress_presses import eager_attention, make_press
from ...eviction.policy import DEFAULT_NAMM
from ...models.generation import next_token

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..benchmark import EvictionBenchConfig

PLAIN, KEEP_ALL, NAMM = "plain", "namm-keep-all", "namm"
_SPREAD = 0.065  # of a NAMM's random parameters: as wide as evolution's first generation


class Held(NamedTuple):
    """What a cache holds: slots of a head (physical) and tokens of a head (logical), means over layers; bytes."""

    slots: float
    tokens: float
    kv_bytes: int
    beside_bytes: int


@dataclass(frozen=True)
class Baseline:
    """One way to run a model.

    on: a context in which the model runs this way. budget: what stays, None for all. exact: memx's, whose
    caches hold what the budget says to the token. piece: how many tokens a forward pass takes, None for all of them.
    allocation: how heads share the budget.
    """

    policy: str
    on: Callable[[PreTrainedModel], AbstractContextManager[object]]
    package: str = "memx"
    budget: float | None = None
    piece: int | None = None
    allocation: Allocation = "equal"

    @property
    def name(self) -> str:
        """What tables call it: the policy, its budget and how heads share that."""
        shared = ALLOCATED.get(self.allocation, "")
        return self.policy if self.budget is None else f"{self.policy} {self.budget:g}{shared}"

    @property
    def exact(self) -> bool:
        """Whether the tokens that it holds are known beforehand."""
        return self.package == "memx"

    def keeps(self, context: int, every: int) -> int:
        """Tokens of a context that a head holds after its prefill: the share at the last run, and all since."""
        seen = context // every * every
        return context if self.budget is None else max(1, int(allowed(self.budget, seen))) + context - seen

    def keeps_in_all(self, context: int, every: int, heads: Sequence[int]) -> int:
        """The same of all heads together, so many in each layer; at most so many where layers are filled up."""
        seen = context // every * every
        if self.budget is None or not seen:
            return context * sum(heads)
        return total_tokens(self.budget, seen, heads) + (context - seen) * sum(heads)


def policy_names() -> list[str]:
    """memx's policies that can be measured."""
    return [KEEP_ALL, NAMM, *POLICIES]


def check_policies(names: Sequence[str], budgets: Sequence[float]) -> None:
    """Raise MemxError for a name that is no policy, or a budget that is neither a share nor a number of tokens."""
    for name in names:
        if name not in (PLAIN, *policy_names()) and is_plugin(name):
            find_class(name)
        elif name not in (PLAIN, *policy_names()):
            hint = nearest(name, policy_names()) or f"choose one of: {', '.join(policy_names())}"
            raise MemxError(f"--policy: unknown policy {name!r}", hint=hint)
    for budget in budgets:
        check_budget(budget)


def make_baselines(
    names: Sequence[str],
    budgets: Sequence[float],
    every: int,
    *,
    peers: bool,
    allocations: Sequence[Allocation] = ("equal",),
) -> list[Baseline]:
    """The plain model both ways, then memx's policies (all if none is named), then the presses that do as they do.

    Each policy is listed with each allocation of each budget.
    """
    listed = [
        Baseline(PLAIN, lambda model: nullcontext(), "transformers"),
        Baseline(f"{PLAIN}, pieces of {every}", lambda model: nullcontext(), "transformers", piece=every),
    ]
    for name in names or policy_names():
        if name in (KEEP_ALL, "full"):
            listed.append(_memx(name, None, every))
        elif name != PLAIN:
            listed += [_memx(name, budget, every, one) for budget in budgets for one in allocations]
    if peers:
        rivals = [name for name, own in PRESSES.items() if not names or own in names]
        listed += [_press(name, budget) for name in rivals for budget in budgets if budget < 1]
    return listed


def baselines_of(config: EvictionBenchConfig, *, peers: bool) -> list[Baseline]:
    """All that a benchmark measures; its saved NAMMs after the plain model, or that of memx if nothing is named."""
    plain, others = slice(0, 2), slice(2, None)
    listed = make_baselines(config.policies, config.budgets, config.every, peers=peers, allocations=config.allocations)
    places = config.namms or ([] if config.policies else [str(SHIPPED / DEFAULT_NAMM)])
    saved = [_saved(place, budget, config.every) for place in places for budget in config.budgets]
    return [*listed[plain], *saved, *listed[others]]


def _saved(place: str, budget: float, every: int) -> Baseline:
    namm = load(place)
    policy = replace(namm, rule=replace(namm.rule, budget=budget), every=every)
    label = f"{NAMM} {Path(place).name}"
    return Baseline(label, lambda model: attach(model, policy), budget=budget, allocation=namm.rule.allocation)


def _memx(name: str, budget: float | None, every: int, allocation: Allocation = "equal") -> Baseline:
    if budget is None or allocation != "table":
        policy = build_policy(name, budget, every, Rule(budget=budget, allocation=allocation))
        return Baseline(name, lambda model: attach(model, policy), budget=budget, allocation=allocation)

    def on(model: PreTrainedModel) -> AbstractContextManager[object]:
        heads = model.config.num_key_value_heads or model.config.num_attention_heads
        shares = uneven_shares(budget, model.config.num_hidden_layers, heads)
        return attach(model, build_policy(name, budget, every, Rule(budget=budget, allocation="table", shares=shares)))

    return Baseline(name, on, budget=budget, allocation=allocation)


def uneven_shares(budget: float, layers: int, heads: int) -> HeadShares:
    """A table as unequal as measured ones, for models of random weights: a tenth of the heads keep most of theirs."""
    number = layers * heads
    order = [*range(number)]
    Random(0).shuffle(order)  # heads of a layer differ
    wanted = [min(1.0, 0.02 + (1 - (rank + 0.5) / number) ** 4) for rank in order]
    table = tuple(tuple(wanted[layer * heads : (layer + 1) * heads]) for layer in range(layers))
    return HeadShares((budget if budget <= 1 else 0.5,), (table,), "made for a benchmark")


def build_policy(name: str, budget: float | None, every: int, rule: Rule = Rule()) -> Policy:
    """A policy of memx; a NAMM has zero parameters if it keeps all, else random ones.

    rule: with how heads share the budget.
    """
    if name == KEEP_ALL:
        return Namm(every=every)
    if name == NAMM:
        parameters = torch.randn(BAM_PARAMETERS, generator=torch.Generator().manual_seed(0)) * _SPREAD
        return Namm(parameters, rule=replace(rule, budget=budget), every=every)
    return make_policy(name, budget=budget, every=every, rule=rule)


def _press(name: str, budget: float) -> Baseline:
    press, eager = make_press(name, budget), name in EAGER

    @contextmanager
    def on(model: PreTrainedModel) -> Iterator[None]:
        with eager_attention(model) if eager else nullcontext(), press(model):
            yield

    return Baseline(f"kvpress {name}{' (eager)' if eager else ''}", on, "kvpress", budget)


def prefill(model: PreTrainedModel, ids: Tensor, piece: int | None = None) -> tuple[Tensor, Any]:
    """Read prompts [B, N], so many tokens a forward pass: the next tokens [B, 1], and the cache."""
    token, cache, length = ids, None, ids.shape[1]
    for start in range(0, length, piece or length):
        token, cache = next_token(model, ids[:, start : start + (piece or length)], cache, start)
    return token, cache


def decode(model: PreTrainedModel, token: Tensor, cache: Any, start: int, count: int) -> None:
    """Write so many tokens greedily, the first of them given [B, 1], at the absolute position where it belongs."""
    for place in range(start, start + count):
        token, cache = next_token(model, token, cache, place)


def held(cache: Any) -> Held:
    """What a cache of memx or of transformers holds."""
    if isinstance(cache, EvictingCache):
        sizes = cache.sizes()
        return Held(
            sum(size.slots for size in sizes) / len(sizes),
            sum(size.tokens for size in sizes) / len(sizes),
            sum(size.kv_bytes for size in sizes),
            sum(size.bookkeeping_bytes for size in sizes),
        )
    slots = sum(layer.keys.shape[2] for layer in cache.layers) / len(cache.layers)
    return Held(slots, slots, sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers), 0)
