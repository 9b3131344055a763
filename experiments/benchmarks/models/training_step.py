"""A whole model's training step: a small Llama of each kind, or those of a config -> times, tokens/s and peak memory.

Random tokens, the optimiser of `memx train`, bfloat16 autocast on CUDA. Rows of dataset "model …": step_ms, forward_ms
(with the loss), backward_ms, optimizer_ms (with clipping), tokens_per_second, peak_memory_gb (weights and moments too).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from ....errors import MemxError
from ....kernels.registry import OPS
from ....memory_layers.llama import MemoryLlamaForCausalLM, draw_weights, moe_layers_of, ultramem_layers_of
from ....memory_layers.sizes import Sizes, model_sizes
from ....results.store.rows import Row
from ...config.training import TrainConfig
from ...models.build import llama_config
from ...optim.optimizer import Optimizer
from ...runtime.devices import pick_device, use_bfloat16
from ...runtime.malloc import keep_freed_memory
from ...training.loss import balance_loss, balance_weight, core_loss, core_weight, text_loss
from ..benchmark import BenchConfig, Benchmark, Progress, WrongResults
from ..environment import row_settings
from ..ops.correctness import check_op
from ..timing import PeakMemory, timing
from .step_loop import Mark, Moments, between, time_steps
from .timed_models import ModelShape, configured_models, model_configs, model_shape


@dataclass(frozen=True)
class ModelTimes:
    """Seconds of the forward pass, the backward pass, the optimiser and all of them: each [n]; bytes at the peak."""

    forward: list[float]
    backward: list[float]
    optimizer: list[float]
    step: list[float]
    peak_bytes: int | None


def bench_model(
    slots: Sequence[int] = (),
    *,
    source: str | None = None,
    shape: ModelShape | None = None,
    device_name: str = "auto",
    threads: int | None = None,
    steps: int = 7,
    progress: Progress = lambda text: None,
) -> list[Row]:
    """Measure a model of every kind, those with tables at every size, or the models of a training config.

    Raises WrongResults if an op is wrong, and MemxError for models that cannot be built.
    """
    device, threads = pick_device(device_name), threads or torch.get_num_threads()
    shape = shape or model_shape((), device)
    configs, shape = _models(slots, source, shape, device)
    _check_ops(device)
    common = row_settings(device, threads)
    rows: list[Row] = []
    for config in configs:
        sizes = model_sizes(config.model, config.memory, config.data.vocabulary)
        name = f"{config.variant or config.memory.kind} of {config.model.title}" if source else config.memory.kind
        title = f"{name}{f', {config.memory.slots:,} slots' if config.memory.slots else ''}"
        progress(f"model: {title}, {sizes.parameters_total:,} parameters")
        try:
            times = measure_model(config, sizes, shape, device, steps)
        except torch.OutOfMemoryError:
            progress(f"model: {title} skipped: does not fit in memory")
            continue
        rows += _rows(config, sizes, shape, common, times, use_bfloat16(config.training.precision, device))
    return rows


def _models(
    slots: Sequence[int], source: str | None, shape: ModelShape, device: torch.device
) -> tuple[list[TrainConfig], ModelShape]:
    if source is None:
        return model_configs(slots, shape, device), shape
    if slots:
        raise MemxError("--slots has no effect with --config", hint="leave --slots out; the config sets the tables")
    return configured_models(source, shape)


def measure_model(config: TrainConfig, sizes: Sizes, shape: ModelShape, device: torch.device, steps: int) -> ModelTimes:
    """Time `steps` training steps, each on new tokens, after a few that are not counted."""
    if device.type == "cpu":
        keep_freed_memory()  # as training does
    else:
        torch.cuda.empty_cache()
    with PeakMemory(device) as memory:
        moments = _train(config, sizes, shape, device, steps)
    forward, backward, optimizer = (between(moments, i, i + 1) for i in range(3))
    return ModelTimes(forward, backward, optimizer, between(moments, 0, 3), memory.bytes)


def _train(config: TrainConfig, sizes: Sizes, shape: ModelShape, device: torch.device, steps: int) -> Moments:
    """The moments at which each step began, had its loss, had its gradients and was over."""
    with device:
        model = MemoryLlamaForCausalLM(llama_config(config, config.data.vocabulary)).train()
    draw_weights(model, config.seed)
    tokens = shape.batch * shape.sequence
    optimizer = Optimizer(model, config.training, lookups=tokens * sizes.slots_read)
    experts, weight = moe_layers_of(model), balance_weight(config.memory)
    cores, core = ultramem_layers_of(model), core_weight(config.memory)
    half = use_bfloat16(config.training.precision, device)

    def train_step(number: int, mark: Mark) -> None:
        blocks = torch.randint(2, config.data.vocabulary, (shape.batch, shape.sequence), device=device)
        mark()
        with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
            loss = text_loss(model, blocks) + balance_loss(experts, weight) + core_loss(cores, core)
        mark()
        loss.backward()
        mark()
        optimizer.step(number)  # raises RuntimeError for a gradient that is not finite
        mark()

    [moments] = time_steps([train_step], steps, device)
    return moments


def _check_ops(device: torch.device) -> None:
    wrong = []
    for op in OPS:
        error, limit = check_op(op, op.shapes[0], torch.float32, device)
        if not error <= limit:
            wrong.append(op.name)
    if wrong:
        raise WrongResults(*wrong)


def _rows(
    config: TrainConfig, sizes: Sizes, shape: ModelShape, common: dict[str, Any], times: ModelTimes, half: bool
) -> list[Row]:
    settings: dict[str, Any] = common | dict(
        experiment="bench-model",
        kind=config.memory.kind,
        model=config.model.title,
        variant=config.variant,
        dataset=f"model batch={shape.batch} sequence={shape.sequence} vocabulary={config.data.vocabulary}",
        memory_slots=config.memory.slots,
        parameters_total=sizes.parameters_total,
        parameters_active=sizes.parameters_active,
        flops=sizes.flops,
        precision="bfloat16 autocast" if half else "float32",
    )
    rows = []
    for metric in ("step", "forward", "backward", "optimizer"):
        rows.append(Row(**settings, metric=f"{metric}_ms", **timing(getattr(times, metric)).milliseconds()))
    rates = timing(times.step).rates(shape.batch * shape.sequence)
    rows.append(Row(**settings, metric="tokens_per_second", **rates))
    if times.peak_bytes is not None:
        rows.append(Row(**settings, metric="peak_memory_gb", value=times.peak_bytes / 1e9, n=1))
    return rows


def _check(config: BenchConfig, device: torch.device) -> None:
    _models(config.slots, config.models, model_shape(config.shapes, device), device)


def _run(names: Sequence[str], config: BenchConfig, device: torch.device, progress: Progress) -> list[list[Row]]:
    where: Any = dict(device_name=config.device, threads=config.threads, shape=model_shape(config.shapes, device))
    return [bench_model(config.slots, source=config.models, steps=config.steps, progress=progress, **where)]


BENCHMARK = Benchmark(
    "model", "a whole model's training step, dense and with each kind of memory", _run, "bench-model", _check
)
