"""What a benchmark is: a name, a check, what measures it and the table of its rows; and the config that all read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch

from ...namm.policies.keep import Allocation
from ...namm.policies.network import RUN
from ...results.store.rows import Row
from ..base_models.synthetic import TINY

if TYPE_CHECKING:
    from ..evolution.candidates import Mode

Compile = Literal["all", "last", "none"]
Progress = Callable[[str], None]


class WrongResults(RuntimeError):
    """Results that are off the exact ones by more than is allowed, so that nothing is timed.

    Args:
        names: What is wrong, and by how much where that is known.
    """

    def __init__(self, *names: str) -> None:
        super().__init__(*names)
        self.names = names

    def __str__(self) -> str:
        return f"wrong results: {', '.join(self.names)}"


@dataclass(frozen=True)
class EvictionBenchConfig:
    """What to run of the benchmarks of eviction.

    Attributes:
        host: The name of a model, pretrained or of random weights.
        layers: Fewer or more layers, of a model of random weights alone.
        contexts: Tokens of a prompt; what suits the device if empty.
        batches: Prompts at a time; for `evolution`, prompts of a generation.
        policies: Names of policies; all that there are if empty.
        namms: Saved NAMMs that are measured too, under their own allocation: places as of `memx.namm.load`.
        budgets: What stays: shares of the tokens, or above 1 tokens of each head.
        allocations: How heads share a budget, each with every policy: equal, global, table (a made one), layer_max.
        every: Tokens between two evictions.
        new_tokens: Tokens written greedily after the prefill.
        population: Candidates of a generation of `evolution`.
        modes: When they evict: post_hoc, online.
    """

    host: str = TINY
    layers: int | None = None
    contexts: Sequence[int] = ()
    batches: Sequence[int] = (1,)
    policies: Sequence[str] = ()
    namms: Sequence[str] = ()
    budgets: Sequence[float] = (0.5,)
    allocations: Sequence[Allocation] = ("equal",)
    every: int = RUN
    new_tokens: int = 64
    population: int = 32
    modes: Sequence[Mode] = ("post_hoc", "online")


@dataclass(frozen=True)
class BenchConfig:
    """What to measure, where, in which dtype and shapes.

    Attributes:
        names: Names of benchmarks; those that run by default if empty.
        device: auto, cpu, cuda or cuda:N.
        dtype: Of ops and eviction; bfloat16 on CUDA and float32 on a CPU by default.
        shapes: Values of `--shapes`: small, large, or entries such as N=2^20,D=512.
        seconds: Time spent on each pass of each implementation of an op.
        slots: Table sizes of step, offload and model; what suits the device if empty.
        models: The training config, a preset or file, whose models `model` measures; None: one of each kind.
        steps: Training steps, or rounds of prefill and so on, that are timed.
        threads: CPU threads; all cores by default.
        compile: At which shapes of an op its definition also runs under torch.compile, which takes long to compile.
        peers: Whether other packages' layers and presses are measured too.
        tune: Whether to search for launch settings of the kernels first.
        evict: Settings of prefill, decode, generate and evolution.
    """

    names: Sequence[str] = ()
    device: str = "auto"
    dtype: str | None = None
    shapes: Sequence[str] = ()
    seconds: float = 0.2
    slots: Sequence[int] = ()
    models: str | None = None
    steps: int = 7
    threads: int | None = None
    compile: Compile = "last"
    peers: bool = False
    tune: bool = False
    evict: EvictionBenchConfig = field(default_factory=EvictionBenchConfig)


@dataclass(frozen=True)
class Benchmark:
    """One thing that `memx bench` measures.

    Attributes:
        name: What `memx bench` calls it: a subcommand, or an argument of one.
        about: What `memx bench list` says about it.
        run: Measures it: called once with the names of all chosen benchmarks that share it. Each item is rows to keep.
            Raises WrongResults for what is wrong but has no rows.
        table: The experiment that its rows are of, and the name of its table in `results.bench.tables`.
        check: Raises MemxError for a config that it cannot run, before anything is measured.
        by_default: Whether it runs where no benchmark is named.
    """

    name: str
    about: str
    run: Callable[[Sequence[str], BenchConfig, torch.device, Progress], Iterable[list[Row]]]
    table: str
    check: Callable[[BenchConfig, torch.device], object] = lambda config, device: None
    by_default: bool = True
