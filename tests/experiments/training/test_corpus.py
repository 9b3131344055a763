"""Training on a corpus and with tables in host memory: the same rows and losses for any number of processes."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from memx.cli.main import run
from memx.experiments.config.loading import load_config
from memx.experiments.config.points import plan
from memx.experiments.data.tokenizer import train_tokenizer
from memx.experiments.runtime.events import Phase
from memx.experiments.runtime.options import Options
from memx.experiments.runtime.signals import Interrupted
from memx.experiments.training.sweep import train_points
from memx.results.store.runs import RunStore
from safetensors.torch import load_file
from transformers import AutoTokenizer

from tests.exact import float64
from tests.ranks import run_worlds

SETTINGS = {
    "memory.kind": "memory+", "memory.layers": [0, 1], "data.vocabulary": 300, "data.sequence": 32,
    "corpus.shuffle": 8, "corpus.lanes": 4, "corpus.held_out": 0.1, "corpus.blocks": 4,
    "training.steps": 10, "training.batch": 8, "training.accumulate": 2, "training.threads": 1,
    "training.log_every": 1, "training.checkpoint_every": 4, "training.value_optimizer": "sparse",
    "evaluation.every": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Documents of simple arithmetic, some of them longer than a row."""
    path = tmp_path_factory.mktemp("corpus") / "sums.jsonl"
    sums = [f"{a} and {b} are {a + b}. " for a in range(20) for b in range(10)]
    texts = ["".join(sums[start : start + 1 + start % 7]) for start in range(0, len(sums), 2)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def config_of(corpus: Path, changes: dict | None = None):
    return load_config("tiny", {"corpus.sources": [str(corpus)], **SETTINGS, **(changes or {})}.items())


def train(corpus: Path, runs: Path, changes: dict | None = None, resume: bool = False) -> None:
    train_points(plan(config_of(corpus, changes)), Options(runs, resume=resume), lambda index, event: None)


def train_exactly(corpus: Path, runs: Path, changes: dict | None = None, resume: bool = False) -> None:
    with float64():
        train(corpus, runs, changes, resume)


def stop_exactly_at_four(corpus: Path, runs: Path, changes: dict | None = None) -> None:
    def report(index, event):
        if getattr(event, "step", None) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with float64(), pytest.raises(Interrupted):
        train_points(plan(config_of(corpus, changes)), Options(runs), report)


def run_of(corpus: Path, runs: Path, changes: dict | None = None):
    (point,) = plan(config_of(corpus, changes))
    return RunStore(runs).run(point.name)


def losses(run) -> list[float]:
    return [line["loss"] for line in run.metrics() if "loss" in line]


def test_a_corpus_gives_any_number_of_processes_the_same_losses_and_goes_on_at_the_same_row(corpus, tmp_path):
    train_exactly(corpus, tmp_path / "1")
    alone = run_of(corpus, tmp_path / "1")
    assert losses(alone)[-1] < losses(alone)[0]
    rows = {(row.dataset, row.metric): row.value for row in alone.rows()}
    assert rows["corpus", "nll"] == pytest.approx(losses(alone)[-1], rel=0.2)
    on_the_way = [line["evaluation"] for line in alone.metrics() if "evaluation" in line]
    assert [list(one) for one in on_the_way] == [["corpus"]]

    run_worlds(stop_exactly_at_four, (4,), {"corpus": corpus, "runs": tmp_path / "4"})
    shutil.copytree(tmp_path / "4", tmp_path / "4 then 1")
    run_worlds(train_exactly, (2,), {"corpus": corpus, "runs": tmp_path / "4", "resume": True})
    train_exactly(corpus, tmp_path / "4 then 1", resume=True)
    for runs in ("4", "4 then 1"):
        run = run_of(corpus, tmp_path / runs)
        assert losses(run) == pytest.approx(losses(alone), abs=1e-11)
        assert [line["tokens"] for line in run.metrics() if "tokens" in line] == [
            8 * 32 * step for step in range(1, 11)
        ]
        assert [row.metric for row in run.rows()] == [row.metric for row in alone.rows()]


def test_tables_in_host_memory_train_to_the_same_bits_however_far_ahead_rows_are_fetched(corpus, tmp_path):
    weights = []
    for number, changes in enumerate([{}, *({"parallel.host_values": True, "parallel.prefetch": n} for n in (0, 1))]):
        runs = tmp_path / str(number)
        train(corpus, runs, changes)
        run = run_of(corpus, runs, changes)
        weights.append((losses(run), load_file(run.folder / "checkpoint" / "model.safetensors")))
    for found, tensors in weights[1:]:
        assert found == weights[0][0]
        assert all(torch.equal(tensor, weights[0][1][name]) for name, tensor in tensors.items())


@pytest.mark.parametrize("table", ["width", pytest.param("replicated", marks=pytest.mark.slow)])
def test_tables_in_host_memory_are_shared_out_as_others_are(table, corpus, tmp_path):
    changes = {"parallel.host_values": True, "parallel.table": table}
    train_exactly(corpus, tmp_path / "1", changes)
    run_worlds(train_exactly, (2,), {"corpus": corpus, "runs": tmp_path / "2", "changes": changes})
    one, two = (run_of(corpus, tmp_path / size, changes) for size in ("1", "2"))
    assert losses(two) == pytest.approx(losses(one), abs=1e-11)


def test_a_run_speaks_with_the_tokenizer_that_its_text_was_prepared_with(corpus, tmp_path):
    texts = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
    made = train_tokenizer(texts, 280)
    made.add_special_tokens({"eos_token": "<stop>"})  # unlike those that memx trains
    made.save_pretrained(tmp_path / "own")
    prepared = tmp_path / "prepared"
    assert run(["prepare", str(corpus), "--out", str(prepared), "--tokenizer", str(tmp_path / "own")]) == 0
    phases = []
    train_points(plan(config_of(prepared)), Options(tmp_path / "runs"), lambda index, event: phases.append(event))
    said = [event.text for event in phases if isinstance(event, Phase)]
    assert "measuring held-out loss" in said and "final evaluation" not in said  # it has no questions
    place = run_of(prepared, tmp_path / "runs").folder / "checkpoint"
    assert AutoTokenizer.from_pretrained(place).eos_token == "<stop>"
    assert json.loads((place / "config.json").read_text())["eos_token_id"] == made.convert_tokens_to_ids("<stop>")


def test_facts_and_a_corpus_exclude_each_other(corpus, capsys):
    assert run(["train", "tiny", "--corpus", str(corpus), "--facts", "people"]) == 2
    assert "exclude each other" in capsys.readouterr().err
