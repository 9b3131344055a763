"""`memx bench evolution`: a generation of a NAMM's evolution on a base model -> its time, one by one and in a batch.

All methods take turns on the same prompts and candidates; first they must find the same log-likelihoods. Choosing once
from a context that was read and evicting while reading are measured apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from ....errors import MemxError
from ....namm.policies.network import Namm
from ....results.store.rows import Row
from ...base_models.synthetic import TINY, Host, build_host
from ...config.eviction.evolution import EvolutionConfig, NammConfig
from ...config.loading import load_evolution_config
from ...data.long_context.example import Example
from ...eviction.answers import Prompt
from ...evolution.candidates import CandidateEvaluator, Mode
from ...evolution.start import empty_namm
from ...runtime.devices import pick_dtype
from ..benchmark import BenchConfig, Benchmark, EvictionBenchConfig, Progress
from .correctness import Verdict
from .evolution_rows import generation_rows, row_labels
from .evolution_timing import batched_generation, one_by_one_generation, time_parts
from .prefill_decode import check_eviction, common_labels
from .rows import verdict_rows
from .settings import ALONE, MEMBERS, READ, UNREAD, Case, Generations, contexts

Scorer = Literal["bam", "mlp", "universal"]
SCORERS: tuple[Scorer, ...] = ("bam", "mlp", "universal")  # the last: the default of memx evolve-namm, with its masks
LIMIT = 1e-3  # nats a token, in float32
_QUESTION, _ANSWER = 27, 3  # tokens, as in prompts of the preset namm-universal on average (27.3 and 2.4)
_MOST = 3  # rounds: they are long


def check_evolution(config: EvictionBenchConfig, device: torch.device) -> None:
    """Raise MemxError for what cannot be run, before anything is built."""
    if config.population < 2:
        raise MemxError(f"--population must be at least 2, got {config.population}", hint="use 2 or more")
    for budget in config.budgets:
        if budget > 1:
            raise MemxError(f"--budget must be a share here, got {budget:g}", hint="use e.g. 0.5")
    check_eviction(replace(config, new_tokens=_QUESTION + _ANSWER), device, peers=False)


def bench_evolve(
    config: EvictionBenchConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    rounds: int = _MOST,
    progress: Progress = lambda text: None,
) -> list[Row]:
    """Measure generations at every context, number of prompts, budget and mode, with each scorer.

    If anything is wrong there are rows of that alone.
    """
    host = build_host(config.host, config.layers, device, dtype)
    common = common_labels(config, host.model.config.num_hidden_layers, device, dtype) | {"experiment": "bench-evolve"}
    exact = host
    if dtype not in (torch.float32, torch.float64):
        exact = build_host(TINY, None, device, torch.float32)
    rows: list[Row] = []
    for context, prompts, budget, mode in product(
        contexts(config, device), config.batches, config.budgets, config.modes
    ):
        case = Case(config, context, prompts, budget, mode, common)
        what = f"evolve, {mode}, {context:,} tokens, budget {budget:g}"
        try:
            progress(f"{what}: checking")
            verdicts = [check_generation(exact, case, scorer) for scorer in SCORERS]
            rows += verdict_rows(verdicts, row_labels(case))
            if any(verdict.wrong for verdict in verdicts):
                return [row for row in rows if row.metric == "correct"]  # what is wrong anywhere has no speed
            for scorer in SCORERS:
                progress(f"{what}: timing {config.population} candidates, scorer {scorer}")
                rows += generation_rows(scorer, measure(host, case, scorer, min(rounds, _MOST)), case)
        except torch.OutOfMemoryError:
            progress(f"{what}: skipped: does not fit in memory")
            torch.cuda.empty_cache()
    return rows


def check_generation(host: Host, case: Case, scorer: Scorer) -> Verdict:
    """Whether candidates have the same log-likelihoods alone, in a batch, and in one from what that has read.

    What is timed later is warm by then.
    """
    likelihoods = {method: work()[1] for method, work in _works(host, case, scorer, 0).items()}
    few = chosen(case.config.population)
    error = float(
        torch.stack([likelihoods[method][:, few] - likelihoods[ALONE] for method in (UNREAD, READ)]).abs().max()
    )
    wrong = (
        "" if error <= LIMIT else f"log-likelihoods differ by {error:.1e} from candidates evaluated one by one"
    )  # nan is wrong too
    return Verdict(scorer, error, LIMIT, wrong)


def measure(host: Host, case: Case, scorer: Scorer, rounds: int) -> Generations:
    """Let the methods take turns for so many rounds, each on new prompts; then once more for what the time goes to."""
    population, few = case.config.population, chosen(case.config.population)
    generations = Generations(measured=len(few))
    if host.model.device.type == "cuda":
        for work in _works(host, case, scorer, 0).values():  # compiles kernels
            work()
    for turn in range(rounds):
        for method, work in _works(host, case, scorer, turn).items():
            generations.seconds[method].append(work()[0] * (population / len(few) if method == ALONE else 1))
    for method, work in _works(host, case, scorer, rounds).items():
        generations.parts[method] = time_parts(host.model, work)
    return generations


def _works(host: Host, case: Case, scorer: Scorer, seed: int) -> dict[str, Callable[[], tuple[float, Tensor]]]:
    """Each method's generation, to be done in this order: the first leaves the second its contexts."""
    namm, candidates = draw_candidates(case, scorer)
    masks = scorer == "universal" and case.mode == "post_hoc"  # one by one it evicts, as a NAMM in use does
    prompts = draw_prompts(host, case, seed)
    evaluator = CandidateEvaluator(host.model, namm, mode=case.mode, masks=masks)
    batched = partial(batched_generation, evaluator, prompts, candidates)
    few = candidates[chosen(len(candidates))]
    alone = partial(one_by_one_generation, _forgetful(host, namm, case.mode), prompts, few)
    return {UNREAD: batched, READ: batched, ALONE: alone}


def draw_candidates(case: Case, scorer: Scorer) -> tuple[Namm, Tensor]:
    """The NAMM of a case with zero parameters, and random ones [P, n] as wide as evolution's first generation."""
    every, sigma = case.config.every, EvolutionConfig().sigma
    if scorer == "universal":
        preset = load_evolution_config("namm-universal")
        settings, sigma = preset.namm.model_copy(update={"every": every, "budget": case.budget}), preset.evolution.sigma
    else:
        settings = NammConfig(scorer=scorer, every=every, rule="budget", budget=case.budget)
    namm = empty_namm(settings)
    size = (case.config.population, len(namm.parameters))
    return namm, torch.randn(size, generator=torch.Generator().manual_seed(0)) * sigma


def draw_prompts(host: Host, case: Case, seed: int) -> list[Prompt]:
    """What a host reads, as prompts with a question and an answer."""
    example = Example("tokens", "", "", ("",), "log_likelihood")
    ids = host.ids(case.prompts, case.context + _QUESTION + _ANSWER, seed=seed).cpu()
    return [Prompt(example, one[: case.context], one[case.context :], _ANSWER) for one in ids]


def chosen(population: int) -> list[int]:
    """The numbers of the candidates that are judged one by one, from first to last evenly."""
    return torch.linspace(0, population - 1, min(MEMBERS, population)).round().int().tolist()


def _forgetful(host: Host, namm: Namm, mode: Mode) -> CandidateEvaluator:
    return CandidateEvaluator(host.model, namm, mode=mode, remember=False)


def _check(config: BenchConfig, device: torch.device) -> None:
    check_evolution(config.evict, device)


def _run(names: Sequence[str], config: BenchConfig, device: torch.device, progress: Progress) -> list[list[Row]]:
    dtype = pick_dtype(config.dtype, device)
    return [bench_evolve(config.evict, device=device, dtype=dtype, rounds=config.steps, progress=progress)]


BENCHMARK = Benchmark(
    "evolution",
    "one generation of evolve-namm, all candidates in a batch and one by one; not in the default set",
    _run,
    "bench-evolve",
    _check,
    by_default=False,
)
