"""What is talked to: a model by its name, on its device, with the policy that evicts from its cache if there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...errors import MemxError
from ...hub import quick_hub
from ..base_models.load import load_host
from ..eviction.policy import EvictConfig, build_policy, describe, other_heads
from ..qa.model_source import ModelSource, find_model
from ..runtime.devices import pick_device, pick_dtype
from ..runtime.malloc import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from ...namm.attachment import Attached
    from ...namm.policies.base import Policy


@dataclass(frozen=True)
class ModelChoice:
    """A model, and the policy that evicts tokens from its cache.

    Attributes:
        name: A run of memx train, a checkpoint, `smollm2`, a folder or a hub name.
        runs: The folder of runs.
        policy: A policy by name; None and no NAMM: the whole cache stays.
        namm: A saved NAMM.
        budget: Share of the cache to keep, or above 1 tokens per head; None for the policy's own.
        every: Tokens between evictions; None for the policy's own.
        seed: Random seed of the policy `random`.
        device: auto, cpu, cuda or cuda:N.
        dtype: Data type of the weights; None: bfloat16 on CUDA, float32 on a CPU.
    """

    name: str
    runs: Path = Path("results/runs")
    policy: str | None = None
    namm: str | Path | None = None
    budget: float | None = None
    every: int | None = None
    seed: int = 0
    device: str = "auto"
    dtype: str | None = None

    def build_policy(self) -> Policy | None:
        """Make the policy.

        Returns:
            The policy; None for the whole cache.

        Raises:
            MemxError: There is no such policy, or a setting of one is given without it.
        """
        if self.namm is None and self.policy in (None, "full"):
            for option, value in (("--budget", self.budget), ("--interval", self.every)):
                if value is not None:
                    raise MemxError(f"{option} needs --policy or --namm", hint="add e.g. --policy snapkv")
            return None
        if self.namm is not None and self.policy is not None:
            raise MemxError("--policy and --namm exclude each other", hint="use one of them")
        return build_policy(self._eviction())

    def _eviction(self) -> EvictConfig:
        given: dict[str, Any] = dict(policy=self.policy, namm=self.namm, budget=self.budget, every=self.every)
        return EvictConfig("", host=self.name, seed=self.seed, **given)


class Loaded:
    """A loaded model.

    Attributes:
        model: The model, in eval mode on its device.
        tokenizer: Its tokenizer.
        source: Where it is from.
        policy: What evicts from its cache; None if nothing does.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        source: ModelSource,
        policy: Policy | None,
    ) -> None:
        self.model, self.tokenizer, self.source, self.policy = model, tokenizer, source, policy

    @contextmanager
    def evicting(self) -> Iterator[Attached | None]:
        """Attach the policy inside the block.

        Yields:
            The attached model; None without a policy.
        """
        if self.policy is None:
            yield None
            return
        from ...namm.attachment import attach

        self.model.config.use_cache = True  # a pass without a cache evicts nothing
        with attach(self.model, self.policy) as attached:
            yield attached


def load(choice: ModelChoice, progress: Callable[[str], None]) -> Loaded:
    """Load a model.

    Args:
        choice: Which, and its policy.
        progress: Gets a line for each thing that takes time, and what was noticed.

    Returns:
        The model, with plain greedy decoding as its default.

    Raises:
        MemxError: The model, the policy or the device is not there, or they do not go together.
    """
    from transformers import GenerationConfig

    policy = choice.build_policy()
    device = pick_device(choice.device, "--device")
    dtype = pick_dtype(choice.dtype, device)
    source = find_model(choice.name, choice.runs)
    keep_freed_memory()
    progress(f"loading model {source.label}")
    with quick_hub():
        model, tokenizer = load_host(source.source, dtype=dtype, any_decoder=True)
    if policy is not None:
        if found := other_heads(choice._eviction(), policy):
            progress(found)
        progress(f"policy {policy.name} ({describe(policy)})")
    ends: Any = getattr(model.generation_config, "eos_token_id", None)
    both = dict.fromkeys([*([ends] if isinstance(ends, int) else ends or []), tokenizer.eos_token_id])
    found_ends = [end for end in both if end is not None] or None
    # a checkpoint may bring sampling and penalties, which `generate` takes where nothing else is said
    model.generation_config = GenerationConfig(eos_token_id=found_ends, pad_token_id=tokenizer.pad_token_id)
    torch.nn.Module.to(model, device)  # transformers types its own .to too narrowly
    return Loaded(model.eval(), tokenizer, source, policy)
