"""A pretrained start fixes its shape, its tokenizer and its memory: what would change them is refused or left out."""

import pytest
from memx import MemoryLlamaConfig
from memx.cli.main import run as memx
from memx.errors import MemxError
from memx.experiments.config.loading import load_config
from memx.experiments.config.points import plan
from memx.experiments.models.start import without_fixed
from transformers import LlamaConfig

SHAPE = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=128
)


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """Two checkpoints without weights: one with a memory of 64 slots, one without a memory."""
    folder = tmp_path_factory.mktemp("starts")
    memory = dict(memory_layers=[1], memory_slots=64, memory_heads=2, memory_top_k=4, memory_key_width=16)
    MemoryLlamaConfig(**SHAPE, **memory).save_pretrained(folder / "memory")
    LlamaConfig(**SHAPE).save_pretrained(folder / "plain")
    return {name: str(folder / name) for name in ("memory", "plain")}


def settled(preset, source, *given):
    """The config of `memx train PRESET --init-from SOURCE` with settings, and its notes."""
    given = [("finetune.source", source), *given]
    return without_fixed(load_config(preset, given), dict(given))


def test_a_sweep_over_a_memory_that_is_there_is_one_run_of_its_own_name(starts):
    config, notes = settled("facts", starts["memory"])
    (point,) = plan(config)
    assert point.name.startswith("facts-") and "slots" not in point.name
    assert notes == [f"the sweep over memory.slots is left out: {starts['memory']} has a memory of 64 slots"]


def test_a_sweep_over_a_new_memory_is_kept(starts):
    config, notes = settled("facts", starts["plain"])
    assert len(plan(config)) == 4 and not notes


@pytest.mark.parametrize(
    ("start", "given", "message"),
    [
        ("memory", ("memory.slots", 4096), "memory.slots cannot be 4096: .* has a memory of 64 slots"),
        ("memory", ("memory.slots", 0), "memory.slots cannot be 0: .* has a memory of 64 slots"),
        ("memory", ("memory", {"slots": 4096}), "memory.slots cannot be 4096"),
        ("memory", ("memory.top_k", 8), "memory.top_k cannot be 8"),
        ("memory", ("sweep.memory.slots", [64, 256]), r"memory.slots cannot be \[64, 256\]"),
        ("memory", ("sweep", {"memory.slots": [64, 256]}), r"memory.slots cannot be \[64, 256\]"),
        ("memory", ("variants", {"a": {"memory.heads": 1}}), r"variant 'a' sets memory\.heads"),
        ("plain", ("model.width", 64), "model.width cannot be 64: .* has its own shape"),
        ("plain", ("corpus.tokenizer", "x"), r"corpus\.tokenizer cannot be 'x': .* has its own tokenizer"),
        ("plain", ("data.vocabulary", 512), "data.vocabulary cannot be 512: .* has its own tokenizer"),
    ],
)
def test_what_the_start_fixes_cannot_be_asked_for(starts, start, given, message):
    with pytest.raises(MemxError, match=message):
        settled("facts", starts[start], given)


def test_several_starts_and_what_they_fix_cannot_both_differ(starts):
    both = list(starts.values())
    changes = [("sweep", {"finetune.source": both, "memory.slots": [64, 256]})]
    with pytest.raises(MemxError, match=r"memory\.slots and finetune\.source cannot both differ"):
        without_fixed(load_config("facts", changes), dict(changes))
    config, notes = without_fixed(load_config("facts", [("sweep", {"finetune.source": both})]), {})
    assert len(plan(config)) == 2 and not notes


def test_what_the_start_has_may_be_asked_for(starts):
    config, _ = settled("facts", starts["memory"], ("memory.slots", 64))
    assert len(plan(config)) == 1


def test_a_memory_of_the_config_that_does_not_count_is_noted(starts):
    _, notes = settled("tiny", starts["memory"])
    assert notes == [f"memory.* of the config does not count: {starts['memory']} has a memory of 64 slots"]


def test_the_command_line_says_so(capsys, starts):
    given = ["train", "facts", "--init-from", starts["memory"], "--set", "data.facts=[elements]", "--dry-run"]
    assert memx(given) == 0
    captured = capsys.readouterr()
    assert "note: the sweep over memory.slots is left out" in captured.err and captured.out.count("would write") == 1
