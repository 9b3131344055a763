"""The sparse step of value tables in a run: its rows, its norm, exact resume, and which step was taken."""

import pytest
import torch
from memx import MemoryLlamaConfig, MemoryLlamaForCausalLM
from memx.errors import MemxError
from memx.experiments.config.loading import load_config
from memx.experiments.config.points import plan
from memx.experiments.config.training import TrainingConfig
from memx.experiments.optim.optimizer import Optimizer
from memx.experiments.planning.estimate import cost_of
from memx.experiments.runtime.options import Options
from memx.experiments.runtime.signals import Interrupted, StopRequest
from memx.experiments.training.fact_qa import answer_nll
from memx.experiments.training.run import train
from memx.experiments.training.sweep import train_points
from memx.memory_layers.llama import memory_layers_of, tables_of
from memx.results.store.runs import RunStore
from safetensors.torch import load_file

TINY = {
    "training.steps": 12,
    "training.threads": 1,
    "training.checkpoint_every": 4,
    "evaluation.every": None,
    "evaluation.final_questions": 5,
}
TOKENS = torch.arange(24).view(4, 6)


def make_model(**changes) -> MemoryLlamaForCausalLM:
    settings = dict(
        memory_layers=[0, 1, 2], memory_slots=1024, memory_heads=2, memory_top_k=4, vocab_size=40, hidden_size=16,
        intermediate_size=24, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return MemoryLlamaForCausalLM(MemoryLlamaConfig(**{**settings, **changes}))


def backward(model, tokens=TOKENS, parts=1) -> None:
    for part in tokens.tensor_split(parts):
        (model(part).logits.float().square().mean() * len(part) / len(tokens)).backward()


def rows_read(model, tokens=TOKENS) -> torch.Tensor:
    seen = []
    for layer in memory_layers_of(model):
        layer.observe = seen.append
    model(tokens)
    for layer in memory_layers_of(model):
        layer.observe = None
    return torch.unique(torch.cat([slots.flatten() for slots in seen]))


def sparse(**changes) -> TrainingConfig:
    return TrainingConfig(value_optimizer="sparse", warmup=0, **changes)


def train_tiny(runs, report=lambda index, event: None, **changes):
    config = load_config("tiny", {**TINY, **changes}.items())
    rows = train_points(plan(config), Options(runs), report)
    (point,) = plan(config)
    return runs / point.name, rows[point.name]


@pytest.mark.parametrize("kind", ["memory", "peer"])
def test_rows_that_were_not_read_keep_every_bit(kind):
    model = make_model(memory_kind=kind)
    optimizer = Optimizer(model, sparse())
    for step in range(3):
        before = [table.weight.detach().clone() for table in tables_of(model)]
        read = rows_read(model)
        backward(model)
        optimizer.step(step)
        for table, old in zip(tables_of(model), before, strict=True):
            moved = (table.weight != old).any(1)
            assert moved.any() and not moved[~torch.isin(torch.arange(1024), read)].any()
            assert table.weight.grad is None
        if kind == "memory":
            assert moved[read].float().mean() > 0.9


@pytest.mark.parametrize("kind", ["memory", "peer"])
def test_shared_tables_and_accumulated_parts_sum_to_the_dense_gradient(kind):
    dense, model = (make_model(memory_kind=kind).double() for _ in range(2))
    optimizer = Optimizer(model, sparse())
    assert len(optimizer.sparse) == len(tables_of(model)) == (1 if kind == "memory" else 6)
    backward(dense)
    backward(model, parts=3)
    found = optimizer.tables.gradients()
    for name, gradient in found.items():
        expected = dense.get_submodule(name).weight.grad
        torch.testing.assert_close(gradient.dense(1024), expected, rtol=1e-5, atol=1e-8)
    assert optimizer.tables.gradients() == {}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_norms_and_clipping_are_those_of_the_dense_step(accumulate):
    norms, tables = [], []
    for how in ("dense", "sparse"):
        model = make_model(memory_kind="peer")
        optimizer = Optimizer(model, TrainingConfig(value_optimizer=how, warmup=0, clip=1e-4, betas=(0.0, 0.95)))
        backward(model, parts=accumulate)
        norms.append(optimizer.step(0))
        tables.append([table.weight.detach() for table in tables_of(model)])
    assert norms[0] == pytest.approx(norms[1], rel=1e-5) and norms[0]["value_gradient_norm"] > 1e-4
    for dense, rows in zip(*tables, strict=True):
        torch.testing.assert_close(rows, dense, rtol=0, atol=2e-4)


def test_equals_dense_adam_where_every_row_is_read_each_step():
    models = [make_model(memory_slots=16, memory_top_k=4).double() for _ in range(2)]
    tokens = torch.randint(0, 40, (40, 30), generator=torch.Generator().manual_seed(0))
    assert len(rows_read(models[0], tokens)) == 16
    optimizers = [
        Optimizer(model, TrainingConfig(value_optimizer=how, warmup=0, lr=1e-4))
        for model, how in zip(models, ("dense", "sparse"), strict=True)
    ]
    for step in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            backward(model, tokens)
            optimizer.step(step)
    dense, rows = (tables_of(model)[0].weight for model in models)
    torch.testing.assert_close(rows, dense, rtol=1e-3, atol=1e-4)


EXTREMES = [
    {"training.value_second_moment": "row", "training.value_dtype": "bfloat16"},
    {"training.value_dtype": "bfloat16", "training.value_rounding": "masters", "training.value_moments": "bfloat16"},
    {"memory.kind": "peer", "memory.layers": None, "training.value_dtype": "bfloat16", "training.accumulate": 2},
    {"memory.kind": "moe", "memory.layers": None, "memory.experts_per_token": 2},
    {"memory.kind": "memory+", "memory.layers": [0, 1], "memory.insertion": "beside", "memory.output_gate": True},
]


@pytest.mark.parametrize("changes", EXTREMES, ids=str)
def test_a_stopped_and_resumed_run_ends_bit_identical(tmp_path, changes):
    settings = {"training.value_optimizer": "sparse", "training.steps": 6, **changes}
    straight, rows = train_tiny(tmp_path / "straight", **settings)
    config = load_config("tiny", {**TINY, **settings}.items())
    (point,) = plan(config)
    stop = StopRequest()

    def stop_at_three(event):
        stop.asked = getattr(event, "step", None) == 3

    with RunStore(tmp_path).claim(point.name) as run, pytest.raises(Interrupted):
        train(point.config, run, stop_at_three, stop, 1)
    with RunStore(tmp_path).claim(point.name, resume=True) as run:
        again = train(point.config, run, lambda event: None, StopRequest(), 1)
    assert [row.value for row in again] == [row.value for row in rows]
    one, other = (load_file(path / "checkpoint" / "model.safetensors") for path in (straight, tmp_path / point.name))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({"memory.slots": 64}, "dense"),
        ({"memory.slots": 1048576, "memory.top_k": 1, "training.batch": 8}, "sparse"),
        ({"memory.slots": 64, "training.value_optimizer": "sparse"}, "sparse"),
        ({"memory.slots": 64, "training.value_dtype": "bfloat16"}, "sparse"),
        ({"memory.slots": 0}, ""),
    ],
)
def test_the_run_says_which_step_its_tables_took(tmp_path, changes, how):
    notes = []
    _, rows = train_tiny(
        tmp_path, lambda index, event: notes.append(getattr(event, "text", "")), **{**changes, "training.steps": 1}
    )
    said = [note.partition(" value optimizer: a step reads ")[0] for note in notes if "value optimizer" in note]
    assert said == [how] * bool(how)
    assert {row.value_step for row in rows} == {how}


@pytest.mark.parametrize("kind", ["memory", "peer"])
def test_tables_are_stepped_sparsely_from_as_many_rows_on_as_a_step_reads(kind):
    model = make_model(memory_kind=kind, memory_shared=False)
    rows = sum(len(table.weight) for table in tables_of(model))
    assert len(Optimizer(model, TrainingConfig(), lookups=rows).sparse) == len(tables_of(model))
    assert Optimizer(model, TrainingConfig(), lookups=rows + 1).sparse == []
    backward(model)
    assert all(table.weight.grad is not None for table in tables_of(model))


def test_betas_that_the_sparse_step_cannot_take():
    with pytest.raises(MemxError, match="needs beta1 below sqrt") as error:
        Optimizer(make_model(), sparse(betas=(0.98, 0.95)))
    assert "value_optimizer=dense" in error.value.hint
    Optimizer(make_model(), TrainingConfig(value_optimizer="dense", betas=(0.98, 0.95)))


@pytest.mark.parametrize("sgd", [True, False])
def test_rows_that_are_not_kept_are_not_touched(sgd):
    model = make_model()
    read = rows_read(model)
    optimizer = Optimizer(model, sparse(), sgd=sgd, trainable_rows=lambda name, parts: read[:5])
    for step in range(2):
        before = tables_of(model)[0].weight.detach().clone()
        backward(model)
        optimizer.step(step)
        moved = (tables_of(model)[0].weight != before).any(1).nonzero().squeeze(1)
        assert len(moved) and set(moved.tolist()) <= set(read[:5].tolist())


def test_a_dry_run_names_the_step(tmp_path):
    for slots, how in ((64, "dense"), (1048576, "sparse"), (0, "")):
        (point,) = plan(load_config("tiny", [("memory.slots", slots)]))
        cost = cost_of(point, tmp_path)
        assert cost.value_step == how and cost.value_optimizer == (how and f"{how} AdamW")


def test_a_bfloat16_checkpoint_answers_as_the_run_did(tmp_path):
    folder, rows = train_tiny(tmp_path, **{"training.value_dtype": "bfloat16", "evaluation.final_questions": None})
    from memx.experiments.base_models.load import load_host
    from memx.experiments.data.facts.questions import build_split, question_sets

    model, tokenizer = load_host(str(folder / "checkpoint"))
    asked = question_sets(build_split(load_config("tiny"))[0])["seen"]
    found = answer_nll(model, tokenizer, asked)
    (expected,) = [row.value for row in rows if (row.dataset, row.metric) == ("seen", "nll")]
    assert sum(nll for nll, _ in found) / sum(tokens for _, tokens in found) == pytest.approx(expected, rel=1e-4)
    table = load_file(folder / "checkpoint" / "model.safetensors")["model.layers.0.mlp.table.weight"]
    assert table.dtype == torch.bfloat16
    assert torch.equal(tables_of(model)[0].weight, table.float())


def test_sparse_tables_never_get_a_gradient_of_their_own(tmp_path, monkeypatch):
    seen = []
    step = Optimizer.step

    def spied(self, number):
        seen.extend(table.weight.grad for table in self.tables.tables.values())
        return step(self, number)

    monkeypatch.setattr(Optimizer, "step", spied)
    train_tiny(tmp_path, **{"training.value_optimizer": "sparse", "training.steps": 3})
    assert seen == [None] * 3


def test_a_copy_made_in_training_stands_alone():
    import copy

    model = make_model()
    optimizer = Optimizer(model, sparse())
    backward(model)
    twin = copy.deepcopy(model)
    assert all(table.gradient_buffer is None for table in tables_of(twin))
    backward(twin)
    assert all(table.weight.grad is not None for table in tables_of(twin))
    before = [table.weight.detach().clone() for table in tables_of(model)]
    optimizer.step(0)
    assert all(not torch.equal(old, table.weight) for old, table in zip(before, tables_of(model), strict=True))


def test_released_tables_have_dense_gradients_again():
    model = make_model()
    optimizer = Optimizer(model, sparse())
    optimizer.tables.release()
    backward(model)
    assert all(table.weight.grad is not None for table in tables_of(model))


@pytest.mark.parametrize("weight", ["table.weight", "query.weight"])
def test_a_gradient_that_is_not_finite_stops_the_run_before_it_is_applied(weight):
    model = make_model()
    optimizer = Optimizer(model, sparse())
    (first, *_) = [parameter for name, parameter in model.named_parameters() if name.endswith(weight)]
    with torch.no_grad():
        first[0] = torch.inf
        first[1:] *= torch.inf
    backward(model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with pytest.raises(FloatingPointError, match="gradient_norm is"):
        optimizer.step(0)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.nan_to_num(), before[name].nan_to_num())


def test_generating_leaves_nothing_in_a_sink():
    model = make_model().eval()
    Optimizer(model, sparse())
    model.generate(TOKENS, max_new_tokens=3, do_sample=False, attention_mask=torch.ones_like(TOKENS))
    assert all(table.gradient_buffer == [] for table in tables_of(model))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # the call has another name in newer transformers
@pytest.mark.parametrize("kind", ["memory", "peer"])
def test_gradient_checkpointing_hands_over_each_use_once(kind):
    """The forward pass runs twice, the backward pass once."""
    gradients = []
    for checkpointing in (False, True):
        model = make_model(memory_kind=kind)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        optimizer = Optimizer(model.train(), TrainingConfig(value_optimizer="sparse"))
        backward(model)
        found = optimizer.tables.gradients()
        gradients.append({name: gradient.dense(1024) for name, gradient in found.items()})
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-7)
