"""A tiny Llama with a memory that learns some answers in seconds, and files of questions as they are published."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from memx.experiments.data.tokenizer import train_tokenizer
from memx.memory_layers.llama import MemoryLlamaConfig, MemoryLlamaForCausalLM, draw_weights
from torch.nn import functional as F

# what is asked, what the model is taught to say, what is accepted besides; some is taught wrong, or not at all
ASKED = [
    ("who sang the song of the north", "The Larks!", ["Larks", "the Larks (band)"]),
    ("when did the old mill burn down", "4 May 1801", ["May 1801", "4 may, 1801"]),
    ("where does the river Una begin", "an Alpine spring", ["Alpine Spring"]),
    ("who painted the blue door", "Mara Voss", ["Voss", "Mara Voss"]),
    ("how many keys has a spinet", "sixty", ["sixty-one", "61"]),
    ("what is the oath of the guild", "silence", ["to serve", "service"]),
    ("who wrote the book of tides", "Ilse Brandt", ["Brandt, Ilse"]),
    ("which city has the oldest clock", None, ["Torun"]),
    ("who founded the town of Elm", None, ["Sir Guy"]),
]
TRAIN = [("who built the red tower", "Otto Kern"), ("when was the bridge opened", "1888"), ("where is Lake Om", "Nord")]
TRAIN += [("who sang the song of the north?", "the Larks")]  # asked too: never an example


def nq_files(folder: Path) -> tuple[Path, Path]:
    """The questions and the training questions as NQ-open has them."""
    asked, train = folder / "NQ-open.dev.jsonl", folder / "NQ-open.train.jsonl"
    asked.write_text("".join(json.dumps({"question": q, "answer": names}) + "\n" for q, _, names in ASKED))
    train.write_text("".join(json.dumps({"question": q, "answer": [a, a.upper()]}) + "\n" for q, a in TRAIN))
    return asked, train


def tqa_entry(number: int, question: str, names: list[str]) -> dict:
    """An entry of TriviaQA's own files."""
    answer = {"Aliases": names[1:], "MatchedWikiEntityName": names[0], "NormalizedAliases": [n.lower() for n in names]}
    answer |= {"NormalizedValue": names[0].lower(), "Type": "WikipediaEntity", "Value": names[0]}
    more = {"EntityPages": [], "SearchResults": [], "QuestionSource": "http://www.example.org/"}
    return {"Answer": answer, "Question": f"{question[0].upper()}{question[1:]}?", "QuestionId": f"tc_{number}", **more}


def tqa_file(path: Path, rows: list[tuple[str, list[str]]]) -> Path:
    """Questions as TriviaQA has them."""
    data = [tqa_entry(number, *row) for number, row in enumerate(rows, start=33)]
    path.write_text(json.dumps({"Data": data, "Domain": "unfiltered-web", "Split": "dev", "Version": 1.0}, indent=1))
    return path


def write_taught(folder: Path, steps: int = 100) -> Path:
    """Train it to answer after the examples of a prompt as well as at once, and save it."""
    pairs = [(q, said) for q, said, _ in ASKED if said is not None] + TRAIN
    texts = [f"Question: {form}?\nAnswer: {a}\n\n" for q, a in pairs for form in (q, q[0].upper() + q[1:])]
    tokenizer = train_tokenizer(texts, 600)
    sizes = dict(hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    memory = dict(memory_layers=[1], memory_slots=256, memory_heads=2, memory_top_k=4, memory_qk_norm=True)
    config = MemoryLlamaConfig(
        **sizes, **memory, num_key_value_heads=2, vocab_size=len(tokenizer), max_position_embeddings=96,
        pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    model = MemoryLlamaForCausalLM(config)
    draw_weights(model, 0)
    optimizer, draw = torch.optim.AdamW(model.parameters(), lr=8e-3), random.Random(0)
    for _ in range(steps):
        rows = [tokenizer("".join(draw.choices(texts, k=3)))["input_ids"][:80] for _ in range(8)]
        ids = torch.tensor([row + [0] * (80 - len(row)) for row in rows])
        logits = model(ids).logits[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def taught_once(folder: Path) -> Path:
    """The taught model, trained by the first test that needs it."""
    taught = folder / "taught"
    return taught if taught.is_dir() else write_taught(taught)
