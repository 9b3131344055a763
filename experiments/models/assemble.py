"""The model and tokenizer of a run: new or pretrained, with the part of each value table that this process holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ..config.training import TrainConfig
from ..runtime.events import Phase, Report
from .build import build_model
from .pretrained import Pretrained, load_pretrained

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ..distributed.parallel import Parallelism


def assemble_model(
    config: TrainConfig,
    tokenizer_of: Callable[[], PreTrainedTokenizerFast],
    device: torch.device,
    parallelism: Parallelism,
    report: Report,
) -> Pretrained:
    """Load or build the model of a run.

    Args:
        config: of the run.
        tokenizer_of: makes the tokenizer of a model that is new.
        device: that this process computes on.
        parallelism: the processes that share the run. Tables are cut; dense weights are not yet.
        report: gets an event before something slow begins.

    Returns:
        Model and tokenizer, and whether a memory was put into a pretrained model.

    Raises:
        MemxError: the pretrained model cannot be read, or not be trained as the config asks.
    """
    if config.finetune.source is not None:
        report(Phase(f"loading {config.finetune.source}"))
        # one rank of a machine downloads and converts; the others then find the files
        return parallelism.world.in_turn(lambda: load_pretrained(config, device, parallelism.shard_tables))
    tokenizer = tokenizer_of()
    return Pretrained(build_model(config, tokenizer, device, parallelism), tokenizer, new_memory=False)
