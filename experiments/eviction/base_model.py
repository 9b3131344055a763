"""The host of an evolution: its config -> a model on its device and a tokenizer, trained first if it is a preset's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...errors import MemxError
from ...results.store.runs import RunStore
from ..base_models.eight_bits import check_eight_bits, to_eight_bits
from ..base_models.load import host_config, load_host
from ..base_models.rope import check_positions, with_rope
from ..config.eviction.host import HostConfig
from ..config.loading import load_config
from ..config.points import Point, plan
from ..distributed.process_group import World, local_device, without_torchrun
from ..models.build import llama_config
from ..runtime.devices import pick_device
from ..runtime.events import BaseModelTraining, Note, Phase, Report
from ..runtime.options import Options
from ..runtime.threads import restored_threads
from ..training.sweep import train_points

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

# those of 3.1 and later have other positions
_LLAMA_3 = re.compile(r"meta-llama/Meta-Llama-3-(8|70)B(?:-Instruct)?")


def prepare_base_model(
    config: HostConfig, runs: Path, report: Report, world: World = World()
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, str]:
    """The model in eval mode, its tokenizer and what NAMM files and rows call it.

    Of several ranks the first trains it, and each has it on its own device. Raises MemxError for a host that cannot be
    had, or a device that is not there.
    """
    if config.device_map is not None and world.size > 1:
        raise MemxError(
            "host.device_map spreads the base model over the devices of one process, and there are several processes",
            hint="run without torchrun, or set host.device_map to null",
        )
    if config.weights is not None:
        check_eight_bits()
    device = local_device(world, world.together(lambda: pick_device(config.device, "host.device")))
    if config.name is None:
        world.on_first(lambda: _train(base_model_point(config), str(config.preset), runs, report))
    name = host_source(config, runs)
    report(Phase(f"loading model {name}"))

    def load() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
        options: Any = dict(dtype=getattr(torch, config.dtype), rope=config.rope, device_map=config.device_map)
        model, tokenizer = load_host(name, any_decoder=True, **options)
        if config.device_map is None:
            torch.nn.Module.to(model, device)  # transformers types its own .to too narrowly
        if config.weights is not None:
            to_eight_bits(model)
        return model, tokenizer

    model, tokenizer = world.in_turn(load)  # the first to ask for it may download or convert it
    return model, tokenizer, config.name or str(config.preset)


def host_source(config: HostConfig, runs: Path) -> str:
    """What names the model: the config's own name, or the checkpoint of its preset's run, there or not.

    Raises MemxError for a preset that is a sweep.
    """
    return config.name or str(runs / base_model_point(config).name / "checkpoint")


def describe_base_model(config: HostConfig) -> PretrainedConfig:
    """The transformers config of a base model, of a preset of the same shape if it cannot be reached.

    Raises MemxError for one that cannot be described.
    """
    shape = config.shape or _known_shape(config.name)
    if config.name is not None:
        try:
            return host_config(config.name, any_decoder=True, rope=config.rope)
        except MemxError:
            if shape is None:
                raise
    dense = [("variants", {}), ("sweep", {}), ("memory.slots", 0)]
    base = load_config(shape, dense) if shape else base_model_point(config).config
    name = config.name or str(config.preset)
    return with_rope(llama_config(base, base.data.vocabulary), config.rope, name)


def _known_shape(name: str | None) -> str | None:
    """The preset that has the shape of a model, by its name on the hub."""
    found = _LLAMA_3.fullmatch(name or "")
    return f"{found.group(1)}b" if found else None


def check_prompt_length(config: HostConfig, described: PretrainedConfig, length: int, key: str) -> None:
    """Raise MemxError if prompts of a length, the value of a key, are longer than the base model's positions."""
    check_positions(
        length,
        described,
        config.name or str(config.preset),
        f"{key} {length:,} does",
        f"lower {key}, or extend the positions, as with --set 'host.rope={{rope_type: dynamic, factor: 2}}'",
    )


def base_model_point(config: HostConfig) -> Point:
    """The training run of a preset's model. Raises MemxError for a preset that is a sweep."""
    points = plan(load_config(str(config.preset)))
    if len(points) != 1:
        raise MemxError(
            f"host.preset: {config.preset} trains {len(points)} models", hint="use a preset that trains a single model"
        )
    return points[0]


def _train(point: Point, preset: str, runs: Path, report: Report) -> None:
    """Train a preset's model, or resume it, if its run is not finished."""
    run = RunStore(runs).run(point.name)
    if run.status != "finished":
        report(Note(f"training the base model {preset} in {run.folder}"))
        with without_torchrun(), restored_threads():
            # the model of the preset itself, and not one that began with the schedule of other steps
            options = Options(runs, resume=True, lengthen=False)
            train_points([point], options, lambda index, event: report(BaseModelTraining(event)))
