"""Whether an eviction policy does what the commands rely on: a policy's name -> checks, each passed or why not.

On a small model of random weights in float64, whose choices do not hang on rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from ...errors import MemxError
from ...namm.attachment import attach
from ...namm.cache.cache import EvictingCache
from ...namm.cache.state import LayerState
from ...namm.policies.base import Policy, Rule, check_interval
from ...namm.policies.heuristics import make_policy
from ...namm.policies.keep import Allocation
from ...namm.policies.shares import total_tokens
from ..base_models.synthetic import TINY, build_host
from ..models.generation import forward

EVERY, MOST = 64, 640  # tokens between evictions; three such intervals have no more than the model has words
BUDGETS = (0.5, 0.125)
ALLOCATIONS: tuple[Allocation, ...] = ("equal", "global")
_ROUNDS, _TIMED = 5, 1024
Kept = list[list[Tensor]]  # by layer and head of one sequence: positions of the tokens that are held, ascending


@dataclass(frozen=True)
class Check:
    """What was looked at, and what was found.

    Attributes:
        name: What the policy must do.
        found: What it did; empty if that is all that there is to say.
        passed: Whether it did; None for what is measured only.
    """

    name: str
    found: str = ""
    passed: bool | None = True


def check_own_policy(name: str, *, every: int = EVERY) -> list[Check]:
    """Try a policy on a small model.

    Args:
        name: As for `make_policy`.
        every: Tokens between evictions.

    Returns:
        The checks, in the order in which they were made; none after one that ends the trial.

    Raises:
        MemxError: The policy cannot be imported or made, or keeps everything.
    """
    usual = torch.get_num_threads()
    torch.set_num_threads(1)  # more would wait for each other: the model is small
    try:
        return _checks(_Trial(name, every))
    finally:
        torch.set_num_threads(usual)


def _checks(trial: _Trial) -> list[Check]:
    """The checks of a trial, in order."""
    checks = [
        ("scores are numbers, one for each cached token", trial.runs),
        ("keeps its budget in every layer and head", trial.keeps_equal),
        ("keeps its budget in all heads together (--allocation global)", trial.keeps_global),
        ("keeps the same when it runs again", trial.repeats),
        ("keeps the same in pieces and token by token as in one piece", trial.in_pieces),
        ("keeps the same of a sequence alone and in a padded batch", trial.in_a_batch),
    ]
    found: list[Check] = []
    for what, check in checks:
        wrong = _wrong(check)
        found.append(Check(what, wrong, not wrong))
        if wrong and len(found) == 1:
            return found
    return [*found, Check("time of a prefill", trial.time(), None)]


def _wrong(check: Callable[[], str]) -> str:
    """What a check finds, or why it could not be made; empty if nothing is wrong."""
    try:
        return check()
    except MemxError as error:
        return f"{error} ({error.hint})" if error.hint else str(error)
    except Exception as error:  # whatever the user's code raises
        return f"{type(error).__name__}: {error}"


class _Trial:
    """A policy on a small model."""

    def __init__(self, name: str, every: int) -> None:
        self.name, self.every = name, every
        if every > MOST:
            raise MemxError(f"--interval {every} is too large for the check", hint=f"use at most {MOST}")
        check_interval(self.policy(0.5))
        if self.policy(0.5).rule.budget is None:
            raise MemxError(f"policy {name} has no budget to check", hint="check a policy with a budget")
        self.host = build_host(TINY, 2, torch.device("cpu"), torch.float64)
        # three evictions of the whole text, and two of a shorter one
        self.context, self.shorter = 3 * every + 8, 2 * every + 9
        self.ids = self.tokens(0)

    def tokens(self, seed: int) -> Tensor:
        """Different tokens [1, context]: the same one twice would have equal scores but for rounding."""
        size = self.host.model.config.vocab_size
        return torch.randperm(size, generator=torch.Generator().manual_seed(seed))[None, : self.context]

    def policy(self, budget: float, allocation: Allocation = "equal") -> Policy:
        return make_policy(self.name, budget=budget, every=self.every, rule=Rule(budget=budget, allocation=allocation))

    def runs(self) -> str:
        self.read(self.policy(0.5), self.ids)
        return ""

    def keeps_equal(self) -> str:
        for budget in BUDGETS:
            seen = self.context // self.every * self.every
            right = max(1, int(seen * budget)) + self.context - seen
            counts = {len(head) for layer in self.read(self.policy(budget), self.ids)[0] for head in layer}
            if counts != {right}:
                return f"budget {budget:g}: {_listed(counts)} tokens in a head, expected {right}"
        return ""

    def keeps_global(self) -> str:
        for budget in BUDGETS:
            kept = self.read(self.policy(budget, "global"), self.ids)[0]
            seen, heads = self.context // self.every * self.every, [len(layer) for layer in kept]
            right = total_tokens(budget, seen, heads) + (self.context - seen) * sum(heads)
            held = sum(len(head) for layer in kept for head in layer)
            if held != right:
                return f"budget {budget:g}: {held} tokens in all heads, expected {right}"
        return ""

    def repeats(self) -> str:
        return self.compare(lambda policy: self.read(policy, self.ids)[0], "a second run")

    def in_pieces(self) -> str:
        uneven = (self.every + 7, 1, self.every // 2 + 3)
        for pieces in ((*uneven, self.context - sum(uneven)), (1,) * self.context):
            what = "token by token" if len(pieces) == self.context else f"in pieces of {_listed(pieces)} tokens"
            if wrong := self.compare(lambda policy, pieces=pieces: self.read(policy, self.ids, pieces)[0], what):
                return wrong
        return ""

    def in_a_batch(self) -> str:
        other = self.tokens(1)
        ids = torch.cat([other, self.ids])
        ids[1, : self.context - self.shorter] = 0
        ids[1, self.context - self.shorter :] = self.ids[0, : self.shorter]
        mask = torch.ones_like(ids)
        mask[1, : self.context - self.shorter] = 0
        alone = self.ids[:, : self.shorter]
        return self.compare(
            lambda policy: self.read(policy, ids, mask=mask)[1],
            "in a padded batch",
            base=lambda policy: self.read(policy, alone)[0],
        )

    def compare(self, other: Callable[[Policy], Kept], what: str, base: Callable[[Policy], Kept] | None = None) -> str:
        """What differs between two ways of reading, at each allocation; empty if nothing does."""
        for allocation in ALLOCATIONS:
            policy = self.policy(0.5, allocation)
            one = (base or (lambda policy: self.read(policy, self.ids)[0]))(policy)
            two = other(policy)
            pairs = [pair for layers in zip(one, two, strict=True) for pair in zip(*layers, strict=True)]
            differing = sum(not torch.equal(*pair) for pair in pairs)
            if differing:
                return f"{what}: other tokens in {differing} of {len(pairs)} heads ({allocation})"
        return ""

    def read(
        self, policy: Policy, ids: Tensor, pieces: Sequence[int] | None = None, mask: Tensor | None = None
    ) -> list[Kept]:
        """The positions that are held after reading, of each sequence."""
        with torch.no_grad(), attach(self.host.model, policy):
            cache: EvictingCache | None = None
            if mask is not None:
                places = (mask.cumsum(-1) - 1).clamp_min(0)  # keys are rotated as those of the sequence alone
                given = dict(input_ids=ids, attention_mask=mask, position_ids=places)
                cache = self.host.model(**given, use_cache=True).past_key_values
            else:
                for piece in ids.split([*(pieces or (ids.shape[1],))], 1):
                    cache = forward(self.host.model, piece, cache).past_key_values
        assert cache is not None
        return [[_positions(layer.state, b) for layer in cache.layers] for b in range(len(ids))]

    def time(self) -> str:
        """The seconds of a prefill over those of the L2 norm policy, in turns."""
        host = build_host(TINY, 2, torch.device("cpu"), torch.float32)
        ids = host.ids(1, _TIMED)
        ratios = []
        for _ in range(_ROUNDS + 1):
            seconds = []
            for policy in (make_policy("knorm", budget=0.5, every=self.every), self.policy(0.5)):
                with torch.inference_mode(), attach(host.model, policy):
                    start = perf_counter()
                    forward(host.model, ids)
                    seconds.append(perf_counter() - start)
            ratios.append(seconds[1] / seconds[0])
        return f"{median(ratios[1:]):.2f} times that of knorm, at {_TIMED:,} tokens"


def _positions(state: LayerState, b: int) -> list[Tensor]:
    """The positions of the tokens that each head of a sequence holds, ascending."""
    whole = state.padded()
    slots = whole.positions.shape[2]
    return [whole.positions[b, head, slots - count :].sort().values for head, count in enumerate(state.counts[b])]


def _listed(numbers: Sequence[int] | set[int]) -> str:
    return ", ".join(str(number) for number in (sorted(numbers) if isinstance(numbers, set) else numbers))
