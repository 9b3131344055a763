"""`memx bench --op evolve`: a generation of a NAMM's evolution on a host -> its time, one by one and in a batch.

All ways take turns on the same prompts and candidates; first they must find the same log-likelihoods. Choosing once
from a context that was read and evicting while reading are measured apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ....errors import MemxError
from ....namm.policies.network import Namm
from ....results.store.rows import Row
from ...base_models.synthetic import TINY, Host, build_host
from ...config.evolution import EvolutionConfig, NammConfig
from ...data.long_context.example import Example
from ...eviction.answers import Prompt
from ...evolution.candidates import CandidateEvaluator, Mode
from ...evolution.start import empty_namm
from .correctness import Verdict
from .evolution_rows import generation_rows, verdict_rows
from .evolution_timing import batched_generation, one_by_one_generation, time_parts
from .prefill_decode import EvictionBenchConfig, check_order, common_facts, contexts

Scorer = Literal["bam", "mlp"]
SCORERS: tuple[Scorer, ...] = ("bam", "mlp")
MODES: tuple[Mode, ...] = ("post_hoc", "online")
UNREAD, READ, ALONE = WAYS = ("contexts unread", "contexts read", "one by one")
LIMIT = 1e-3  # nats a token, in float32
_QUESTION, _ANSWER = 32, 16  # tokens
_MEMBERS = 4  # candidates that are judged one by one
_MOST = 3  # rounds: they are long


class Case(NamedTuple):
    """What is measured together: so many prompts of a length, the budget of all candidates, the mode."""

    order: EvictionBenchConfig
    context: int
    prompts: int
    budget: float
    mode: Mode
    common: dict[str, Any]


@dataclass
class Generations:
    """Seconds of a generation in each round, and percents of the parts of one, by way; candidates judged one by one."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    parts: dict[str, dict[str, float]] = field(default_factory=dict)
    measured: int = _MEMBERS


def check_evolution(order: EvictionBenchConfig, device: torch.device) -> None:
    """Raise MemxError for what cannot be run, before anything is built."""
    if order.population < 2:
        raise MemxError(f"--population {order.population} is no generation", hint="use 2 or more")
    check_order(replace(order, new_tokens=_QUESTION + _ANSWER), device, peers=False)


def bench_evolve(
    order: EvictionBenchConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    rounds: int = _MOST,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Measure generations at every context, number of prompts, budget and mode, with either scorer.

    If anything is wrong there are rows of that alone.
    """
    host = build_host(order.host, order.layers, device, dtype)
    common = common_facts(order, host.model.config.num_hidden_layers, device, dtype) | {"experiment": "bench-evolve"}
    exact = host
    if dtype not in (torch.float32, torch.float64):
        exact = build_host(TINY, None, device, torch.float32)
    rows: list[Row] = []
    for context, prompts, budget, mode in product(contexts(order, device), order.batches, order.budgets, MODES):
        case = Case(order, context, prompts, budget, mode, common)
        what = f"evolve, {mode}, {context:,} tokens, budget {budget:g}"
        try:
            tell(f"{what}: checking")
            verdicts = [check_generation(exact, case, scorer) for scorer in SCORERS]
            rows += verdict_rows(verdicts, case)
            if any(verdict.wrong for verdict in verdicts):
                return [row for row in rows if row.metric == "correct"]  # what is wrong anywhere has no speed
            for scorer in SCORERS:
                tell(f"{what}: {order.population} candidates, {scorer}")
                rows += generation_rows(scorer, measure(host, case, scorer, min(rounds, _MOST)), case)
        except torch.OutOfMemoryError:
            tell(f"{what}: left out, as it does not fit in memory")
            torch.cuda.empty_cache()
    return rows


def check_generation(host: Host, case: Case, scorer: Scorer) -> Verdict:
    """Whether candidates have the same log-likelihoods alone, in a batch, and in one from what that has read.

    What is timed later is warm by then.
    """
    found = {way: work()[1] for way, work in _works(host, case, scorer, 0).items()}
    few = chosen(case.order.population)
    error = float(torch.stack([found[way][:, few] - found[ALONE] for way in (UNREAD, READ)]).abs().max())
    wrong = "" if error <= LIMIT else f"log-likelihoods are off by {error:.1e} of those one by one"  # nan is wrong too
    return Verdict(scorer, error, LIMIT, wrong)


def measure(host: Host, case: Case, scorer: Scorer, rounds: int) -> Generations:
    """Let the ways take turns for so many rounds, each on new prompts; then once more for what the time goes to."""
    population, few = case.order.population, chosen(case.order.population)
    found = Generations(measured=len(few))
    if host.model.device.type == "cuda":
        for work in _works(host, case, scorer, 0).values():  # compiles kernels
            work()
    for turn in range(rounds):
        for way, work in _works(host, case, scorer, turn).items():
            found.seconds[way].append(work()[0] * (population / len(few) if way == ALONE else 1))
    for way, work in _works(host, case, scorer, rounds).items():
        found.parts[way] = time_parts(host.model, work)
    return found


def _works(host: Host, case: Case, scorer: Scorer, seed: int) -> dict[str, Callable[[], tuple[float, Tensor]]]:
    """Each way's generation of some candidates, to be done in this order: the first leaves the second its contexts."""
    namm, candidates = draw_candidates(case, scorer)
    prompts, judge = draw_prompts(host, case, seed), CandidateEvaluator(host.model, namm, mode=case.mode)
    batched = partial(batched_generation, judge, prompts, candidates)
    few = candidates[chosen(len(candidates))]
    alone = partial(one_by_one_generation, _forgetful(host, namm, case.mode), prompts, few)
    return {UNREAD: batched, READ: batched, ALONE: alone}


def draw_candidates(case: Case, scorer: Scorer) -> tuple[Namm, Tensor]:
    """The NAMM of a case with zero parameters, and random ones [P, n] as wide as evolution's first generation."""
    namm = empty_namm(NammConfig(scorer=scorer, every=case.order.every, rule="budget", budget=case.budget))
    size = (case.order.population, len(namm.parameters))
    return namm, torch.randn(size, generator=torch.Generator().manual_seed(0)) * EvolutionConfig().sigma


def draw_prompts(host: Host, case: Case, seed: int) -> list[Prompt]:
    """What a host reads, as prompts with a question and an answer."""
    example = Example("tokens", "", "", ("",), "log_likelihood")
    ids = host.ids(case.prompts, case.context + _QUESTION + _ANSWER, seed=seed).cpu()
    return [Prompt(example, one[: case.context], one[case.context :], _ANSWER) for one in ids]


def chosen(population: int) -> list[int]:
    """The numbers of the candidates that are judged one by one, from first to last evenly."""
    return torch.linspace(0, population - 1, min(_MEMBERS, population)).round().int().tolist()


def _forgetful(host: Host, namm: Namm, mode: Mode) -> CandidateEvaluator:
    return CandidateEvaluator(host.model, namm, mode=mode, remember=False)
