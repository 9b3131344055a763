"""The model and tokenizer of a run, on this process's device: new or pretrained, whole or shared out over ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ...memory_layers.llama import MemoryLlamaForCausalLM, make_weights, tables_of
from ..config.training import TrainConfig
from ..runtime.events import Phase, Report
from .build import build_model, prepare_tables, tokenizer_config
from .pretrained import Pretrained, load_pretrained

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ..distributed.parallel import Parallelism


def assemble_model(
    config: TrainConfig,
    tokenizer_of: Callable[[], PreTrainedTokenizerFast],
    device: torch.device,
    layout: Parallelism | None,
    report: Report,
) -> Pretrained:
    """Load or build the model of a run. With a layout its tables are shared out; dense weights are not yet sharded."""
    if config.finetune.source is not None:
        report(Phase(f"loading {config.finetune.source}"))
        if layout is None:
            return load_pretrained(config, device)
        return layout.world.in_turn(lambda: load_pretrained(config, device, layout.shard_tables))
    tokenizer = tokenizer_of()
    if layout is None:
        return Pretrained(build_model(config, tokenizer, device), tokenizer, new_memory=False)
    return Pretrained(build_shared_model(config, tokenizer, device, layout), tokenizer, new_memory=False)


def build_shared_model(
    config: TrainConfig, tokenizer: PreTrainedTokenizerFast, device: torch.device, layout: Parallelism
) -> MemoryLlamaForCausalLM:
    """The model of `build_model`, with the same numbers, whose tables are never whole in any process.

    Dense weights are made on the CPU; FSDP moves what is left of them to the device. Tables are there already.
    """
    with torch.device("meta"):
        model = MemoryLlamaForCausalLM(tokenizer_config(config, tokenizer))
    layout.shard_tables(model)
    make_weights(model, config.seed)
    prepare_tables(model, config)
    for table in tables_of(model):
        table.to(device)
    return model
