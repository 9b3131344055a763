"""A whole model's training step by kind and table size: a small Llama of each kind -> times, tokens/s and peak memory.

Random tokens, the optimiser of `memx train`, bfloat16 autocast on CUDA. Rows of dataset "model …": step_ms, forward_ms
(with the loss), backward_ms, optimizer_ms (with clipping), tokens_per_second, peak_memory_gb (weights and moments too).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ....errors import MemxError
from ....kernels.ops import OPS
from ....memory_layers.config import PRODUCT_KEYS, Kind, MemoryConfig, ModelConfig
from ....memory_layers.llama import MemoryLlamaForCausalLM, draw_weights, moe_layers_of
from ....memory_layers.sizes import Sizes, model_sizes
from ....memory_layers.slots import half_keys
from ....results.store.rows import Row
from ...config.training import DataConfig, TrainConfig, TrainingConfig
from ...models.build import llama_config
from ...optim.optimizer import Optimizer
from ...runtime.devices import pick_device, use_bfloat16
from ...runtime.malloc import keep_freed_memory
from ...training.loss import balance_loss, text_loss
from ..environment import row_settings
from ..ops.correctness import check_op
from ..ops.shapes import changes
from ..timing import PeakMemory, timing

_KINDS: tuple[Kind, ...] = ("dense", *PRODUCT_KEYS, "moe")
_SLOTS = {"cpu": (2**12, 2**16), "cuda": (2**14, 2**18, 2**20)}
_WARM = 2


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
    large = "large" in texts or (device.type == "cuda" and "small" not in texts)
    shape = asdict(LARGE if large else ModelShape())
    return ModelShape(**(shape | dict(changes(texts, shape, "model"))))


def model_configs(slots: Sequence[int], shape: ModelShape, device: torch.device) -> list[TrainConfig]:
    """A model of every kind, those with tables at every size. Raises MemxError for one that cannot be built."""
    slots = slots or _SLOTS[device.type]
    return [_config(kind, size, shape) for kind in _KINDS for size in (slots if kind in PRODUCT_KEYS else (0,))]


def bench_model(
    slots: Sequence[int] = (),
    *,
    shape: ModelShape | None = None,
    device_name: str = "auto",
    threads: int | None = None,
    steps: int = 7,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Measure a model of every kind, those with tables at every size. Raises RuntimeError if an op is wrong."""
    device, threads = pick_device(device_name), threads or torch.get_num_threads()
    shape = shape or model_shape((), device)
    configs = model_configs(slots, shape, device)
    _check_ops(device)
    common = row_settings(device, threads)
    rows: list[Row] = []
    for config in configs:
        sizes = model_sizes(config.model, config.memory, shape.vocabulary)
        title = f"{config.memory.kind}{f', {config.memory.slots:,} slots' if config.memory.slots else ''}"
        tell(f"model: {title}, {sizes.parameters_total:,} parameters")
        try:
            times = measure_model(config, sizes, shape, device, steps)
        except torch.OutOfMemoryError:
            tell(f"model: {title} is left out: it does not fit in memory")
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
        parts = _train(config, sizes, shape, device, steps)
    forward, backward, optimizer = ([step[i + 1] - step[i] for step in parts] for i in range(3))
    return ModelTimes(forward, backward, optimizer, [step[3] - step[0] for step in parts], memory.bytes)


def _train(config: TrainConfig, sizes: Sizes, shape: ModelShape, device: torch.device, steps: int) -> list[list[float]]:
    """The moments at which each step began, had its loss, had its gradients and was over."""
    with device:
        model = MemoryLlamaForCausalLM(llama_config(config, shape.vocabulary)).train()
    draw_weights(model, config.seed)
    tokens = shape.batch * shape.sequence
    optimizer = Optimizer(model, config.training, reads=tokens * sizes.slots_read)
    experts = moe_layers_of(model)
    half = use_bfloat16("auto", device)
    parts = []
    for step in range(_WARM + steps):
        blocks = torch.randint(2, shape.vocabulary, (shape.batch, shape.sequence), device=device)
        times = [_now(device)]
        with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
            loss = text_loss(model, blocks) + balance_loss(experts, config.memory.balance)
        times.append(_now(device))
        loss.backward()
        times.append(_now(device))
        optimizer.step(step)  # raises RuntimeError for a gradient that is not finite
        times.append(_now(device))
        parts.append(times)
    return parts[_WARM:]


def _config(kind: Kind, slots: int, shape: ModelShape) -> TrainConfig:
    try:
        if kind in PRODUCT_KEYS:
            half_keys(slots)
        count = min(3, shape.layers) if kind == "memory+" else 1 if kind in PRODUCT_KEYS else None
        return TrainConfig(
            name="bench",
            model=ModelConfig(layers=shape.layers, width=shape.width, heads=shape.heads, context=shape.sequence),
            memory=MemoryConfig(kind=kind, slots=slots, count=count, stride=1, experts=shape.experts),
            data=DataConfig(vocabulary=shape.vocabulary, sequence=shape.sequence),
            training=TrainingConfig(warmup=0),
        )
    except ValueError as error:
        raise MemxError(
            f"model, {kind} of {slots:,} slots: {_reason(error)}", hint="see --shapes and --slots"
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
        raise RuntimeError(f"wrong results: {', '.join(wrong)}")


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


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
        value, low, high, n = timing(getattr(times, metric))
        rows.append(Row(**settings, metric=f"{metric}_ms", value=1e3 * value, low=1e3 * low, high=1e3 * high, n=n))
    tokens, step = shape.batch * shape.sequence, timing(times.step)
    rates: Any = dict(value=tokens / step.seconds, low=tokens / step.high, high=tokens / step.low, n=step.n)
    rows.append(Row(**settings, metric="tokens_per_second", **rates))
    if times.peak_bytes is not None:
        rows.append(Row(**settings, metric="peak_memory_gb", value=times.peak_bytes / 1e9, n=1))
    return rows
