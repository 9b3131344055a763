"""Which whole models `memx bench model` times: those of a training config, each once and with its own cost."""

import json

import pytest
from memx.cli.main import run as memx
from memx.errors import MemxError
from memx.experiments.benchmarks.models.timed_models import ModelShape, configured_models
from memx.experiments.benchmarks.models.training_step import bench_model
from memx.memory_layers.sizes import model_sizes
from memx.results.bench.compare import comparison
from memx.results.store.rows import Row

CONFIG = """
name: pair
model: {layers: 2, width: 16, heads: 2, context: 16}
memory: {kind: dense}
data: {facts: [elements], sequence: 16, vocabulary: 300}
match: {by: flops}
variants:
  plain: {memory.kind: dense}
  n-grams: {memory.kind: engram, memory.slots: 64, memory.layers: [1], memory.heads: 2, memory.value_width: 4}
sweep: {seed: [0, 1], data.seed: [0, 1], model.width: [16, 24]}
"""
SHAPE = ModelShape(batch=2, sequence=16)


@pytest.fixture
def source(tmp_path) -> str:
    path = tmp_path / "pair.yaml"
    path.write_text(CONFIG)
    return str(path)


def test_each_model_is_timed_once_whatever_its_seed(source):
    configs, shape = configured_models(source, SHAPE)
    found = {(config.variant, config.model.width) for config in configs}
    assert (
        shape == SHAPE
        and len(configs) == 4
        and found == {(name, width) for name in ("plain", "n-grams") for width in (16, 24)}
    )


def test_rows_have_the_names_sizes_and_vocabulary_of_the_config(source):
    rows = bench_model(source=source, shape=SHAPE, device_name="cpu", threads=1, steps=1)
    configs = {(config.variant, config.model.title): config for config in configured_models(source, SHAPE)[0]}
    assert {(row.variant, row.model) for row in rows} == set(configs)
    for row in rows:
        config = configs[row.variant, row.model]
        assert row.parameters_total == model_sizes(config.model, config.memory, 300).parameters_total
        assert row.dataset == "model batch=2 sequence=16 vocabulary=300" and row.value > 0


def test_no_more_tokens_are_read_than_the_models_can(source):
    assert configured_models(source, ModelShape(sequence=8))[1].sequence == 8
    assert configured_models(source, ModelShape())[1].sequence == 16


def test_the_command_prints_a_line_for_each_model(source, capsys):
    sizes = ["--shapes", "batch=2,sequence=16", "--steps", "1", "--threads", "1", "--device", "cpu"]
    assert memx(["bench", "model", "--config", source, *sizes]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("plain of llama-2x" in line for line in lines) == 2
    assert sum("n-grams of llama-2x" in line for line in lines) == 2
    assert memx(["bench", "model", "--config", source, *sizes, "--json"]) == 0
    assert {row["variant"] for row in json.loads(capsys.readouterr().out)} == {"plain", "n-grams"}


def test_what_the_config_sets_or_cannot_do_is_refused(source, capsys):
    assert memx(["bench", "model", "--config", source, "--slots", "1024", "--device", "cpu"]) == 2
    assert "--slots has no effect with --config" in capsys.readouterr().err
    with pytest.raises(MemxError, match="--shapes width: the config sets it"):
        configured_models(source, ModelShape(width=48, batch=2, sequence=16))
    with pytest.raises(MemxError, match="pretrained model smollm2"):
        configured_models("retrofit", SHAPE)
    with pytest.raises(MemxError, match="no preset or file"):
        configured_models("no-such-preset", SHAPE)


def test_saved_rows_are_compared_model_by_model():
    def row(variant, base, value):
        about = dict(run="bench", experiment="bench-model", kind="dense", memory_slots=0, dataset="model batch=2", n=3)
        return Row(**about, model=base, variant=variant, metric="step_ms", value=value, low=value, high=value)

    rows = [row("plain", "llama-2x16", 10.0), row("plain", "llama-2x24", 20.0), row("wide", "llama-2x16", 50.0)]
    facts = comparison(rows, list(reversed(rows))).facts
    assert [fact["ratio"] for fact in facts] == [1, 1, 1]
    assert [fact["variant"] for fact in facts] == ["plain", "plain", "wide"]


def test_models_that_rows_could_not_tell_apart_are_refused(tmp_path):
    path = tmp_path / "alike.yaml"
    path.write_text(CONFIG.replace("data.seed: [0, 1]", "training.lr: [0.001, 0.002]"))
    with pytest.raises(MemxError, match="differ in more than kind, slots, base and variant"):
        configured_models(str(path), SHAPE)
