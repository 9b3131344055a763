"""evict_gather against plain indexing, bit by bit: dtypes, strides, ragged heads, and what it refuses."""

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.benchmarks.ops.correctness import check_op
from memx.kernels.evict_gather import OP, evict_gather, evict_gather_reference, op

FUNCTIONS = [evict_gather, evict_gather_reference]


def layer(batch=2, heads=3, keys=40):
    generator = torch.Generator().manual_seed(0)

    def normal(width, dtype):
        return torch.randn(batch, heads, keys, width, generator=generator).to(dtype)

    positions = torch.randint(1 << 60, (batch, heads, keys), generator=generator)
    return [normal(8, torch.bfloat16), normal(7, torch.float32), normal(3, torch.float32) > 0, positions,
            normal(1, torch.float64), normal(2, torch.float16)]  # fmt: skip


def choose(most, batch=2, heads=3, keys=40):
    generator = torch.Generator().manual_seed(1)
    kept = torch.rand(batch, heads, keys, generator=generator).topk(most).indices.sort(-1).values
    return kept, torch.randint(most + 1, (batch, heads), generator=generator)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("most", [0, 1, 13, 40])
@pytest.mark.parametrize("with_counts", [False, True])
def test_equals_plain_indexing(function, most, with_counts):
    tensors, (kept, counts) = layer(), choose(most)
    outs = function(tensors, kept, counts if with_counts else None)
    for out, tensor in zip(outs, tensors, strict=True):
        assert out.dtype == tensor.dtype and out.shape == (2, 3, most, *tensor.shape[3:])
        for b in range(2):
            for head in range(3):
                count = int(counts[b, head]) if with_counts else most
                assert torch.equal(out[b, head, :count], tensor[b, head, kept[b, head, :count]])
                assert (out[b, head, count:] == 0).all()


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_strided_tensors_and_index_dtypes(index):
    tensors, (kept, counts) = layer(keys=80), choose(20)
    views = [x[:, :, 1::2] for x in tensors] + [tensors[1].mT.contiguous().mT[:, :, :40], tensors[1][:, :, :40, 2:4]]
    for out, exact in zip(
        evict_gather(views, kept.to(index), counts.to(index)),
        evict_gather_reference([view.contiguous() for view in views], kept, counts),
        strict=True,
    ):
        assert torch.equal(out, exact)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_entries_past_the_count_may_be_anything(function):
    tensors, (kept, counts) = layer(), choose(20)
    junk = torch.where(torch.arange(20) < counts[..., None], kept, -7)
    outs, exact = function(tensors, junk, counts), function(tensors, kept, counts)
    assert all(torch.equal(a, b) for a, b in zip(outs, exact, strict=True))


@pytest.mark.parametrize("wrong", [-1, 40])
def test_an_index_out_of_range_is_refused(wrong):
    tensors, (kept, _) = layer(), choose(20)
    kept[1, 2, 3] = wrong
    with pytest.raises(MemxError, match=r"a kept index is outside 0\.\.39"):
        evict_gather(tensors, kept)


def test_says_what_is_not_there():
    with pytest.raises(MemxError, match="evict_gather has no implementation 'native'"):
        evict_gather(layer(), choose(20)[0], impl="native")


def test_nothing_to_gather():
    assert evict_gather([], choose(20)[0]) == ()


def test_meta_and_compiled():
    tensors, (kept, counts) = layer(), choose(20)
    exact = evict_gather(tensors, kept, counts)
    meta = evict_gather([x.to("meta") for x in tensors], kept.to("meta"), counts.to("meta"))
    assert [(x.shape, x.dtype, x.stride()) for x in meta] == [(x.shape, x.dtype, x.stride()) for x in exact]
    compiled = torch.compile(evict_gather, backend="aot_eager", fullgraph=True)(tensors, kept, counts)
    assert all(torch.equal(a, b) for a, b in zip(compiled, exact, strict=True))
    torch.library.opcheck(
        torch.ops.memx.evict_gather, (tensors, kept, counts, "torch"), test_utils=("test_schema", "test_faketensor")
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_passes_its_own_check(dtype):
    error, limit = check_op(OP, OP.shapes[0], dtype, torch.device("cpu"))
    assert error <= limit


def test_its_check_sees_a_single_wrong_bit():
    inputs = OP.make_inputs(OP.shapes[0], torch.float32, torch.device("cpu"), torch.Generator().manual_seed(0))
    outs = evict_gather(*inputs)
    assert all((seen == 1).all() for seen in op._observe(inputs, outs))
    outs[1].view(torch.int32)[0, 0, 0, 0] ^= 1
    assert sum(int((seen == 0).sum()) for seen in op._observe(inputs, outs)) == 1
