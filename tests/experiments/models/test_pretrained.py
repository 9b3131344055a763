"""A pretrained start: memory put into a host, the chosen part trained and all else kept to the bit."""

from pathlib import Path

import pytest
import torch
from memx import MemoryLayer, MemoryLlamaConfig, MemoryLlamaForCausalLM
from memx.errors import MemxError
from memx.experiments.base_models.load import load_host
from memx.experiments.checkpoints.checkpoint import WholeFiles
from memx.experiments.config.loading import load_config
from memx.experiments.config.points import plan
from memx.experiments.data.facts.questions import build_split
from memx.experiments.models.pretrained import choose_trainable, insert_memory, load_pretrained
from memx.experiments.planning.estimate import cost_of
from memx.experiments.runtime.options import Options
from memx.experiments.runtime.signals import Interrupted, StopRequest
from memx.experiments.training.data import build_tokenizer
from memx.experiments.training.run import train
from memx.experiments.training.sweep import train_points
from memx.memory_layers.config import MemoryConfig
from memx.memory_layers.layer import ResidualMemory
from memx.memory_layers.llama import memory_layers_of, tables_of
from memx.memory_layers.moe import MoeLayer
from memx.memory_layers.peer import PeerLayer
from memx.results.store.runs import Run, RunStore
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP

CPU = torch.device("cpu")
SIZES = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1,
    max_position_embeddings=128, pad_token_id=0, bos_token_id=None, eos_token_id=1,
)  # fmt: skip
MEMORY = dict(slots=1024, heads=2, top_k=4)
TINY = {
    "data.biographies": 12,
    "training.steps": 3,
    "training.batch": 16,
    "training.warmup": 0,
    "training.threads": 1,
    "evaluation.every": None,
    "evaluation.final_questions": 4,
    "evaluation.max_answer": 1,
    "text.block": 32,
    "text.blocks": 2,
    "memory.insertion": "beside",
    "memory.layers": None,
}


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """The folder of a tiny Llama with tied embeddings, and a file of ordinary text beside it."""
    folder = tmp_path_factory.mktemp("host")
    config = load_config("tiny")
    tokenizer = build_tokenizer(config, build_split(config)[0])
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **SIZES)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    paragraph = "The river runs past the old mill and on to the town, where number {} is the house with the red door. "
    (folder / "text.txt").write_text("\n\n".join(paragraph.format(number) * 80 for number in range(12)))
    return folder


def settings_of(host: Path, **changes):
    start = {"finetune.source": str(host), "text.source": str(host / "text.txt")}
    return load_config("tiny", {**TINY, **start, **changes}.items())


def finetune(host: Path, runs: Path, **changes):
    """Train; returns the run's folder and its rows."""
    config = settings_of(host, **changes)
    rows = train_points(plan(config), Options(runs), lambda index, event: None)
    (point,) = plan(config)
    return runs / point.name, rows[point.name]


@pytest.fixture(scope="module")
def memory_trained(host, tmp_path_factory):
    """A run that has trained the memory alone: its folder and its rows."""
    return finetune(host, tmp_path_factory.mktemp("memory"), **{"finetune.train": "memory"})


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoint" / "model.safetensors")


def start_of(host: Path, **changes) -> dict[str, torch.Tensor]:
    """The weights that a run starts from."""
    model = load_pretrained(settings_of(host, **changes), CPU).model
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def changed(before, after) -> set[str]:
    return {name for name in after if not torch.equal(before[name], after[name])}


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(torch.arange(20).view(2, 10) + 5).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory", [{"kind": "memory"}, {"kind": "memory+"}, {"value_width": 12, "output_gate": True}])
def test_a_memory_beside_changes_no_bit_of_any_logit(host, memory, dtype):
    original, _ = load_host(str(host), dtype=dtype)
    expected = logits(original)
    model = insert_memory(original, MemoryConfig(**MEMORY, **memory, insertion="beside"), seed=0)
    placed = [type(block.mlp) is ResidualMemory for block in model.model.layers]
    assert any(placed) and isinstance(memory_layers_of(model)[0], MemoryLayer)
    assert torch.equal(logits(model), expected)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


@pytest.mark.parametrize(
    ("memory", "made"),
    [({"kind": "memory"}, MemoryLayer), ({"kind": "peer"}, PeerLayer), ({"kind": "moe", "layers": [1]}, MoeLayer)],
)
def test_a_memory_in_place_of_a_feed_forward_keeps_all_other_weights(host, memory, made):
    original, _ = load_host(str(host))
    theirs = {name: weight.clone() for name, weight in original.state_dict().items()}
    model = insert_memory(original, MemoryConfig(**MEMORY, **memory), seed=0)
    assert [type(block.mlp) for block in model.model.layers] == [LlamaMLP, made, LlamaMLP]
    ours = model.state_dict()
    kept = [name for name in theirs if ".layers.1.mlp." not in name]
    assert kept and all(torch.equal(ours[name], theirs[name]) for name in kept)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_what_is_inserted_is_drawn_by_the_seed(host):
    drawn = [insert_memory(load_host(str(host))[0], MemoryConfig(**MEMORY), seed) for seed in (0, 1, 0)]
    tables = [tables_of(model)[0].weight for model in drawn]
    assert torch.equal(tables[0], tables[2]) and not torch.equal(tables[0], tables[1])
    assert tables[0].std().item() == pytest.approx(32**-0.5, rel=0.05)


@pytest.mark.parametrize("insertion", ["beside", "replace"])
def test_a_model_with_its_memory_is_saved_and_loaded_with_every_logit(host, tmp_path, insertion):
    memory = MemoryConfig(**MEMORY, kind="memory+", insertion=insertion, layers=(0, 2))
    model = insert_memory(load_host(str(host))[0], memory, seed=0)
    with torch.no_grad():
        for layer in memory_layers_of(model):
            layer.output.weight.normal_()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    first, second = memory_layers_of(loaded)
    assert first.values is second.values


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        ({"layers": [3]}, "memory layer 3 is outside the model's 3 blocks"),
        ({"count": 4}, "4 memory layers with a stride of 4 do not fit in 3 blocks"),
    ],
)
def test_a_memory_that_does_not_fit_the_host(host, memory, message):
    with pytest.raises(MemxError, match=message):
        insert_memory(load_host(str(host))[0], MemoryConfig(**MEMORY, **memory), seed=0)


def test_training_the_memory_leaves_every_bit_of_the_base(host, tmp_path):
    settings = {"finetune.train": "memory", "memory.kind": "memory+", "memory.layers": [0, 2]}
    folder, rows = finetune(host, tmp_path, **settings)
    before, after = start_of(host, **settings), weights_of(folder)
    base = {name for name in before if ".mlp.memory." not in name}
    moved = changed(before, after)
    assert base and not moved & base
    assert moved == set(before) - base
    assert {(row.kind, row.trained) for row in rows} == {("memory+", "memory")}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_slots_changes_a_few_rows_of_values_alone(host, tmp_path, memory_trained, optimizer):
    first, _ = memory_trained
    chosen = {"finetune.train": "slots", "finetune.rows": 7, "finetune.slots_optimizer": optimizer}
    chosen |= {"finetune.reference": 3, "finetune.source": str(first / "checkpoint"), "training.value_lr": 1.0}
    folder, rows = finetune(host, tmp_path / "second", **chosen)
    before, after = weights_of(first), weights_of(folder)
    (table,) = changed(before, after)
    assert table.endswith(".memory.table.weight")
    moved = (before[table] != after[table]).any(1).sum()
    assert 0 < moved <= 7 * TINY["training.steps"]
    assert {(row.value_step, row.trained) for row in rows} == {("sparse", "slots")}


def test_training_slots_needs_text_and_a_memory_that_speaks(host, tmp_path):
    with pytest.raises(MemxError, match="needs a trained memory, and ") as error:
        finetune(host, tmp_path, **{"finetune.train": "slots"})
    assert "--init-from RUN" in error.value.hint
    with pytest.raises(MemxError, match="train slots needs text") as error:
        finetune(host, tmp_path, **{"finetune.train": "slots", "text.source": None, "memory.insertion": "replace"})
    assert "text.source" in error.value.hint
    for part in ("slots", "memory"):
        plain = {"finetune.train": part, "memory.kind": "dense", "memory.insertion": "replace"}
        with pytest.raises(MemxError, match=f"finetune.train {part}: the model has no memory layers"):
            finetune(host, tmp_path, **plain)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own use of transformers
@pytest.mark.parametrize("kind", ["dense", "memory"])
def test_lora_ends_merged_into_a_plain_model(host, tmp_path, kind):
    pytest.importorskip("peft")
    settings = {"finetune.train": "lora", "finetune.rank": 2, "memory.kind": kind, "training.lr": 0.01}
    settings["finetune.spread"] = False  # which is of no weight that LoRA trains
    folder, rows = finetune(host, tmp_path, **settings)
    before, after = start_of(host, **settings), weights_of(folder)
    assert before.keys() == after.keys()
    moved = changed(before, after)
    assert len([name for name in moved if name.endswith("_proj.weight")]) == len(moved) > 0
    model = AutoModelForCausalLM.from_pretrained(folder / "checkpoint")
    assert type(model) is MemoryLlamaForCausalLM
    assert {(row.value_step, row.trained) for row in rows} == {("", "lora")}
    assert {row.parameters_total for row in rows} == {sum(p.numel() for p in model.parameters())}


def test_lora_targets_that_are_not_there(host, tmp_path):
    pytest.importorskip("peft")
    with pytest.raises(MemxError, match="the model has no layers named qproj") as error:
        finetune(host, tmp_path, **{"finetune.train": "lora", "finetune.targets": ["qproj"]})
    assert "q_proj" in error.value.hint


def test_training_all_moves_base_and_memory_and_reports_before_and_after(host, tmp_path, memory_trained):
    folder, rows = finetune(host, tmp_path, **{"memory.layers": [1], "text.mix": 2})
    before = start_of(host, **{"memory.layers": [1]})
    moved = changed(before, weights_of(folder))
    assert {"model.embed_tokens.weight", "model.layers.1.mlp.memory.table.weight"} <= moved
    found = {(row.dataset, row.metric): row for row in rows}
    text = f"text/{host / 'text.txt'}"
    expected = {("seen", "exact_match_before"), ("unseen", "exact_match_before"), (text, "nll"), (text, "nll_before")}
    assert expected <= set(found)
    assert found[text, "nll"].value != found[text, "nll_before"].value
    assert found[text, "nll"].n == found[text, "nll_before"].n
    config, (alone, mixed) = settings_of(host), (Run(one).info()["tokens"] for one in (memory_trained[0], folder))
    assert mixed == alone + 2 * config.text.block * config.training.steps  # the mixed-in text is counted


@pytest.mark.parametrize(
    ("train", "optimizer", "value_step", "moments"),
    [
        ("memory", "sgd", "dense", "of all that is trained"),
        ("slots", "sgd", "sparse", "none"),
        ("lora", "sgd", "", "none"),
    ],
)
def test_a_dry_run_knows_what_is_trained(host, tmp_path, train, optimizer, value_step, moments):
    changes = {"finetune.train": train, "finetune.slots_optimizer": optimizer, "training.value_optimizer": "dense"}
    changes["memory.insertion"] = "replace"
    (point,) = plan(settings_of(host, **changes))
    cost = cost_of(point, tmp_path)
    expected = 0
    if moments != "none":
        model = load_pretrained(point.config, CPU).model
        expected = 8 * sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert (cost.value_step, cost.optimizer_bytes) == (value_step, expected)
    assert cost.value_optimizer == {"memory": "dense AdamW", "slots": "sparse SGD", "lora": ""}[train]


def test_before_is_what_the_host_answers(host, memory_trained):
    from memx.experiments.training.held_out_text import HeldOutText

    folder, rows = memory_trained
    (before,) = [row for row in rows if row.metric == "nll_before"]
    model, tokenizer = load_host(str(host))
    config = settings_of(host)
    assert before.value == HeldOutText(config.text, tokenizer, config.data.seed).measure(model).value
    assert (folder / "checkpoint" / "tokenizer.json").is_file()


def test_a_checkpoint_with_a_memory_keeps_it(host, tmp_path):
    first, _ = finetune(host, tmp_path / "first", **{"memory.kind": "memory+", "memory.layers": [0, 1]})
    settings = {"finetune.source": str(first / "checkpoint"), "memory.slots": 4096, "training.steps": 1}
    model = load_pretrained(settings_of(host, **settings), CPU).model
    assert all(torch.equal(model.get_parameter(name), weight) for name, weight in weights_of(first).items())
    _, rows = finetune(host, tmp_path / "second", **settings)
    assert {(row.kind, row.memory_slots, row.model) for row in rows} == {("memory+", 1024, first.name)}
    (point,) = plan(settings_of(host, **settings))
    assert cost_of(point, tmp_path).memory_slots == 1024


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own use of transformers
@pytest.mark.parametrize(
    "changes",
    [
        {"finetune.train": "all", "training.value_optimizer": "sparse", "text.mix": 1},
        {"finetune.train": "memory", "training.value_dtype": "bfloat16"},
        {"finetune.train": "slots", "finetune.rows": 9, "memory.insertion": "replace"},
        {"finetune.train": "lora", "finetune.rank": 2},
    ],
    ids=str,
)
def test_a_stopped_and_resumed_run_ends_bit_identical(host, tmp_path, changes):
    if changes["finetune.train"] == "lora":
        pytest.importorskip("peft")
    settings = {"training.steps": 4, **changes}
    straight, rows = finetune(host, tmp_path / "straight", **settings)
    (point,) = plan(settings_of(host, **settings))
    stop = StopRequest()

    def stop_at_two(event):
        stop.asked = getattr(event, "step", None) == 2

    with RunStore(tmp_path).claim(point.name) as run, pytest.raises(Interrupted):
        train(point.config, run, stop_at_two, stop, 1)
    with RunStore(tmp_path).claim(point.name, resume=True) as run:
        again = train(point.config, run, lambda event: None, StopRequest(), 1)
    assert not changed(weights_of(straight), weights_of(tmp_path / point.name))
    assert [(row.dataset, row.metric, row.value) for row in again] == [
        (row.dataset, row.metric, row.value) for row in rows
    ]


def test_a_bfloat16_table_is_asked_for_and_given(host):
    model = load_pretrained(settings_of(host, **{"training.value_dtype": "bfloat16"}), CPU).model
    assert {table.weight.dtype for table in tables_of(model)} == {torch.bfloat16}
    assert model.model.embed_tokens.weight.dtype == torch.float32


def test_a_bfloat16_host_in_several_files(host, tmp_path):
    model, tokenizer = load_host(str(host), dtype=torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors.index.json").is_file()
    loaded = load_pretrained(settings_of(host, **{"finetune.source": str(tmp_path)}), CPU).model
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(logits(loaded), logits(load_host(str(tmp_path))[0]), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("part", "trainable"),
    [("all", ("query", "keys", "table", "norm", "embed", "q_proj")), ("memory", ("query", "keys", "table")),
     ("slots", ("table",)), ("lora", ())],
)  # fmt: skip
def test_what_is_trainable(part, trainable):
    sizes = {**SIZES, "tie_word_embeddings": True}
    model = MemoryLlamaForCausalLM(
        MemoryLlamaConfig(vocab_size=40, memory_layers=[0, 1], memory_slots=64, memory_top_k=4, **sizes)
    )
    choose_trainable(model, part)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == any(word in name for word in (trainable if part != "all" else ("",))), name


@pytest.mark.slow
def test_a_new_memory_is_fitted_to_a_corpus_without_held_out_documents(host, tmp_path):
    changes = {"corpus.sources": [str(host / "text.txt")], "corpus.held_out": 0, "text.source": None}
    changes |= {"corpus.lanes": 2, "corpus.shuffle": 2, "training.steps": 2, "finetune.spread": True}
    folder, _ = finetune(host, tmp_path, **changes)
    assert (folder / "checkpoint").is_dir()
    # the stream starts where it would have started
    assert [line["tokens"] for line in Run(folder).metrics() if "tokens" in line][-1] > 0


@pytest.mark.slow
def test_a_run_that_stopped_before_its_first_state_repeats_no_line(host, tmp_path, monkeypatch):
    changes = {"training.steps": 2, "training.checkpoint_every": 1}
    (point,) = plan(settings_of(host, **changes))
    with monkeypatch.context() as patch:
        patch.setattr(WholeFiles, "save", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train_points([point], Options(tmp_path), lambda index, event: None)
    train_points([point], Options(tmp_path, resume=True), lambda index, event: None)
    steps = [line["step"] for line in Run(tmp_path / point.name).metrics()]
    assert steps == sorted(set(steps)) and steps[0] == 0


def test_a_model_with_a_memory_gets_no_second_one(host):
    """Its first memory would be lost, or met by weights of another shape."""
    base = load_host(str(host))[0]
    model = insert_memory(base, MemoryConfig(kind="engram", slots=64, layers=(1,), insertion="beside"), seed=0)
    with pytest.raises(MemxError, match="the model has a memory already"):
        insert_memory(model, MemoryConfig(**MEMORY), seed=0)
