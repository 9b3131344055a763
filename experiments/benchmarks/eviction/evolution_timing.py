"""What a generation of candidates costs on prompts: judged in one batch, or one after another; and where it goes.

One after another, each with a prefill of its own, is how the published implementation goes about it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ....namm.cache import observe
from ....namm.cache.cache import EvictingCache
from ....namm.cache.layer import EvictingLayer
from ....namm.policies.network import Namm
from ...config.eviction.evolution import FitnessConfig
from ...eviction.answers import Prompt
from ...evolution.candidates import CandidateEvaluator
from ..timing import now

if TYPE_CHECKING:
    from transformers import PreTrainedModel

READING, ANSWERS, FEATURES, SCORER, EVICTION = PARTS = ("reading", "answers", "features", "scorer", "eviction")


def batched_generation(
    evaluator: CandidateEvaluator, prompts: Sequence[Prompt], candidates: Tensor
) -> tuple[float, Tensor]:
    """Seconds, and the log-likelihoods [N, P] of candidates [P, n] judged on N prompts in batches, as evolution does.

    An evaluator that remembers reads each context the first time alone.
    """
    parts = candidates.split(FitnessConfig().at_once)
    start = now(evaluator.model.device)
    likelihoods = [torch.cat([evaluator.evaluate(prompt, part).log_likelihood for part in parts]) for prompt in prompts]
    return now(evaluator.model.device) - start, torch.stack(likelihoods)


def one_by_one_generation(
    evaluator: CandidateEvaluator, prompts: Sequence[Prompt], candidates: Tensor
) -> tuple[float, Tensor]:
    """The same of candidates judged one after another; with a prefill each if the evaluator remembers nothing."""
    start = now(evaluator.model.device)
    likelihoods = [
        torch.cat([evaluator.evaluate(prompt, candidate[None]).log_likelihood for candidate in candidates])
        for prompt in prompts
    ]
    return now(evaluator.model.device) - start, torch.stack(likelihoods)


class PartClock:
    """Seconds of each part, those of a part within it not counted; what is in no part is `reading`."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, defaultdict[str, float](float)
        self._open, self._since = [READING], now(device)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Whatever happens inside is of this part."""
        self.turn()
        self._open.append(name)
        try:
            yield
        finally:
            self.turn()
            self._open.pop()

    def turn(self) -> None:
        """Count the time since the last turn, once the device is done, for the part at hand."""
        end = now(self.device)
        self.seconds[self._open[-1]] += end - self._since
        self._since = end


def time_parts(model: PreTrainedModel, work: Callable[[], object]) -> dict[str, float]:
    """The share of each part in the time of some judging, in percent.

    reading: the host reads contexts; answers: it answers; features: attention is observed and made into what a scorer
    reads of a token; scorer; eviction: the choice, masks or copies for each candidate, and what is moved. On CUDA the
    device is waited for at every step, so the whole takes longer than it does without.
    """
    clock = PartClock(model.device)
    timed: list[tuple[Any, str, str]] = [
        (model, "forward", ANSWERS),
        (observe, "observe", FEATURES),
        (Namm, "tokens", FEATURES),
        (Namm, "score", SCORER),
        (EvictingLayer, "update_policy", EVICTION),
        (EvictingLayer, "copies", EVICTION),
        (EvictingLayer, "evict_now", EVICTION),
        (EvictingCache, "choices", EVICTION),
    ]
    with ExitStack() as stack:
        for owner, name, part in timed:
            stack.enter_context(_clocked(owner, name, clock, part))
        work()
    clock.turn()
    total = sum(clock.seconds.values())
    return {part: 100 * clock.seconds[part] / total for part in PARTS}


@contextmanager
def _clocked(owner: Any, name: str, clock: PartClock, part: str) -> Iterator[None]:
    """Let a function of a class, a module or an object count as a part, for a while."""
    before, plain = vars(owner).get(name), getattr(owner, name)

    @wraps(plain)
    def clocked(*args: Any, **kwargs: Any) -> Any:
        with clock.part(part):
            return plain(*args, **kwargs)

    setattr(owner, name, clocked)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
