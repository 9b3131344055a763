"""A tiny random host on disk with a tokenizer of its own, and settings for an evolution of seconds on it."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def write_host(folder: Path, layers: int = 2) -> Path:
    """Write it: few layers, grouped heads, weights larger than usual, so that attention differs between tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(list(topics.values())[:10], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", pad_token="<end>")
    sizes: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=4)
    config = LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=0)
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(0, 1.5 * weight.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def settings(host: Path, **changes: Any) -> list[tuple[str, Any]]:
    """Assignments for the default preset: three generations of four BAMs under a budget, two families of 220 tokens."""
    given = {
        "host.name": str(host),
        "host.threads": 1,
        "namm.scorer": "bam",
        "namm.hidden": [],
        "namm.rule": "budget",
        "namm.every": 64,
        "namm.budget": 0.4,
        "fitness.target": None,
        "fitness.cap": None,
        "tasks.train": ["key_values", "prose_next"],
        "tasks.length": 220,
        "tasks.pool": 3,
        "tasks.per_generation": 1,
        "tasks.validation_prompts": 2,
        "tasks.test_prompts": 1,
        "evolution.sigma": 0.065,
        "evolution.population": 4,
        "evolution.generations": 3,
        "evolution.validate_every": 2,
        "calibration": 1,
    }
    return [*(given | {key.replace("__", "."): value for key, value in changes.items()}).items()]
