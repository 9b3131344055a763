"""What a dry run says of bytes, against models that are built: weights, gradients, moments, shares, activations."""

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.config.loading import load_config
from memx.experiments.config.points import plan
from memx.experiments.models.build import llama_config, prepare_tables
from memx.experiments.optim.optimizer import Optimizer
from memx.experiments.planning.activations import copied_weights, logits_bytes, saved_bytes
from memx.experiments.planning.estimate import cost_of
from memx.experiments.planning.gpu_memory import Table, Weight, dense_bytes, table_bytes, touched_rows
from memx.experiments.planning.gpus import GPUS
from memx.experiments.planning.mesh import Mesh, Plan
from memx.experiments.training.loss import text_loss
from memx.memory_layers.llama import MemoryLlamaForCausalLM, tables_of
from memx.memory_layers.tables import table_shards as shards
from memx.memory_layers.tables.table_shards import TableShard, sharded_bag

MESH = Mesh(1, GPUS["h100"], 1, "replicated", 1, False, 1, 1, 64)
TABLE = Table(rows=144, width=12, step="sparse", layers=1, kept=6, size=4, element_state=8, row_state=8)


def point_of(name="tiny", **changes):
    (point,) = plan(load_config(name, [(key.replace("__", "."), value) for key, value in changes.items()]))
    return point


def built(config):
    model = MemoryLlamaForCausalLM(llama_config(config, config.data.vocabulary))
    prepare_tables(model, config)
    return model


def bytes_of(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize(
    "changes",
    [
        {"memory__kind": "dense"},
        {"memory__kind": "moe", "memory__experts": 3},
        {"memory__kind": "memory+", "memory__layers": [0, 1], "training__value_optimizer": "dense"},
        {"memory__kind": "memory+", "memory__layers": [0, 1], "training__value_optimizer": "sparse"},
        {"memory__kind": "peer", "training__value_optimizer": "sparse"},
        {"memory__kind": "engram", "memory__layers": None, "training__value_optimizer": "sparse"},
        {"memory__also": [{"kind": "engram", "slots": 500}], "training__value_optimizer": "sparse"},
        {"training__value_second_moment": "row", "training__value_optimizer": "sparse", "memory__layers": [0, 1]},
        {"training__value_dtype": "bfloat16", "training__value_moments": "bfloat16", "memory__shared": False},
        {"training__value_dtype": "bfloat16", "training__value_rounding": "masters"},
    ],
    ids=lambda changes: ",".join(str(value) for value in changes.values()),
)
def test_bytes_are_those_of_a_built_model(changes):
    """Exactly, on one GPU: AdamW's step counts, four bytes a tensor, are left out."""
    point = point_of(**changes)
    config = point.config
    model = built(config)
    cost = cost_of(point, Path("runs"), Plan())
    held = cost.plan.bytes
    of_tables = {id(table.weight) for table in tables_of(model)}
    dense = [parameter for parameter in model.parameters() if id(parameter) not in of_tables]
    assert held["weights"] == bytes_of(dense)
    assert held.get("table", 0) == bytes_of(table.weight for table in tables_of(model))
    assert cost.weights_bytes == bytes_of(model.parameters()) == held["weights"] + held.get("table", 0)
    optimizer = Optimizer(model, config.training, lookups=0 if cost.value_step == "sparse" else 2**40)
    assert optimizer.value_step == cost.value_step
    text_loss(model, torch.arange(64).view(1, 64)).backward()
    assert held["gradients"] == bytes_of(parameter.grad for parameter in dense if parameter.grad is not None)
    optimizer.step(0)
    moments = {name: tensor for name, tensor in optimizer.state_tensors().items() if not name.endswith("/step")}
    assert cost.optimizer_bytes == bytes_of(moments.values())
    assert cost.plan.saved == cost.weights_bytes + cost.optimizer_bytes
    assert held["optimizer"] + held.get("table optimizer", 0) == cost.optimizer_bytes


@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 64])
def test_the_dense_share_is_that_of_the_first_rank(ranks):
    """FSDP2 cuts each weight as torch.chunk cuts its first dimension."""
    model = built(point_of().config)
    weights = [Weight(tuple(p.shape), True, "block") for p in model.parameters()]
    first = [p.chunk(ranks)[0] for p in model.parameters()]
    held = dense_bytes(weights, replace(MESH, gpus=ranks, shard=ranks))
    assert held["weights"] == held["gradients"] == held["optimizer"] / 2 == bytes_of(first)
    assert (held["gathered"] == 0) == (ranks == 1)


@pytest.mark.parametrize("by", ["width", "rows"])
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_the_share_of_a_table_is_what_a_rank_is_given(by, ranks):
    parts = [TableShard(by, None, rank, ranks, TABLE.rows, TABLE.width).shape() for rank in range(ranks)]
    largest = max(parts, key=lambda part: part[0] * part[1])
    mesh = replace(MESH, gpus=2 * ranks, table=by, table_ranks=ranks)
    assert TABLE.part(mesh) == largest
    rows, columns = largest
    held = table_bytes(TABLE, mesh)
    assert held["table"] == rows * columns * 4
    assert held["table optimizer"] == rows * columns * 8 + rows * 8


@pytest.mark.parametrize("by", ["width", "rows"])
def test_a_shared_out_read_sends_and_leaves_what_is_counted(by, monkeypatch):
    """One use, forward and backward, with collectives that count: every rank is taken to look up the same tokens."""
    from memx.experiments.planning.time import exchanged_bytes

    ranks, tokens = 4, 5
    mesh = replace(MESH, gpus=ranks, table=by, table_ranks=ranks, tokens=tokens)
    gathered, swapped = [], []

    def gather(x, group):
        gathered.append((ranks - 1) * bytes_of([x]))
        return torch.cat([x] * ranks)

    def swap(x, group):
        swapped.append(bytes_of([x]) * (ranks - 1) / ranks)
        return x

    def swap_uneven(x, sent, received, group):
        swapped.append(bytes_of([x]) * (ranks - 1) / ranks)
        return x

    monkeypatch.setattr(shards, "gather", gather)
    monkeypatch.setattr(shards, "swap", swap)
    monkeypatch.setattr(shards, "swap_uneven", swap_uneven)
    monkeypatch.setattr(shards, "sum_scatter", lambda x, group: swap(x, group).sum(0))
    shard = TableShard(by, None, 0, ranks, TABLE.rows, TABLE.width)
    each = TABLE.rows // ranks  # the rows of this rank are the ones read, as many for each rank to ask of this one
    slots = torch.randint(each, (tokens, TABLE.kept))
    if by == "rows":
        slots = slots + each * (torch.arange(tokens * TABLE.kept).view_as(slots) % ranks)
        monkeypatch.setattr(shards, "_ragged_sums", lambda values, rows, starts, w: w.new_ones(len(starts) - 1, 12))
        monkeypatch.setattr(shards, "_ragged_dots", lambda values, rows, dout, bags: dout.new_ones(len(rows)))
        swapped_counts = ranks * 8 * (ranks - 1) / ranks  # how many requests each rank sends: not counted
    else:
        swapped_counts = 0
    values = torch.randn(*shard.shape(), requires_grad=True)
    sink = []
    weights = torch.rand(tokens, TABLE.kept, requires_grad=True)
    sharded_bag(values, slots, weights, shard, sink).sum().backward()
    assert (sum(gathered), sum(swapped) - swapped_counts) == exchanged_bytes(TABLE, mesh)
    (part,) = sink
    assert bytes_of(tensor for tensor in part if tensor is not None) == table_bytes(TABLE, mesh)["step's reads"]


def saved_by_autograd(model, blocks, half):
    """Bytes of all storages that a forward pass saves, but for the weights'."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept, saved = [], {}

    def pack(tensor):
        kept.append(tensor)  # so that no storage is given back and its address used again
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
        text_loss(model, blocks)
    return sum(saved.values())


SHAPES = {
    "tiny": {"model__width": 64, "model__layers": 2, "data__vocabulary": 300},
    "small": {"model__width": 256, "model__layers": 4, "model__heads": 8, "model__kv_heads": 2,
              "data__vocabulary": 2000, "memory__slots": 4096},
}  # fmt: skip


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("shape", "kind"),
    [("tiny", kind) for kind in ("dense", "memory", "memory+", "peer", "moe", "beside", "engram")]
    + [("small", "memory+"), ("small", "dense"), ("small", "engram"), ("tiny", "convolution"), ("tiny", "mixed")],
)
def test_activations_are_what_autograd_saves(shape, kind, half):
    """Within 1%. A mixture of experts in bfloat16 is counted too high, by the copies of experts that no token meets."""
    changes = {"memory__heads": 4, "memory__layers": [0, 1], "memory__experts": 2, **SHAPES[shape]}
    changes |= {"memory__kind": "memory", "memory__insertion": "beside"} if kind == "beside" else {"memory__kind": kind}
    if kind == "convolution":
        changes |= {"memory__kind": "engram", "memory__convolution": True}
    if kind == "mixed":
        changes |= {
            "memory__kind": "engram",
            "memory__also": [{"kind": "memory+", "slots": 256, "top_k": 8, "layers": [1]}],
        }
    if kind == "memory":
        changes["memory__qk_norm"] = False
    config = point_of(**changes).config
    blocks = torch.randint(config.data.vocabulary, (4, 64), generator=torch.Generator().manual_seed(0))
    saved = saved_by_autograd(built(config), blocks, half)
    base, vocabulary = config.model, config.data.vocabulary
    counted = saved_bytes(base, config.memory, blocks.numel(), half)
    counted += logits_bytes(vocabulary, base.width, blocks[:, 1:].numel(), half)[0]
    counted += 2 * copied_weights(base, config.memory, vocabulary) if half else 0
    assert counted == pytest.approx(saved, rel=0.01)


ULTRAMEM = [{}, {"rank": 1}, {"units": True}, {"units": True, "expansion": 4}, {"scores": "softmax", "qk_norm": False}]


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("keys", ULTRAMEM, ids=str)
def test_activations_of_ultramem_are_what_autograd_saves(keys, half, monkeypatch):
    """Within 1%, with bags as long as on a GPU."""
    monkeypatch.setattr("memx.memory_layers.ultramem.expansion._lengths_may_vary", lambda *given: False)
    given = {f"memory__{key}": value for key, value in {"kind": "ultramem", "place": "every", **keys}.items()}
    config = point_of(**SHAPES["tiny"], **given).config
    blocks = torch.randint(config.data.vocabulary, (4, 64), generator=torch.Generator().manual_seed(0))
    saved = saved_by_autograd(built(config), blocks, half)
    base, vocabulary = config.model, config.data.vocabulary
    counted = saved_bytes(base, config.memory, blocks.numel(), half)
    counted += logits_bytes(vocabulary, base.width, blocks[:, 1:].numel(), half)[0]
    counted += 2 * copied_weights(base, config.memory, vocabulary) if half else 0
    assert counted == pytest.approx(saved, rel=0.01)


@pytest.mark.parametrize(("rows", "reads"), [(1, 5), (10, 1), (50, 20), (7, 100)])
def test_touched_rows_are_those_of_reads_at_random(rows, reads):
    drawn = torch.randint(rows, (4000, reads), generator=torch.Generator().manual_seed(1))
    found = sum(len(trial.unique()) for trial in drawn) / len(drawn)
    assert touched_rows(rows, reads) == pytest.approx(found, rel=0.02)


def test_a_dry_run_refuses_a_fact_that_the_run_would(tmp_path):
    facts = tmp_path / "facts.csv"
    rows = [f"town {number},capital,place {number}" for number in range(20)]
    facts.write_text("\n".join(["subject,relation,object", *rows, f"{'1234567890' * 9},capital,x"]))
    long = {"data__facts": [str(facts)], "data__unseen": 0.0}
    with pytest.raises(MemxError, match=r"a document on '1234567890.*…' .capital. is [0-9]+ tokens long") as error:
        cost_of(point_of(**long), Path("runs"))
    assert "--set data.sequence=" in error.value.hint and "…" not in error.value.hint
    cost_of(point_of(**long, data__sequence=144, model__context=144), Path("runs"))
