"""A tiny model on disk in the format of meta-llama/Llama-3.1-8B on the hub: the same files, keys and kinds of value.

Only numbers are smaller: widths, layers, the vocabulary, and with it the special tokens' ids.
"""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

WORDS = 400
SPECIALS = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|finetune_right_pad_id|>", "<|eot_id|>"
)  # fmt: skip
BEGIN, END, _, PAD, TURN = range(WORDS, WORDS + len(SPECIALS))
LAYERS, WIDTH, HEADS, KV_HEADS, INNER, HEAD = 2, 64, 4, 2, 96, 16
_WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
_PIECES = _WORD + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
    "hidden_act": "silu",
    "hidden_size": WIDTH,
    "initializer_range": 0.02,
    "intermediate_size": INNER,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV_HEADS,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3",
    "use_cache": True,
    "vocab_size": WORDS + len(SPECIALS),
}
GENERATION: dict[str, Any] = {
    "bos_token_id": BEGIN,
    "do_sample": True,
    "eos_token_id": [END, TURN],
    "temperature": 0.6,
    "top_p": 0.9,
    "transformers_version": "4.42.3",
}


def write_llama3(folder: Path, shards: int = 4) -> Path:
    """Write it: random bfloat16 weights in so many files, larger than usual, so that attention differs by token."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", CONFIG)
    _write_json(folder / "generation_config.json", GENERATION)
    _write_weights(folder, shards)
    _write_tokenizer(folder)
    return folder


def _write_weights(folder: Path, shards: int) -> None:
    draw = torch.Generator().manual_seed(0)
    norms = {f"model.layers.{layer}.{name}_layernorm.weight": (WIDTH,)
             for layer in range(LAYERS) for name in ("input", "post_attention")}  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (WORDS + len(SPECIALS), WIDTH)}
    for layer in range(LAYERS):
        own = {
            "mlp.down_proj": (WIDTH, INNER),
            "mlp.gate_proj": (INNER, WIDTH),
            "mlp.up_proj": (INNER, WIDTH),
            "self_attn.k_proj": (KV_HEADS * HEAD, WIDTH),
            "self_attn.o_proj": (WIDTH, HEADS * HEAD),
            "self_attn.q_proj": (HEADS * HEAD, WIDTH),
            "self_attn.v_proj": (KV_HEADS * HEAD, WIDTH),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in own.items()}
    shapes |= norms | {"model.norm.weight": (WIDTH,), "lm_head.weight": (WORDS + len(SPECIALS), WIDTH)}
    weights = {
        name: (torch.randn(shape, generator=draw) * 1.5 * shape[-1] ** -0.5 if len(shape) > 1 else torch.ones(shape))
        for name, shape in shapes.items()
    }
    names, where = list(weights), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        own = {name: weights[name].bfloat16() for name in names[shard::shards]}
        save_file(own, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(own, file)
    size = sum(2 * weight.numel() for weight in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}
    _write_json(folder / "model.safetensors.index.json", index)


def _write_tokenizer(folder: Path) -> None:
    bpe = Tokenizer(models.BPE(ignore_merges=True))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    split = pre_tokenizers.Split(Regex(_PIECES), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=WORDS, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(list(topics.values())[:10], trainer)
    bpe.add_special_tokens([*SPECIALS])
    assert bpe.get_vocab_size() == CONFIG["vocab_size"] and bpe.token_to_id(SPECIALS[0]) == BEGIN
    bpe.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{SPECIALS[0]} $A", pair=f"{SPECIALS[0]} $A {SPECIALS[0]}:1 $B:1",
                special_tokens=[(SPECIALS[0], BEGIN)],
            ),
        ]
    )  # fmt: skip
    bpe.save(str(folder / "tokenizer.json"))
    about = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    added = {str(WORDS + number): {"content": name, **about, "special": True} for number, name in enumerate(SPECIALS)}
    tokenizer = {
        "added_tokens_decoder": added,
        "bos_token": SPECIALS[0],
        "clean_up_tokenization_spaces": True,
        "eos_token": SPECIALS[1],
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 131072,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    _write_json(folder / "tokenizer_config.json", tokenizer)
    ends = {"bos_token": SPECIALS[0], "eos_token": SPECIALS[1]}
    _write_json(
        folder / "special_tokens_map.json", {name: {"content": content, **about} for name, content in ends.items()}
    )


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
