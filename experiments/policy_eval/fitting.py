"""Which families of an evaluation fit in its length: by default those that do not are left out, with a note."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ...errors import MemxError
from ..base_models.load import load_tokenizer
from ..base_models.model_folder import may_be_on_hub
from ..config.eviction.policy_eval import EvalConfig
from ..eviction.base_model import check_prompt_length, describe_base_model, host_source
from ..eviction.tasks import ENOUGH, Draws, check_fit, unfit


def fitting(config: EvalConfig, runs: Path, note: Callable[[str], None], *, chosen: bool) -> EvalConfig:
    """Leave out the families of which some prompt does not fit in the evaluation's length.

    A base model that is not there yet, or cannot be reached, is not looked at: the evaluation itself will say so.

    Args:
        config: The evaluation.
        runs: The folder of all runs.
        note: Gets a line on what is left out.
        chosen: Whether the user named the families; then one that does not fit is an error.

    Returns:
        The evaluation of the families that fit.

    Raises:
        MemxError: There is no such base model, the length is beyond its positions, a family that was named does not
            fit, or none fits.
    """
    try:
        described = describe_base_model(config.host)
    except MemxError:
        if config.host.name is not None and not may_be_on_hub(config.host.name):
            raise
        return config
    check_prompt_length(config.host, described, config.length, "length")
    if config.length >= ENOUGH:
        return config
    try:
        tokenizer = load_tokenizer(host_source(config.host, runs))
    except MemxError:
        return config
    found = unfit(config.tasks, tokenizer, Draws(config.split, config.prompts, config.length, config.seed))
    kept = tuple(task for task in config.tasks if task not in found)
    if chosen or not kept:
        check_fit(found, config.length, "--length")
    if found:
        note(_left_out(found, config.length))
    return config.model_copy(update={"tasks": kept})


def _left_out(found: Mapping[str, int], length: int) -> str:
    """What is left out, and at which length each family would fit."""
    families = ", ".join(f"{task} ({least:,} tokens)" for task, least in found.items())
    return (
        f"left out, as they need more than {length:,} tokens: {families}; --length {max(found.values())} includes all"
    )
