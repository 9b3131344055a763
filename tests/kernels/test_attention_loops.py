"""The compiled attention loops, and torch's ops in their place: both against the definition in float64."""

import os
import subprocess
import sys

import pytest
import torch
from memx.experiments.benchmarks.ops.correctness import check_op
from memx.kernels import native
from memx.kernels.attention_spectrogram import (
    OP,
    attention_lse,
    attention_lse_reference,
    attention_spectrogram,
    attention_spectrogram_reference,
)
from memx.kernels.native import attention

needs_compiler = pytest.mark.skipif(native.library() is None, reason="no C compiler here")
SHAPES = [  # batch, heads, group, new, old, width
    (2, 2, 3, 32, 21, 5),
    (1, 1, 1, 16, 0, 1),
    (1, 3, 2, 48, 80, 33),  # the old keys end within a block
    (2, 1, 4, 128, 0, 16),  # blocks that the first queries do not see
    (1, 2, 7, 64, 300, 20),  # 448 queries a group: two units of the log-sum-exp
]


@pytest.fixture(params=[pytest.param("native", marks=needs_compiler), "torch"])
def path(request, monkeypatch):
    """Which loops the op takes; fails if it took the others."""
    if request.param == "torch":
        monkeypatch.setattr(native, "available", lambda *_: False)
        yield "torch"
        return
    called = []
    run = attention._run
    monkeypatch.setattr(
        attention, "_run", lambda name, *given, **more: called.append(name) or run(name, *given, **more)
    )
    yield "native"
    assert called


def draw(batch, heads, group, new, old, width, dtype=torch.float32):
    """Queries, keys, carry and moving average, of which dtype has the first two."""
    generator = torch.Generator().manual_seed(new + width)

    def normal(*size):
        return torch.randn(size, generator=generator)

    query, key = 2 * normal(batch, heads * group, new, width), normal(batch, heads, old + new, width)
    carry, previous = normal(batch, heads, old, 16).abs().mT, normal(batch, heads, old, 17).abs()
    return query.to(dtype), key.to(dtype), carry, previous


def draw_mask(kind, batch, heads, keys):
    """None, left padding, or keys of each head at random, of which the first queries see none."""
    if kind is None:
        return None
    if kind == "padding":
        return (torch.arange(keys) >= torch.tensor([9, 0])[:batch, None])[:, None]
    mask = torch.rand(batch, heads, keys, generator=torch.Generator().manual_seed(7)) < 0.6
    mask[..., :9] = False
    return mask


def double(*tensors):
    return [x if x is None else x.double() for x in tensors]


def near(got, exact, error):
    assert got.shape == exact.shape and got.dtype == torch.float32
    torch.testing.assert_close(got.double(), exact, rtol=0, atol=error)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", [None, "padding", "ragged"])
@pytest.mark.parametrize("decay", [None, 0.97])
def test_equals_the_definition(path, shape, kind, decay):
    query, key, carry, previous = draw(*shape)
    mask = draw_mask(kind, *shape[:2], key.shape[2])
    if mask is not None:
        key = key.masked_fill(~mask[..., None], torch.nan)  # what is not there may be anything
    previous = None if decay is None else previous
    lse = attention_lse_reference(*double(query, key), mask)
    for context in (carry, None):
        exact = attention_spectrogram_reference(*double(query, key, lse, context, previous), mask, decay=decay)
        for given in (lse.float(), None):
            got = attention_spectrogram(query, key, given, context, previous, mask, decay=decay)
            near(got.spectrum, exact.spectrum, 1e-5)
            near(got.carry, exact.carry, 2e-6)


@pytest.mark.parametrize("shape", [*SHAPES, (1, 2, 3, 5, 70, 8), (2, 1, 1, 1, 0, 3), (1, 1, 2, 300, 9, 4)], ids=str)
@pytest.mark.parametrize("kind", [None, "padding", "ragged"])
def test_log_sum_exp_equals_the_definition(path, shape, kind):
    query, key, _, _ = draw(*shape)
    mask = draw_mask(kind, *shape[:2], key.shape[2])
    exact = attention_lse_reference(*double(query, key), mask)
    near(attention_lse(query, key, mask), exact, 5e-6)
    near(attention_lse(query, key, mask, 10.0), attention_lse_reference(*double(query, key), mask, 10.0), 1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_float32_of_its_own_values(path, dtype):
    query, key, carry, previous = draw(*SHAPES[0], dtype)
    whole = attention_spectrogram(query, key, None, carry, previous, decay=0.9)
    single = attention_spectrogram(query.float(), key.float(), None, carry, previous, decay=0.9)
    assert all(torch.equal(a, b) for a, b in zip(whole, single, strict=True))


@pytest.mark.parametrize("place", range(len(OP.shapes + OP.odd_shapes)))
def test_passes_its_own_check(path, place):
    shape = {**(OP.shapes + OP.odd_shapes)[place]}
    error, limit = check_op(OP, {**shape, "T": min(shape["T"], 1024)}, torch.float32, torch.device("cpu"))
    assert error <= limit


def test_wild_numbers(path):
    """Of a wrong log-sum-exp comes 0, infinity or nan, as it would of torch's exponential."""
    query, key, _, _ = draw(*SHAPES[0])
    rows = []
    for lse in (torch.inf, 300.0, -torch.inf, -300.0, torch.nan):
        rows.append(attention_spectrogram(query, key, torch.full(query.shape[:3], lse)).carry[..., :21])
    assert (rows[0] == 0).all() and (rows[1] < 1e-37).all()
    assert (rows[2] == torch.inf).all() and (rows[3] == torch.inf).all() and rows[4].isnan().all()


@needs_compiler
def test_strides_of_a_larger_cache_are_read_as_they_are():
    query, key, carry, previous = draw(*SHAPES[2])
    cache = torch.full((1, 3, 200, 40), torch.nan)
    cache[:, :, 7:135, 2:35] = key
    expected = attention_spectrogram(query, key, None, carry, previous, decay=0.9)
    turned = query.transpose(1, 2).contiguous().transpose(1, 2)
    for view in (cache[:, :, 7:135, 2:35], key.mT.contiguous().mT):
        got = attention_spectrogram(turned, view, None, carry.contiguous(), previous, decay=0.9)
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@needs_compiler
def test_any_number_of_threads_gives_the_same_bits():
    query, key, carry, previous = draw(2, 2, 5, 64, 300, 24)
    mask = draw_mask("ragged", 2, 2, 364)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            found.append(attention_spectrogram(query, key, None, carry, previous, mask, decay=0.9))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


CHECKS = """
import torch
from memx.kernels import native
from memx.kernels.attention_spectrogram import OP
from memx.experiments.benchmarks.ops.correctness import check_op
assert (native.library() is None) == {without}
cpu = torch.device("cpu")
assert OP.label("torch", cpu) == ("torch" if {without} else "torch, compiled loops")
for shape in (OP.shapes[0], *OP.odd_shapes):
    error, limit = check_op(OP, shape, torch.float32, cpu)
    assert error <= limit, (shape, error, limit)
"""


def check_with(compiler, folder, without):
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder), "CC": compiler}
    command = [sys.executable, "-c", CHECKS.format(without=without)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_a_compiler_torchs_ops_stand_in(tmp_path):
    check_with("no-such-compiler", tmp_path, without=True)


@needs_compiler
@pytest.mark.parametrize("vectors", ["8 lanes", pytest.param("4 lanes", marks=pytest.mark.slow)])
def test_processors_of_shorter_vectors(tmp_path, vectors):
    macros = "-U__AVX512F__" if vectors == "8 lanes" else "-U__AVX512F__ -U__AVX__"
    check_with(f"{os.environ.get('CC') or 'cc'} {macros}", tmp_path, without=False)
