"""The prompts of an evolution: config and tokenizer -> training, validation and test prompts, and who is drawn when.

Training, validation and test prompts are of splits that share no document, word, number or entity (registers, which
is never trained on, has the same few in all); the rows of LongBench and other benchmarks are split by their number.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...errors import MemxError
from ..config.eviction.evolution import EvolveConfig
from ..config.eviction.tasks import INFINITEBENCH, LONGBENCH, LONGBENCH_V2, RULER, ZEROSCROLLS, is_ruler
from ..data.long_context.benchmarks import infinitebench, longbench, longbench_v2, ruler, zeroscrolls
from ..data.long_context.example import DoesNotFit, Example, shortened
from ..data.long_context.families import RULER as RULER_FAMILIES
from ..data.long_context.families import examples, misfits
from ..data.long_context.material import split_of
from ..data.tokenizer import encode_text
from .answers import Prompt, tokenise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# how tasks of benchmarks are named, and what reads their rows
_READERS = {
    LONGBENCH: longbench,
    LONGBENCH_V2: longbench_v2,
    INFINITEBENCH: infinitebench,
    ZEROSCROLLS: zeroscrolls,
}
ENOUGH = 1024  # tokens in which every family fits, as tokenizers of text count them
Pools = dict[str, list[Prompt]]  # by family


@dataclass(frozen=True)
class Prompts:
    """All prompts of an evolution, in tokens."""

    train: Pools
    validation: Pools
    test: Pools

    @property
    def all(self) -> list[Prompt]:
        """Every prompt, in one order."""
        pools = (*self.train.values(), *self.validation.values(), *self.test.values())
        return [prompt for pool in pools for prompt in pool]

    def drawn(self, tasks: Sequence[str], count: int, seed: int, generation: int, host: int = 0) -> list[Prompt]:
        """Those of a generation: `count` of each family, the same for every candidate. host: its number."""
        draw = random.Random(f"prompts {seed} {generation}" + (f" {host}" if host else ""))
        return [prompt for task in tasks for prompt in draw.sample(self.train[task], count)]

    def validated(self, tasks: Sequence[str]) -> list[Prompt]:
        """Every validation prompt of some families."""
        return [prompt for task in tasks for prompt in self.validation[task]]

    def tested(self, tasks: Sequence[str]) -> list[Prompt]:
        """Every test prompt of some families."""
        return [prompt for task in tasks for prompt in self.test[task]]


def check_fit(found: Mapping[str, int], length: int, key: str) -> None:
    """Raise MemxError naming every family that does not fit, as `misfits` found them; key: what sets the length."""
    if found:
        names = " and ".join(filter(None, (", ".join([*found][:-1]), [*found][-1])))
        verb = "do" if len(found) > 1 else "does"
        raise MemxError(
            f"{names} {verb} not fit in {length:,} tokens",
            hint=f"use {key} {max(found.values())} or more, or leave {'them' if len(found) > 1 else 'it'} out",
        )


def unfit(tasks: Sequence[str], tokenizer: PreTrainedTokenizerFast, draws: Draws) -> dict[str, int]:
    """The families of memx of which some prompt does not fit, and the least length at which all do."""
    own = [task for task in tasks if not _is_read(task, draws.source)]
    return misfits(
        own,
        lambda text: len(encode_text(tokenizer, text)),
        length=draws.length,
        count=draws.count,
        split=draws.split,
        seed=draws.seed,
    )


def make_prompts(config: EvolveConfig, tokenizer: PreTrainedTokenizerFast) -> Prompts:
    """Make all prompts of a config. Raises MemxError for a length that cannot be met, or rows that are not there."""
    tasks = config.tasks

    def pools(names: Sequence[str], split: str, count: int) -> Pools:
        draw = Draws(split, count, tasks.length, config.seed, tasks.source)
        return {name: task_prompts(name, tokenizer, draw) for name in names}

    try:
        return Prompts(
            pools(tasks.train, "train", tasks.pool),
            pools(config.validated_on, "validation", tasks.validation_prompts),
            pools(config.validated_on, "test", tasks.test_prompts),
        )
    except DoesNotFit:
        check_all_fit(config, tokenizer)
        raise


def check_all_fit(config: EvolveConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise MemxError naming every family of a config that does not fit in its length."""
    tasks, found = config.tasks, {}
    for names, split, count in (
        (tasks.train, "train", tasks.pool),
        (config.validated_on, "validation", tasks.validation_prompts),
        (config.validated_on, "test", tasks.test_prompts),
    ):
        for task, least in unfit(names, tokenizer, Draws(split, count, tasks.length, config.seed)).items():
            found[task] = max(least, found.get(task, 0))
    check_fit(found, tasks.length, "tasks.length")


@dataclass(frozen=True)
class Draws:
    """Which examples of a family: so many of a split, of at most `length` tokens, and where a benchmark's rows are."""

    split: str
    count: int
    length: int
    seed: int
    source: str | None = None
    answer_tokens: int | None = None  # of a written answer, at most; None: as each task says


def task_prompts(task: str, tokenizer: PreTrainedTokenizerFast, draws: Draws) -> list[Prompt]:
    """The prompts of a family, memx's or a benchmark's. Raises MemxError as `make_prompts` does."""
    found = _examples(task, tokenizer, draws)
    if (most := draws.answer_tokens) is not None:
        found = [replace(one, max_new_tokens=min(one.max_new_tokens, most)) for one in found]
    return [tokenise(one, tokenizer) for one in found]


def _examples(task: str, tokenizer: PreTrainedTokenizerFast, draws: Draws) -> list[Example]:
    def tokens(text: str) -> int:
        return len(encode_text(tokenizer, text))

    split, count, length, seed = draws.split, draws.count, draws.length, draws.seed
    if not _is_read(task, draws.source):
        return examples(task, tokens, length=length, count=count, split=split, seed=seed)
    if is_ruler(task):
        rows = ruler(task.removeprefix(RULER), draws.source, length=length)
        if len(rows) < count:
            raise MemxError(f"{task} has {len(rows)} rows, {count} are needed", hint="lower --prompts")
        return rows[:count]
    benchmark = _benchmark(task)
    rows = _READERS[benchmark](task.removeprefix(benchmark), draws.source)
    mine = [row for number, row in enumerate(rows) if split_of(f"{task} {number}") == split]
    if len(mine) < count:
        raise MemxError(
            f"task {task} has only {len(mine)} rows for the split {split}, {count} are needed (of {len(rows)} rows)",
            hint="lower tasks.pool, tasks.validation_prompts, tasks.test_prompts or --prompts",
        )
    chosen = random.Random(f"{task} {split} {seed}").sample(mine, count)
    return [shortened(row, tokens, length) for row in chosen]


def _is_read(task: str, source: str | None) -> bool:
    """Whether a task's prompts are rows of files or the hub; memx generates the others."""
    if is_ruler(task):
        return source is not None or task not in RULER_FAMILIES
    return _benchmark(task) in _READERS


def _benchmark(task: str) -> str:
    """How the name of a benchmark's task begins, with the slash; the name itself of another task."""
    name, slash, _ = task.partition("/")
    return name + slash
