"""Another way to an evaluation's figures: one question at a time, no cache, nothing of memx but the model."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from memx.experiments.qa.run import eval_model
from memx.experiments.qa.sources import eval_configs
from memx.experiments.runtime.options import Options
from memx.memory_layers.llama import MemoryLlamaForCausalLM
from memx.results.store.runs import RunStore
from transformers import AutoTokenizer


class Script:
    """A saved model, in float64, and its tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.model = MemoryLlamaForCausalLM.from_pretrained(folder).double().eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def answer(self, prompt: str, most: int) -> str:
        ids, text = self.tokenizer(prompt)["input_ids"], ""
        for _ in range(most):
            token = self.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item()
            if token == self.tokenizer.eos_token_id:
                break
            ids.append(token)
            text += self.tokenizer.decode([token])
            if "\n" in text:
                break
        return text.partition("\n")[0]

    @torch.no_grad()
    def nll(self, prompt: str, answer: str) -> float:
        start = len(self.tokenizer(prompt)["input_ids"])
        ids = torch.tensor(self.tokenizer(f"{prompt} {answer}")["input_ids"])
        logits = self.model(ids[None], use_cache=False).logits[0].double().log_softmax(-1)
        return -logits[torch.arange(start - 1, len(ids) - 1), ids[start:]].sum().item()


def prompt_of(shots: list[tuple[str, str]], question: str) -> str:
    shown = [f"Question: {q.rstrip('?')}?\nAnswer: {a}\n\n" for q, a in shots]
    return "".join(shown) + f"Question: {question.rstrip('?')}?\nAnswer:"


def config_of(model: Path, **given):
    options = dict(tasks=None, questions=[], examples=[], harness=None, harness_folder=None, shots=None, name=None)
    settings = {"answer_tokens": 10, "device": "cpu", **given.pop("settings", {})}
    (config,) = eval_configs([str(model)], Path("nowhere"), **{**options, **given}, settings=settings)
    return config


def evaluated(config, runs: Path, batch: int = 4, **options):
    """The rows by data set and metric, and the kept answers by number."""
    rows = eval_model(config, Options(runs, **options), lambda event: None, batch=batch)
    kept = RunStore(runs).run(config.folder).folder / "answers.jsonl"
    answers = [json.loads(line) for line in kept.read_text().splitlines()] if kept.is_file() else []
    return {(row.dataset, row.metric): row for row in rows}, {line["number"]: line for line in answers}
