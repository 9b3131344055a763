"""`memx bench ops|step|offload|model|eviction|evolution`: the subcommands that measure."""

from __future__ import annotations

from . import options as o
from .measure import Output, measure


def ops(
    names: o.Ops = None,
    device: o.Device = "auto",
    dtype: o.OpDtype = None,
    shapes: o.Shapes = None,
    threads: o.Threads = None,
    seconds: o.Seconds = 0.2,
    compile: o.CompileAt = o.Compile.last,
    tune: o.Tune = False,
    save: o.Save = None,
    force: o.Force = False,
    against: o.Against = None,
    json: o.Json = False,
) -> None:
    """Check the ops against fp64, then time every implementation, forward and backward.

    An op is a computation that memx has its own kernels for. Each time is shown with its share of the roofline: the
    copy bandwidth and matmul rate measured in the same run. A wrong op prints FAIL and no time; the exit code is 1.
    """
    from ....errors import MemxError, nearest
    from ....experiments.benchmarks.ops.run import op_benchmarks

    known = [benchmark.name for benchmark in op_benchmarks()]
    for name in names or ():
        if name not in known:
            hint = nearest(name, known) or f"ops are {', '.join(known)}; `memx bench --help` lists other benchmarks"
            raise MemxError(f"no op {name!r}", hint=hint)
    measure(
        Output(save, force, against, json), names or known, device=device, dtype=dtype and dtype.value, shapes=shapes,
        threads=threads, seconds=seconds, compile=compile.value, tune=tune,
    )  # fmt: skip


def step(
    slots: o.Slots = None,
    device: o.Device = "auto",
    shapes: o.Sizes = None,
    threads: o.Threads = None,
    steps: o.Steps = 7,
    third_party: o.ThirdParty = False,
    save: o.Save = None,
    force: o.Force = False,
    against: o.Against = None,
    json: o.Json = False,
) -> None:
    """Time the training step of one memory layer by table size.

    memx's sparse update is compared with torch's optimizers and, with --third-party, with other packages' layers.
    """
    measure(
        Output(save, force, against, json), ["step"], slots=slots, device=device, shapes=shapes, threads=threads,
        steps=steps, peers=third_party,
    )  # fmt: skip


def offload(
    slots: o.Slots = None,
    device: o.Device = "auto",
    shapes: o.ModelShape = None,
    threads: o.Threads = None,
    steps: o.Steps = 7,
    save: o.Save = None,
    force: o.Force = False,
    against: o.Against = None,
    json: o.Json = False,
) -> None:
    """Time the training step of a memory layer whose table is in CPU memory.

    Micro-batches run one by one, or overlapped with the copies of the next one.
    """
    measure(
        Output(save, force, against, json), ["offload"], slots=slots, device=device, shapes=shapes, threads=threads,
        steps=steps,
    )  # fmt: skip


def model(
    slots: o.Slots = None,
    config: o.ModelsOf = None,
    device: o.Device = "auto",
    shapes: o.ModelShape = None,
    threads: o.Threads = None,
    steps: o.Steps = 7,
    save: o.Save = None,
    force: o.Force = False,
    against: o.Against = None,
    json: o.Json = False,
) -> None:
    """Time the training step of a whole model: dense, and with each kind of memory or experts.

    With --config, time the models of a training config instead, such as a preset that compares kinds at equal cost.
    """
    measure(
        Output(save, force, against, json), ["model"], slots=slots, models=config, device=device, shapes=shapes,
        threads=threads, steps=steps,
    )  # fmt: skip


def eviction(
    parts: o.EvictionParts = None,
    model: o.BenchModel = "tiny-llama",
    policy: o.Policy = None,
    namm: o.SavedNamm = None,
    budget: o.Budget = None,
    allocation: o.AllocationOption = None,
    interval: o.Interval = 512,
    context: o.Context = None,
    batch: o.Batch = None,
    new_tokens: o.NewTokens = 64,
    device: o.Device = "auto",
    threads: o.Threads = None,
    rounds: o.Rounds = 7,
    third_party: o.Presses = False,
    dtype: o.ModelDtype = None,
    layers: o.Layers = None,
    save: o.Save = None,
    force: o.Force = False,
    against: o.Against = None,
    json: o.Json = False,
) -> None:
    """Measure what each eviction policy costs and frees: seconds, tokens, bytes and peak memory.

    Before timing, the logits and kept tokens of each policy are compared with a reference.
    """
    names = [part.value for part in parts or (o.Measured.prefill, o.Measured.decode)]
    evict = dict(host=model, layers=layers, contexts=context, batches=batch, policies=policy, budgets=budget)
    evict["namms"] = namm
    evict["allocations"] = [one.value for one in allocation] if allocation else None
    measure(
        Output(save, force, against, json), names, eviction=evict | {"every": interval, "new_tokens": new_tokens},
        device=device, threads=threads, steps=rounds, peers=third_party, dtype=dtype and dtype.value,
    )  # fmt: skip


def evolution(
    model: o.BenchModel = "tiny-llama",
    population: o.Population = 32,
    budget: o.Budget = None,
    mode: o.Modes = None,
    interval: o.Interval = 512,
    context: o.Context = None,
    batch: o.PromptsPerGeneration = None,
    device: o.Device = "auto",
    threads: o.Threads = None,
    rounds: o.Rounds = 7,
    dtype: o.ModelDtype = None,
    layers: o.Layers = None,
    save: o.Save = None,
    force: o.Force = False,
    against: o.Against = None,
    json: o.Json = False,
) -> None:
    """Time one generation of evolve-namm: all candidates in one batch, and one by one.

    The table also shows how the time divides between the model, feature extraction, scoring and eviction.
    """
    evict = dict(host=model, layers=layers, contexts=context, batches=batch, budgets=budget, population=population)
    modes = [one.value for one in mode] if mode else None
    measure(
        Output(save, force, against, json), ["evolution"], eviction=evict | {"every": interval, "modes": modes},
        device=device, threads=threads, steps=rounds, dtype=dtype and dtype.value,
    )  # fmt: skip
