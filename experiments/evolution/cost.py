"""What an evolution would cost, before anything is loaded: the host on the meta device, bytes, FLOPs, expected time."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...errors import MemxError
from ...namm.policies.features import BINS
from ..base_models.load import host_config
from ..config.base import run_name
from ..config.evolution import EvolveConfig
from ..config.loading import load_config
from ..models.build import llama_config
from ..runtime.devices import pick_device
from .start import empty_namm

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_SPEEDS = {"cpu": 6e10, "cuda": 2e14}  # FLOPs a second: of one core; of one H100-class GPU in bfloat16
_ANSWER = {"log_likelihood": 48, "score": 64}  # tokens of a question with its answer


@dataclass(frozen=True)
class Shape:
    """A host: parameters used for a token, layers, query and key-value heads, numbers a head, bytes of a number."""

    parameters: int
    active: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    size: int

    @property
    def token_bytes(self) -> int:
        """Of keys and values of one token, and of what a NAMM notes beside them."""
        numbers = 2 * self.head_dim * self.size + 4 * BINS + 4
        return self.layers * self.kv_heads * numbers

    def forward(self, new: int, before: int = 0) -> float:
        """FLOPs of so many tokens after others."""
        attended = new * before + new * new / 2
        return 2.0 * self.active * new + 4.0 * self.layers * self.heads * self.head_dim * attended


def evolution_cost(config: EvolveConfig, runs: Path) -> dict[str, Any]:
    """The cost of a config: counts are exact but for early stops, bytes and FLOPs of prompts of full length.

    Under a threshold, which may keep everything, candidates are counted as if they did.

    hours: by FLOPs alone, at a speed that `assumption` names. Raises MemxError for a host that cannot be described.
    """
    shape = _shape(config)
    tasks, evolution, fitness = config.tasks, config.evolution, config.fitness
    stages = config.stages
    generations = sum(stage.generations or 0 for stage in stages)
    drawn = [tasks.per_generation * len(stage.tasks) for stage in stages]
    validated = [tasks.validation_prompts * len(tasks.validation or stage.tasks) for stage in stages]
    validations = [1 + -(-(stage.generations or 0) // evolution.validate_every) for stage in stages]
    judged = sum(count * (stage.generations or 0) for count, stage in zip(drawn, stages, strict=True))
    candidates = evolution.population * judged
    tested = tasks.test_prompts * len(tasks.validation or stages[-1].tasks)
    means = sum(map(int.__mul__, validated, validations)) + 2 * (validated[-1] + tested)
    train, validation = len(tasks.train) * tasks.pool, len(config.validated_on) * tasks.validation_prompts
    reads = min(train, judged) + validation + tested if fitness.remember else judged + means
    kept = config.namm.budget if config.namm.rule == "budget" else 1.0
    flops = _flops(config, shape, reads, candidates + means, train + validation + tested, kept)
    device = _device(config)
    at_once = min(evolution.population, fitness.at_once)
    threads = config.host.threads or torch.get_num_threads()
    speed = _SPEEDS[device] * (threads if device == "cpu" else 1)
    where = f"{threads} CPU threads" if device == "cpu" else "one GPU"
    return {
        "folder": str(runs / run_name(config)),
        "host": config.host.name or f"{config.host.preset} of memx train",
        "host_parameters": shape.parameters,
        "dtype": config.host.dtype,
        "namm_parameters": len(empty_namm(config.namm).parameters),
        "rule": f"budget {config.namm.budget:g}" if config.namm.rule == "budget" else f"from {config.namm.threshold:g}",
        "every": config.namm.every,
        "mode": fitness.mode,
        "length": tasks.length,
        "population": evolution.population,
        "generations": generations,
        "drawn": "/".join(map(str, drawn)),
        "train_prompts": train,
        "validation_prompts": validation,
        "test_prompts": tested,
        "bytes_per_token": shape.token_bytes,
        "context_bytes": (max(train + validation, tested) if fitness.remember else 1)
        * _shared(config)
        * shape.token_bytes,
        "batch_bytes": int(at_once * kept * tasks.length * shape.token_bytes),
        "prefills": reads,
        "prefill_tokens": _shared(config),
        "read_online": tasks.length - _shared(config),
        "answers": candidates + means,
        "flops": flops,
        "hours": sum(flops.values()) / speed / 3600,
        "assumption": f"if all ran at {speed:.2g} FLOPs a second on {where}",
    }


def _flops(config: EvolveConfig, shape: Shape, reads: int, answers: int, prompts: int, kept: float) -> dict[str, float]:
    """By what they go to: contexts read, scores of candidates, answers of candidates and of the full cache."""
    length, every = config.tasks.length, config.namm.every
    held = int(kept * length)
    one = shape.forward(_ANSWER[config.fitness.kind], held)
    context = reads * shape.forward(_shared(config))
    runs = 1
    if config.fitness.mode == "online":
        context += answers * shape.forward(max(length - every, 0), held // 2)
        runs = max(length // every, 1)
    pairs = 4 * 32 * length * length / 2 if config.namm.scorer == "bam" else 0
    weights = 2 * len(empty_namm(config.namm).parameters) * length
    scores = answers * runs * shape.layers * shape.kv_heads * (weights + pairs)
    return {"context": context, "choice": scores, "answers": (answers + prompts) * one}


def _shared(config: EvolveConfig) -> int:
    """Tokens of a prompt that are read once for all candidates."""
    length = config.tasks.length
    return length if config.fitness.mode == "post_hoc" else min(config.namm.every, length)


def _shape(config: EvolveConfig) -> Shape:
    from transformers import AutoModelForCausalLM

    described = _described(config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(deepcopy(described), trust_remote_code=False)
    count = sum(parameter.numel() for parameter in model.parameters())
    found: Any = described
    table = found.vocab_size * found.hidden_size
    active = count if getattr(found, "tie_word_embeddings", True) else count - table  # a look-up is no product
    kv_heads = getattr(found, "num_key_value_heads", None) or found.num_attention_heads
    head_dim = getattr(found, "head_dim", None) or found.hidden_size // found.num_attention_heads
    size = getattr(torch, config.host.dtype).itemsize
    return Shape(count, active, found.num_hidden_layers, found.num_attention_heads, kv_heads, head_dim, size)


def _described(config: EvolveConfig) -> PretrainedConfig:
    """The host's transformers config, of a preset of the same shape if it cannot be reached."""
    host = config.host
    if host.name is not None:
        try:
            return host_config(host.name, any_decoder=True)
        except MemxError:
            if host.shape is None:
                raise
    dense = [("variants", {}), ("sweep", {}), ("memory.slots", 0)] if host.shape else []
    base = load_config(host.shape or str(host.preset), dense)
    return llama_config(base, base.data.vocabulary)


def _device(config: EvolveConfig) -> str:
    """cpu or cuda; one that is not here may be counted with."""
    name = config.host.device
    return "cuda" if name.startswith("cuda") else pick_device(name, "host.device").type
