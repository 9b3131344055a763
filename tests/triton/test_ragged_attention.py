"""The ragged attention kernel against its definition in float64: odd heads and widths, spans, windows, dtypes."""

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.benchmarks.ops.correctness import check_op
from memx.kernels.ragged_attention import OP, kernel, ragged_attention, ragged_attention_reference


def draw(device, counts, group=2, queries=2, width=16, depth=16, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)

    def normal(*size):
        return torch.randn(size, generator=generator).to(device, dtype)

    flat = torch.tensor([0, *(count for heads in counts for count in heads)], device=device)
    total, query = int(flat.sum()), 2 * normal(len(counts), len(counts[0]) * group, queries, width)
    return query, normal(total, width), normal(total, depth), flat.cumsum(0)


def check(given, *more, error=5e-6):
    exact = ragged_attention_reference(*(x.double() for x in given[:3]), given[3], *more)
    got = ragged_attention(*given, *more, impl="triton")
    assert got.output.dtype == given[0].dtype and got.lse.dtype == torch.float32
    torch.testing.assert_close(got.output.double(), exact.output, rtol=0, atol=error)
    torch.testing.assert_close(got.lse.double(), exact.lse, rtol=0, atol=5e-6)


@pytest.mark.parametrize("counts", [[[1, 0, 70]], [[33, 4], [0, 90]]], ids=str)
@pytest.mark.parametrize(("group", "queries"), [(1, 1), (3, 1), (2, 9)])
def test_equals_the_definition(device, counts, group, queries):
    check(draw(device, counts, group, queries))


@pytest.mark.parametrize(("width", "depth"), [(1, 3), (20, 40), (80, 72)])
def test_odd_widths_and_a_scale(device, width, depth):
    check(draw(device, [[3, 50]], width=width, depth=depth), 0.3)


@pytest.mark.parametrize("longest", [None, 90])
def test_spans_of_long_heads_are_joined(device, monkeypatch, longest):
    monkeypatch.setattr(kernel, "_SPAN", 32)
    given = draw(device, [[0, 90], [31, 64]], queries=1)
    check(given, None, None, None, None, longest)
    positions = torch.arange(len(given[1]), device=device)
    own = torch.tensor([[80], [100]], device=device)  # some spans are seen in part, some not at all
    check(given, None, positions, own, 25, longest)


@pytest.mark.parametrize("window", [None, 12])
def test_positions_hide_what_is_later_or_out_of_the_window(device, window):
    given = draw(device, [[0, 5], [40, 9]], queries=4)
    positions = torch.randint(0, 60, (len(given[1]),), generator=torch.Generator().manual_seed(1)).to(device)
    own = torch.tensor([[-1, 4, 5, 6], [5, 30, 31, 59]], device=device)
    check(given, None, positions, own, window)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(device, dtype):
    check(draw(device, [[40, 7]], dtype=dtype), error=4 * torch.finfo(dtype).eps)


def test_strided_queries(device):
    query, *others = draw(device, [[40, 7]])
    turned = query.transpose(1, 2).contiguous().transpose(1, 2)
    check((turned, *others))


@pytest.mark.parametrize("shape", OP.odd_shapes, ids=str)
def test_passes_its_own_check(device, shape):
    error, limit = check_op(OP, shape, torch.float32, device, "triton")
    assert error <= limit


def test_what_it_does_not_take_is_refused(device):
    with pytest.raises(MemxError, match="no implementation 'triton'"):
        ragged_attention(*draw(device, [[4]], dtype=torch.float64), impl="triton")
