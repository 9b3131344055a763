"""Continual learning: facts in parts, one after another, and what was known before; stopped and resumed."""

import json
from pathlib import Path

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.base_models.load import load_host
from memx.experiments.config.loading import load_config
from memx.experiments.config.points import plan
from memx.experiments.data.facts.general_knowledge import begins_right
from memx.experiments.data.facts.parts import split_parts
from memx.experiments.data.facts.questions import build_split
from memx.experiments.models.generation import generate_texts
from memx.experiments.runtime.options import Options
from memx.experiments.runtime.signals import Interrupted, StopRequest
from memx.experiments.training.continual.known import KnownQuestions
from memx.experiments.training.data import build_tokenizer
from memx.experiments.training.run import train
from memx.experiments.training.sweep import train_points
from memx.results.store.runs import Run, RunStore
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

SIZES = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
    max_position_embeddings=128, pad_token_id=0, bos_token_id=None, eos_token_id=1, tie_word_embeddings=True,
)  # fmt: skip
SETTINGS = {
    "data.biographies": 8,
    "data.unseen": 0,
    "finetune.parts": 2,
    "training.steps": 6,
    "training.batch": 8,
    "training.warmup": 1,
    "training.threads": 1,
    "evaluation.every": None,
    "evaluation.questions": 3,
    "evaluation.final_questions": 4,
    "evaluation.max_answer": 1,
    "evaluation.batch": 4,
    "text.block": 32,
    "text.blocks": 2,
    "memory.insertion": "beside",
}


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """The folder of a tiny Llama, and a file of ordinary text beside it."""
    folder = tmp_path_factory.mktemp("host")
    tokenizer = build_tokenizer(load_config("tiny"), build_split(load_config("tiny"))[0])
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SIZES))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    paragraph = "The river runs past the old mill and on to the town, where number {} is the house with the red door. "
    (folder / "text.txt").write_text("\n\n".join(paragraph.format(number) * 80 for number in range(12)))
    return folder


def settings_of(host: Path, **changes):
    start = {"finetune.source": str(host), "text.source": str(host / "text.txt")}
    return load_config("tiny", {**SETTINGS, **start, **changes}.items())


def run_of(host: Path, runs: Path, **changes):
    """Train; returns the run's folder and its rows."""
    config = settings_of(host, **changes)
    rows = train_points(plan(config), Options(runs), lambda index, event: None)
    (point,) = plan(config)
    return runs / point.name, rows[point.name]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoint" / "model.safetensors")


@pytest.fixture(scope="module")
def questions(host, tmp_path_factory) -> Path:
    """A file of six questions, of which the model answers three: those whose answers are its own completions."""
    model, tokenizer = load_host(str(host))
    prompts = [f"The number {n} is" for n in range(12)]
    ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    texts = dict(zip(prompts, generate_texts(model.eval(), tokenizer, ids, 8, pad=0), strict=True))
    able = [prompt for prompt, text in texts.items() if begins_right(text, [text.strip().partition("\n")[0]])]
    lines = [{"prompt": prompt, "answers": [texts[prompt].strip().partition("\n")[0]]} for prompt in able[:3]]
    lines += [{"prompt": prompt, "answers": ["none of that"]} for prompt in able[3:6]]
    assert len(lines) == 6
    path = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_after_each_part_new_and_earlier_facts_are_asked(host, tmp_path):
    folder, rows = run_of(host, tmp_path, **{"finetune.train": "memory"})
    asked = {(row.dataset, row.labels.after_part): row.n for row in rows if row.metric == "exact_match"}
    assert {key: n for key, n in asked.items() if key[1] is not None} == {
        ("parts/new/seen", 1): 3, ("parts/new/rephrased", 1): 3, ("parts/new/seen", 2): 3,
        ("parts/new/rephrased", 2): 3, ("parts/earlier/seen", 2): 3, ("parts/earlier/rephrased", 2): 3,
    }  # fmt: skip
    losses = {row.labels.after_part: row.value for row in rows if row.dataset == "parts/text"}
    whole = {row.metric: row.value for row in rows if row.labels.text}
    assert (losses[0], losses[2]) == (whole["nll_before"], whole["nll"])
    assert len(set(losses.values())) == 3
    assert [line["part"] for line in Run(folder).metrics() if "part" in line] == [1, 2]


@pytest.mark.parametrize(
    "changes",
    [{"finetune.train": "all", "memory.kind": "dense"}, {"finetune.train": "memory"}],
    ids=["dense optimizer", "sparse optimizer"],
)
def test_each_part_is_learned_as_in_a_run_of_its_own(host, tmp_path, changes):
    """Two runs, one on each part's facts, end with the same bits: schedule and optimizer begin anew."""
    settings = {**changes, "training.value_optimizer": "sparse" if changes["finetune.train"] == "memory" else "auto"}
    config = settings_of(host, **settings)
    split, _ = build_split(config)
    first, second = split_parts(split.trained, 2, split.seed)
    assert {fact.subject for fact in first}.isdisjoint(fact.subject for fact in second)
    files = []
    for number, facts in enumerate((first, second)):
        files.append(tmp_path / f"{number}.jsonl")
        files[-1].write_text("".join(json.dumps(fact._asdict()) + "\n" for fact in facts))
    alone = {**settings, "finetune.parts": None, "training.steps": 3, "data.relations": None}
    start, _ = run_of(host, tmp_path / "a", **alone, **{"data.facts": [str(files[0])]})
    then, _ = run_of(
        host, tmp_path / "b", **alone, **{"data.facts": [str(files[1])], "finetune.source": str(start / "checkpoint")}
    )
    together, _ = run_of(host, tmp_path / "c", **settings)
    expected, found = weights_of(then), weights_of(together)
    assert all(torch.equal(expected[name], weight) for name, weight in found.items())


SLOTS = {"finetune.train": "slots", "finetune.rows_by": "kl", "memory.insertion": "replace", "finetune.reference": 3}


@pytest.mark.parametrize(
    ("changes", "stop_step"), [({"finetune.train": "all"}, 2), ({"finetune.train": "all"}, 3), (SLOTS, 5)], ids=str
)
def test_a_stopped_and_resumed_run_ends_bit_identical(host, questions, tmp_path, changes, stop_step):
    settings = {**changes, "finetune.rows": 9, "finetune.slots_optimizer": "adam"}
    if changes["finetune.train"] == "all":
        settings["evaluation.known"] = [str(questions)]
    straight, rows = run_of(host, tmp_path / "straight", **settings)
    (point,) = plan(settings_of(host, **settings))
    stop = StopRequest()

    def stop_there(event):
        stop.asked |= getattr(event, "step", None) == stop_step

    with RunStore(tmp_path).claim(point.name) as run, pytest.raises(Interrupted):
        train(point.config, run, stop_there, stop, 1)
    with RunStore(tmp_path).claim(point.name, resume=True) as run:
        again = train(point.config, run, lambda event: None, StopRequest(), 1)
    expected, found = weights_of(straight), weights_of(tmp_path / point.name)
    assert all(torch.equal(expected[name], weight) for name, weight in found.items())
    facts = [[(row.dataset, row.metric, row.value, row.labels.after_part) for row in one] for one in (rows, again)]
    assert facts[0] == facts[1]
    assert [line["part"] for line in run.metrics() if "part" in line] == [1, 2]


def test_known_questions_are_those_that_the_model_answers(host, questions, tmp_path):
    settings = {"finetune.train": "all", "evaluation.known": [str(questions)], "training.lr": 0.1}
    folder, rows = run_of(host, tmp_path, **settings)
    lines = [json.loads(line) for line in questions.read_text().splitlines()]
    kept = [json.loads(line)["prompt"] for line in (folder / "known.jsonl").read_text().splitlines()]
    assert sorted(kept) == sorted(line["prompt"] for line in lines[:3])
    found = {(row.dataset, row.metric, row.labels.after_part): row for row in rows}
    assert found["known", "exact_match_before", None].value == 100
    assert found["known", "exact_match_before", None].n == 3
    assert found["known", "exact_match", None].value == found["parts/known", "exact_match", 2].value
    assert found["known", "nll", None].value > found["known", "nll_before", None].value


def test_known_questions_stop_at_the_number_asked_for(host, questions):
    model, tokenizer = load_host(str(host))
    settings = {"evaluation.known": [str(questions)], "evaluation.known_questions": 2, "evaluation.batch": 1}
    known = KnownQuestions(settings_of(host, **settings), tokenizer)
    known.find(model)
    assert len(known.questions) == 2 <= known.asked <= 5  # the last question asked was answered


def test_a_model_that_knows_nothing_is_not_asked_everything(host, questions, monkeypatch):
    model, tokenizer = load_host(str(host))
    monkeypatch.setattr("memx.experiments.training.continual.known._HOPELESS", 2)
    known = KnownQuestions(
        settings_of(host, **{"evaluation.known": [str(questions)], "evaluation.batch": 1}), tokenizer
    )
    known.candidates = [one._replace(accepted=("no such answer",)) for one in known.candidates]
    assert len(known.candidates) > 2
    with pytest.raises(MemxError, match=r"answers none of 2 questions of evaluation\.known"):
        known.find(model)


def test_what_cannot_be_learned_in_parts(host, tmp_path):
    for changes, match in (
        ({"training.steps": 7}, "training.steps 7 is no multiple of finetune.parts 2"),
        ({"finetune.source": None, "finetune.train": "all"}, "finetune.parts needs a pretrained model"),
        ({"finetune.parts": 9, "training.steps": 9}, "40 facts on 8 subjects cannot be split into 9 parts"),
        ({"evaluation.known": ["contries"]}, "no questions 'contries'"),
    ):
        with pytest.raises(MemxError, match=match):
            run_of(host, tmp_path, **changes)


def test_a_lost_file_of_known_questions_is_noticed(host, questions, tmp_path):
    (point,) = plan(settings_of(host, **{"evaluation.known": [str(questions)]}))
    stop = StopRequest()

    def stop_there(event):
        stop.asked |= getattr(event, "step", None) == 2

    with RunStore(tmp_path).claim(point.name) as run, pytest.raises(Interrupted):
        train(point.config, run, stop_there, stop, 1)
    (run.folder / "known.jsonl").unlink()
    with RunStore(tmp_path).claim(point.name, resume=True) as run, pytest.raises(MemxError, match="is missing"):
        train(point.config, run, lambda event: None, StopRequest(), 1)
