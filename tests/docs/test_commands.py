"""Every printed command works: it runs small, or is resolved where it needs a GPU, a hub or minutes."""

import shlex

import pytest
from memx.cli.main import run as memx

from .printed import commands, mentions, of_block
from .runner import check_parsed, run_line

# what makes a training run one of seconds
SHORT = {
    "training.steps": 2, "training.batch": 4, "training.accumulate": 1, "training.warmup": 1, "training.threads": 1,
    "evaluation.every": None, "evaluation.final_questions": 4, "evaluation.max_answer": 2, "data.vocabulary": 300,
    "memory.slots": 1024, "parallel.shard": None,
}  # fmt: skip
NARROW = {"model.width": 32, "model.heads": 2, "model.feed_forward": 32, "model.layers": 9, "model.context": 64,
          "data.sequence": 32, "corpus.blocks": 2, "corpus.held_out": 0.3, "corpus.lanes": 2}  # fmt: skip
PRETRAINED = {"text.block": 32, "text.blocks": 2, "text.mix": 0, "finetune.reference": 2, "data.sequence": 64}


@pytest.mark.parametrize("printed", commands(), ids=str)
def test_a_printed_command_works(printed, box):
    run_line(printed.line, box)


@pytest.mark.parametrize("printed", mentions(), ids=str)
def test_a_command_in_a_sentence_parses(printed, monkeypatch):
    check_parsed(printed.line, monkeypatch)


@pytest.mark.parametrize(
    ("has", "lacks", "settings"),
    [
        ("train --facts my.csv", "--init-from", {}),
        ("train --corpus my-texts/", "torchrun", NARROW),
        ("train --corpus prepared", "torchrun", NARROW),
        ("train --init-from smollm2", "--dry-run", PRETRAINED),
        ("train my.yaml", "--dry-run", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_printed_training_run_trains(has, lacks, settings, box, monkeypatch):
    """The first printed command of each kind, for two steps."""
    matching = [one for one in commands() if set(has.split()) <= set(one.line.split()) and lacks not in one.line]
    (line, *_) = [one.line for one in matching if one.line.startswith("memx train")]
    changed = {**SHORT, **settings}
    words = [word for word in shlex.split(line)[1:] if word != "--dry-run"]
    if "--init-from" in words:
        del changed["data.vocabulary"]  # a pretrained model has a tokenizer
    words = [word for word in _joined(words) if word.removeprefix("--set=").partition("=")[0] not in changed]
    assignments = [f"--set={key}={'null' if value is None else value}" for key, value in changed.items()]
    monkeypatch.chdir(box.root)
    assert memx([*words, *assignments]) == 0
    assert all((run / "checkpoint").is_dir() for run in box.root.glob("results/runs/*-*"))


def _joined(words: list[str]) -> list[str]:
    """The words of a command with each --set and its value in one word."""
    pairs = zip(["", *words], words, strict=False)
    return [f"--set={word}" if before == "--set" else word for before, word in pairs if word != "--set"]


@pytest.mark.parametrize(
    "line",
    [
        "memx trian facts",
        "memx train fcats --dry-run",
        "memx train facts --dryrun",
        "memx train facts --slots many",
        "memx train facts --set training.step=3",
        "memx train 134m --variant memory++ --corpus my-texts/",
        "memx train 134m --corpus her-texts/",
        "memx train --init-from smolm2 --facts my.csv",
        "memx train --init-from smollm2 --facts your.csv --train memroy",
        "memx prepare her-texts/ --out prepared",
        "memx prepare my-texts/ --output prepared",
        "memx eval results/runs/RUN --file nq=nq-open",
        "memx eval results/runs/RUN --file qn=nq_open",
        "memx eval smolm2",
        "memx evolve-namm namm-tinny",
        "memx evolve-namm --set fitness.targte=0.25",
        "memx eval-namm results/runs/NAMM --task peopel",
        "memx eval-namm results/runs/NAMM --polcy h2o",
        "memx evict --file prompt.txt --policy h2",
        "memx evict --file promt.txt",
        "memx evict --file prompt.txt --budget 1.5",
        "memx evict --file prompt.txt --every 64",
        "memx bench opps",
        "memx bench embedding_bag",
        "memx bench ops embeding_bag",
        "memx bench step --slot 4096",
        "memx bench --op step",
        "memx bench compare results/runs/new",
        "memx plot --publish",
        "memx plot lsos",
        "memx plot front",
        "memx plot loss --published",
        "memx plot results/run/A",
        "memx presets --jsn",
        "memx config show facst",
        "memx config copy facts",
        "memx convert",
        "torchrun --nproc-per-node 2 --no-python memx train fcats",
        "torchrun --nproc-per-mode 2 --no-python memx train facts",
        "torchrun --nproc-per-node 2 memx train facts",
        "make demoo",
        "pip install -c constraints.txt -e '.[evla]'",
        "pip install -c constraint.txt -e .",
        "hf dowload google-research-datasets/nq_open --repo-type dataset",
        "python -m pydocs textwrap > prompt.txt",
        ".venv/bin/precommit install",
        "pytest tests/no-such-folder",
        "trian it",
    ],
)
def test_a_wrong_line_is_found(line, box):
    """The rules that make a command small hide no mistake in it."""
    with pytest.raises(AssertionError):
        run_line(line, box)


@pytest.mark.parametrize(
    "line",
    ["memx trian", "memx train fcats", "memx train --dryrun", "memx evict --policies h2o", "memx evict --every 64",
     "memx config shwo facts", "memx bench --op step", "memx bench opps", "memx plot dropped", "memx plot lsos",
     "memx plot --what loss", "memx bench ops --seconds few"],
)  # fmt: skip
def test_a_wrong_line_in_a_sentence_is_found(line, monkeypatch):
    with pytest.raises(AssertionError):
        check_parsed(line, monkeypatch)


def test_a_block_of_shell_is_taken_apart():
    text = "cd folder && memx train tiny  # as it is\n\nX=1 memx plot \\\n    --published\n"
    text += "$ memx runs; make demo\n# no line\n"
    assert list(of_block(text, 7, all_lines=True)) == [
        (7, "memx train tiny"), (9, "X=1 memx plot --published"), (11, "memx runs"), (11, "make demo")
    ]  # fmt: skip
    assert list(of_block("loss 3.2\nmemx runs\n", 1)) == [(2, "memx runs")]
    assert list(of_block("memx runs\ntrian it\n", 1, all_lines=True)) == [(1, "memx runs"), (2, "trian it")]
