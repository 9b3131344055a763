"""Ragged attention against the softmax of each head in float64: all implementations, dtypes, windows, odd heads."""

import os
import subprocess
import sys

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.benchmarks.ops.correctness import check_op
from memx.kernels import native
from memx.kernels.ragged_attention import OP, ragged_attention, ragged_attention_reference

needs_compiler = pytest.mark.skipif(native.library() is None, reason="no C compiler here")
IMPLS = [pytest.param("native", marks=needs_compiler), "torch"]


def draw(counts, group=3, queries=2, width=8, depth=None, dtype=torch.float32):
    """Queries, keys, values and offsets of sequences whose heads hold counts [B][H]."""
    generator = torch.Generator().manual_seed(0)

    def normal(*size):
        return torch.randn(size, generator=generator).to(dtype)

    flat = torch.tensor([0, *(count for heads in counts for count in heads)])
    total, query = int(flat.sum()), 2 * normal(len(counts), len(counts[0]) * group, queries, width)
    return query, normal(total, width), normal(total, depth or width), flat.cumsum(0)


def softmax_of_each(query, key, value, offsets, seen=None, scale=None):
    """One query head at a time, in float64; seen [B, Q, S]."""
    (batch, heads, queries, width), pairs = query.shape, len(offsets) - 1
    group = batch * heads // pairs
    out = torch.zeros(batch, heads, queries, value.shape[1], dtype=torch.float64)
    lse = torch.full((batch, heads, queries), -torch.inf, dtype=torch.float64)
    for b in range(batch):
        for head in range(heads):
            pair = b * (pairs // batch) + head // group
            for i in range(queries):
                keys = torch.arange(int(offsets[pair]), int(offsets[pair + 1]))
                keys = keys if seen is None else keys[seen[b, i, keys]]
                if len(keys):
                    scores = key[keys].double() @ query[b, head, i].double() * (width**-0.5 if scale is None else scale)
                    lse[b, head, i], out[b, head, i] = scores.logsumexp(0), scores.softmax(0) @ value[keys].double()
    return out, lse


def near(got, exact, error=1e-5):
    for one, other in zip(got, exact, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=error)


COUNTS = [
    [[1, 5, 40]],
    [[0, 3], [300, 0]],  # heads that hold nothing; more keys than a unit of the loops takes
    [[256, 257], [31, 512]],
]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize(("group", "queries"), [(3, 1), (1, 1), (2, 1), (1, 7), (4, 3)])
def test_equals_softmax_of_each_head(impl, counts, group, queries):
    given = draw(counts, group, queries)
    near(ragged_attention(*given, impl=impl), softmax_of_each(*given))


@pytest.mark.parametrize("impl", [*IMPLS, "reference"])
@pytest.mark.parametrize(("width", "depth"), [(1, 1), (20, 20), (16, 33), (72, 5)])
def test_odd_widths_and_a_scale(impl, width, depth):
    given = draw([[3, 50]], width=width, depth=depth)
    run = (
        ragged_attention_reference
        if impl == "reference"
        else lambda *x, **more: ragged_attention(*x, **more, impl=impl)
    )
    near(run(*given, scale=0.3), softmax_of_each(*given, scale=0.3))


@pytest.mark.parametrize("impl", [*IMPLS, "reference"])
@pytest.mark.parametrize("window", [None, 40])
def test_positions_hide_what_is_later_or_out_of_the_window(impl, window):
    query, key, value, offsets = draw([[0, 5], [300, 90]], queries=4)
    positions = torch.randint(0, 350, (len(key),), generator=torch.Generator().manual_seed(1))
    positions[:5] = 4 + torch.arange(5)
    own = torch.tensor([[3, 4, 5, 6], [5, 300, 310, 349]])
    back = own[..., None] - positions
    seen = (back >= 0) if window is None else (back >= 0) & (back < window)
    assert not seen[0, 0, :5].any()  # a query that sees nothing
    run = ragged_attention_reference if impl == "reference" else lambda *x: ragged_attention(*x, impl=impl)
    given = (query, key, value, offsets)
    near(run(*given, None, positions, own, window), softmax_of_each(*given, seen))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(impl, dtype):
    given = draw([[300, 7]], width=20, dtype=dtype)
    if impl == "native" and dtype == torch.float64:
        with pytest.raises(MemxError, match="no implementation 'native'"):
            ragged_attention(*given, impl=impl)
        return
    output, lse = ragged_attention(*given, impl=impl)
    exact, exact_lse = softmax_of_each(*given)
    assert output.dtype == dtype and lse.dtype == (dtype if dtype == torch.float64 else torch.float32)
    # half precision rounds the output; in float64 scores do, by as much as they are large, which exponents multiply
    largest = (given[0].double().abs().max() * given[1].double().abs().max() * 20**0.5).item()
    near((output,), (exact,), (4 + largest * (dtype == torch.float64)) * torch.finfo(dtype).eps)
    near((lse,), (exact_lse,), 1e-12 if dtype == torch.float64 else 3e-6 if impl == "native" else 1e-4)


@needs_compiler
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan, 6e-8, 65504.0, -1.5])
def test_half_precision_numbers_of_every_kind(value):
    """Keys are e^0 each, so that the output is the mean of the values."""
    query, key, values, offsets = draw([[8]], group=1, queries=1, width=16, dtype=torch.float16)
    values[:] = value
    output, _ = ragged_attention(query, 0 * key, values, offsets, impl="native")
    torch.testing.assert_close(output, torch.full_like(output, value), equal_nan=True, rtol=1e-3, atol=0)


@needs_compiler
def test_any_number_of_threads_gives_the_same_bits():
    given, before, found = draw(COUNTS[2], queries=5), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(ragged_attention(*given, impl="native"))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for other in found[1:] for pair in zip(found[0], other, strict=True))


def test_auto_takes_the_loops_for_few_queries_and_torch_for_many(monkeypatch):
    called = []
    monkeypatch.setattr(native, "available", lambda *_: True)
    monkeypatch.setattr(
        native, "ragged_attention", lambda q, *_: called.append(q.shape[2]) or (q.clone(), q[..., 0].clone())
    )
    for queries in (1, 200):
        ragged_attention(*draw([[5, 9]], queries=queries))
    assert called == [1]


def test_parts_join_by_their_log_sum_exp():
    query, key, value, _ = draw([[90]], queries=2)
    whole = ragged_attention(query, key, value, torch.tensor([0, 90]))
    one = ragged_attention(query, key[:30], value[:30], torch.tensor([0, 30]))
    two = ragged_attention(query, key[30:], value[30:], torch.tensor([0, 60]))
    share = (two.lse - torch.logaddexp(one.lse, two.lse)).exp()[..., None]
    torch.testing.assert_close(one.output.lerp(two.output, share), whole.output, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", OP.odd_shapes, ids=str)
def test_passes_its_own_check(shape):
    for impl in (name for name in OP.available(torch.device("cpu")) if name != "triton"):
        error, limit = check_op(OP, shape, torch.float32, torch.device("cpu"), impl)
        assert error <= limit, impl


def test_meta_and_compiled():
    given = draw([[5, 30]])
    exact = ragged_attention(*given)
    meta = ragged_attention(*(x.to("meta") for x in given))
    assert [(x.shape, x.dtype) for x in meta] == [(x.shape, x.dtype) for x in exact]
    compiled = torch.compile(ragged_attention, backend="aot_eager", fullgraph=True)(*given)
    assert all(torch.equal(a, b) for a, b in zip(compiled, exact, strict=True))


CHECKS = """
import torch
from memx.kernels import native
from memx.kernels.ragged_attention import OP
from memx.experiments.benchmarks.ops.correctness import check_op
assert native.library() is not None
for shape in OP.odd_shapes:
    for dtype in (torch.float32, torch.float16):
        error, limit = check_op(OP, shape, dtype, torch.device("cpu"), "native")
        assert error <= limit, (shape, dtype, error, limit)
"""


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("macros", ["-U__AVX512F__ -U__F16C__", "-U__AVX512F__ -U__AVX__"])
def test_processors_of_shorter_vectors(tmp_path, macros):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "CC": f"{os.environ.get('CC') or 'cc'} {macros}"}
    done = subprocess.run([sys.executable, "-c", CHECKS], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
