"""Command lines of memx that work in the workspace, by command: what fuzzed inputs begin with.

A command without a line here begins with its name alone, and nothing of it is known to be valid.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cache

# quick lines: they read and plan, or write little
LINES = """
train tiny --dry-run
train small.yaml --dry-run
train small.yaml --facts small.jsonl --dry-run
train small.yaml --corpus prepared --dry-run --set data.sequence=32
train small.yaml --init-from run/checkpoint --dry-run --set memory.slots=1024 --set data.sequence=32
train 1.3b --variant dense --corpus my-texts --gpus 8 --gpu h100 --utilization 0.4 --tokens 1B --dry-run
train small.yaml
prepare my-texts --out new --vocabulary 300
prepare corpus --field body --out new --vocabulary 300 --shard-tokens 500 --damaged skip
prepare prepared --check
convert parallel
evolve-namm small-namm.yaml --dry-run
evolve-namm namm-tiny --dry-run
evict "one two three four" --model model --interval 16 --policy recency --new-tokens 2
evict --file prompt.txt --model model --namm namm/namm --new-tokens 2 --out new
eval-namm namm --dry-run
eval-namm namm --policy recency --budget 0.5 --task key_values --prompts 1 --threads 1 --length 220
eval run --file nq=nq_open --file tqa=trivia_qa --limit 2 --answer-tokens 2 --dry-run
eval run --task nq --file nq=questions.jsonl --limit 1 --answer-tokens 1 --shots 0 --batch 2
runs
runs --runs .
presets
bench list
bench kernels
bench compare bench bench
bench compare bench/rows.jsonl bench
bench ops product_topk --seconds 0.01 --shapes B=2,n=8,k=2 --compile none --device cpu --threads 1
bench step --slots 1024 --steps 1 --shapes tokens=8,width=8 --threads 1 --device cpu
bench eviction decode --model tiny-llama --layers 1 --context 64 --interval 32 --policy recency --new-tokens 1 --steps 1
bench evolution --model tiny-llama --layers 1 --context 64 --population 2 --steps 1 --interval 32
bench model --shapes layers=1,width=16 --slots 1024 --steps 1 --threads 1
bench offload --slots 1024 --steps 1 --threads 1
plot --runs facts --formats png --out new
plot memory facts --formats png --out new
plot baselines baselines --formats png --out new
plot ablation ablation --formats png --out new
plot loss run --formats svg --out new
plot usage run --formats png --out new
plot finetune finetune --formats png --out new
plot qa answers --formats png --out new
plot namm evaluation --formats png --out new
plot layers evaluation --formats png --out new
plot evicted evaluation --formats png --out new
plot evolution namm --formats png --out new
plot pareto namm --formats png --out new
plot ops bench --formats png --out new
plot step step --formats png --out new
config show tiny
config show namm-tiny
config copy tiny new.yaml
"""
# what reads files: each file below what it names is damaged in turn
READERS = """
train small.yaml --facts small.csv --dry-run
train small.yaml --facts small.jsonl --dry-run
train small.yaml --corpus my-texts --dry-run
train small.yaml --set 'corpus.sources=[{path: corpus, field: body}]' --dry-run
train small.yaml --corpus prepared --dry-run
train small.yaml --init-from run/checkpoint --set memory.slots=1024 --dry-run
train small.yaml --init-from model --dry-run
train my.yaml --dry-run
prepare my-texts --out new --vocabulary 300
prepare corpus --field body --out new --vocabulary 300
prepare my-texts --tokenizer model --out new
prepare prepared --check
convert parallel
evolve-namm small-namm.yaml --dry-run
evict --file prompt.txt --model model --interval 16 --policy recency --new-tokens 1
evict --file prompt.txt --model model --namm namm/namm --new-tokens 1
eval-namm namm --dry-run
eval run --file nq=nq_open --file tqa=trivia_qa --limit 2 --answer-tokens 1 --dry-run
eval run --task nq --file nq=questions.jsonl --limit 1 --answer-tokens 1 --shots 0
runs --runs results/runs
bench compare bench bench/rows.jsonl
plot memory facts --formats png --out new
plot loss run --formats png --out new
plot usage run --formats png --out new
plot qa answers --formats png --out new
plot namm evaluation --formats png --out new
plot evolution namm --formats png --out new
plot ops bench --formats png --out new
plot --runs results/runs --formats png --out new
config show my.yaml
"""


@dataclass(frozen=True)
class Base:
    """A command line, whether it writes, and what of a line may take long when its settings are other ones."""

    words: tuple[str, ...]

    @property
    def writes(self) -> bool:
        """Whether it is more than a plan."""
        return "--dry-run" not in self.words

    @property
    def slow(self) -> bool:
        """Whether it takes many seconds, whatever its options are."""
        return self.words[:2] == ("bench", "kernels")

    @property
    def trains(self) -> bool:
        """Whether odd values may make it long."""
        return self.writes and self.words[0] in ("train", "bench", "eval", "eval-namm", "evict", "evolve-namm")


@cache
def bases(text: str = LINES) -> tuple[Base, ...]:
    """The command lines of a list."""
    return tuple(Base(tuple(shlex.split(line))) for line in text.strip().splitlines())


def bases_of(path: tuple[str, ...]) -> list[Base]:
    """The lines of a command; at least its name."""
    found = [base for base in bases() if base.words[: len(path)] == path]
    return found or [Base(path)]
