"""A whole model's training step by kind and table size: a small Llama of each kind -> times, tokens/s and peak memory.

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
from ....memory_layers.config import PRODUCT_KEYS, Kind, MemoryConfig, ModelConfig
from ....memory_layers.llama import MemoryLlamaForCausalLM, draw_weights, moe_layers_of
from ....memory_layers.sizes import Sizes, model_sizes
from ....memory_layers.slots import half_keys
from ....results.store.rows import Row
from ...config.shares import apply_shares
from ...config.training import DataConfig, TrainConfig, TrainingConfig
from ...models.build import llama_config
from ...optim.optimizer import Optimizer
from ...runtime.devices import pick_device, use_bfloat16
from ...runtime.malloc import keep_freed_memory
from ...training.loss import balance_loss, text_loss
from ..benchmark import BenchConfig, Benchmark, Progress, WrongResults
from ..environment import row_settings
from ..ops.correctness import check_op
from ..ops.shapes import sized
from ..timing import PeakMemory, timing
from .step_loop import Mark, Moments, between, time_steps

_TABLES: tuple[Kind, ...] = (*PRODUCT_KEYS, "engram")
_KINDS: tuple[Kind, ...] = ("dense", *_TABLES, "moe")
_SLOTS = {"cpu": (2**12, 2**16), "cuda": (2**14, 2**18, 2**20)}


@dataclass(frozen=True)
class ModelShape:
    """The base: blocks, hidden size d, attention heads, vocabulary; rows a step and tokens of each; experts of MoE."""

    layers: int = 4
    width: int = 128
    heads: int = 4
    vocabulary: int = 2048
    batch: int = 8
    sequence: int = 128
    experts: int = 8


LARGE = ModelShape(layers=8, width=1024, heads=16, vocabulary=32_768, batch=16, sequence=1024)


@dataclass(frozen=True)
class ModelTimes:
    """Seconds of the forward pass, the backward pass, the optimiser and all of them: each [n]; bytes at the peak."""

    forward: list[float]
    backward: list[float]
    optimizer: list[float]
    step: list[float]
    peak_bytes: int | None


def model_shape(texts: Sequence[str], device: torch.device) -> ModelShape:
    """The shape that suits the device, or the small or large one, with the entries that `--shapes` changes."""
    return sized(ModelShape(), LARGE, texts, device, "model")


def model_configs(slots: Sequence[int], shape: ModelShape, device: torch.device) -> list[TrainConfig]:
    """A model of every kind, those with tables at every size. Raises MemxError for one that cannot be built.

    An n-gram memory, whose rows are narrower, has as many values in its tables as a memory of so many slots.
    """
    slots = slots or _SLOTS[device.type]
    return [_config(kind, size, shape) for kind in _KINDS for size in (slots if kind in _TABLES else (0,))]


def bench_model(
    slots: Sequence[int] = (),
    *,
    shape: ModelShape | None = None,
    device_name: str = "auto",
    threads: int | None = None,
    steps: int = 7,
    progress: Progress = lambda text: None,
) -> list[Row]:
    """Measure a model of every kind, those with tables at every size. Raises WrongResults if an op is wrong."""
    device, threads = pick_device(device_name), threads or torch.get_num_threads()
    shape = shape or model_shape((), device)
    configs = model_configs(slots, shape, device)
    _check_ops(device)
    common = row_settings(device, threads)
    rows: list[Row] = []
    for config in configs:
        sizes = model_sizes(config.model, config.memory, shape.vocabulary)
        title = f"{config.memory.kind}{f', {config.memory.slots:,} slots' if config.memory.slots else ''}"
        progress(f"model: {title}, {sizes.parameters_total:,} parameters")
        try:
            times = measure_model(config, sizes, shape, device, steps)
        except torch.OutOfMemoryError:
            progress(f"model: {title} skipped: does not fit in memory")
            continue
        rows += _rows(config, sizes, shape, common, times, use_bfloat16("auto", device))
    return rows


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
        model = MemoryLlamaForCausalLM(llama_config(config, shape.vocabulary)).train()
    draw_weights(model, config.seed)
    tokens = shape.batch * shape.sequence
    optimizer = Optimizer(model, config.training, lookups=tokens * sizes.slots_read)
    experts = moe_layers_of(model)
    half = use_bfloat16("auto", device)

    def train_step(number: int, mark: Mark) -> None:
        blocks = torch.randint(2, shape.vocabulary, (shape.batch, shape.sequence), device=device)
        mark()
        with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
            loss = text_loss(model, blocks) + balance_loss(experts, config.memory.balance)
        mark()
        loss.backward()
        mark()
        optimizer.step(number)  # raises RuntimeError for a gradient that is not finite
        mark()

    [moments] = time_steps([train_step], steps, device)
    return moments


def _config(kind: Kind, slots: int, shape: ModelShape) -> TrainConfig:
    try:
        if kind in PRODUCT_KEYS:
            half_keys(slots)
        count = min(3, shape.layers) if kind == "memory+" else 1 if kind in PRODUCT_KEYS else None
        model = ModelConfig(layers=shape.layers, width=shape.width, heads=shape.heads, context=shape.sequence)
        memory = MemoryConfig(kind=kind, slots=slots, count=count, stride=1, experts=shape.experts)
        if kind == "engram":
            memory = apply_shares(MemoryConfig(kind=kind, sparse=slots * shape.width), model, close=False)
        return TrainConfig(
            name="bench",
            model=model,
            memory=memory,
            data=DataConfig(vocabulary=shape.vocabulary, sequence=shape.sequence),
            training=TrainingConfig(warmup=0),
        )
    except ValueError as error:
        raise MemxError(
            f"{kind} model with {slots:,} slots: {_reason(error)}", hint="change --shapes or --slots"
        ) from None


def _reason(error: ValueError) -> str:
    """The first thing that a config minds."""
    errors = getattr(error, "errors", list)()
    return str(errors[0]["msg"]).removeprefix("Value error, ") if errors else str(error)


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
        dataset=f"model batch={shape.batch} sequence={shape.sequence} vocabulary={shape.vocabulary}",
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
    model_configs(config.slots, model_shape(config.shapes, device), device)


def _run(names: Sequence[str], config: BenchConfig, device: torch.device, progress: Progress) -> list[list[Row]]:
    where: Any = dict(device_name=config.device, threads=config.threads, shape=model_shape(config.shapes, device))
    return [bench_model(config.slots, steps=config.steps, progress=progress, **where)]


BENCHMARK = Benchmark(
    "model", "a whole model's training step, dense and with each kind of memory", _run, "bench-model", _check
)
