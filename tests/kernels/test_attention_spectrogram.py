"""The attention spectrogram against loops and torch.stft in float64, in chunks, with padding, and compiled."""

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.benchmarks.ops.correctness import check_op
from memx.kernels.attention_spectrogram import (
    OP,
    attention_lse,
    attention_lse_reference,
    attention_spectrogram,
    attention_spectrogram_reference,
    op,
    tiles,
)

FUNCTIONS = [attention_spectrogram, attention_spectrogram_reference]


def draw(heads=2, group=2, new=32, old=21, dim=5, batch=2, dtype=torch.float64, seed=0):
    """Queries, keys, and the carry and moving average of a run before."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)

    query, key = 2 * normal(batch, heads * group, new, dim), normal(batch, heads, old + new, dim)
    return query, key, normal(batch, heads, 16, old).abs(), normal(batch, heads, old, 17).abs()


def left_padding(batch, keys, pads=(0, 9)):
    return (torch.arange(keys) >= torch.tensor(pads)[:batch, None])[:, None]  # [B, 1, T]


def ragged(batch, heads, keys):
    mask = torch.rand(batch, heads, keys, generator=torch.Generator().manual_seed(7)) < 0.6
    mask[..., 3:25] = False  # queries that see nothing at all, where no key is older
    mask[..., :3] = False
    return mask


def loops(query, key, carry=None, mask=None, scale=None):
    """Frames [B, H, F, T, 17] and rows [B, H, 16 + Q, T], one softmax at a time, and torch.stft."""
    (batch, query_heads, new, dim), (_, heads, keys, _) = query.shape, key.shape
    group, old = query_heads // heads, keys - new
    rows = torch.zeros(batch, heads, 16 + new, keys, dtype=torch.float64)
    if carry is not None:
        rows[:, :, :16, :old] = carry
    for b in range(batch):
        for head in range(query_heads):
            for i in range(new):
                seen = torch.tensor([j <= old + i for j in range(keys)])
                if mask is not None:
                    seen &= mask[b, head // group if mask.shape[1] > 1 else 0]
                if seen.any():
                    scores = key[b, head // group, seen] @ query[b, head, i] * (dim**-0.5 if scale is None else scale)
                    rows[b, head // group, 16 + i, seen] += scores.softmax(0) / group
    window = torch.hann_window(32, periodic=True, dtype=torch.float64)
    frames = torch.stft(rows.mT.flatten(0, 2), 32, 16, window=window, center=False, return_complex=True).abs()
    return frames.unflatten(0, (batch, heads, keys)).permute(0, 1, 4, 2, 3), rows


def close(got, expected, error=1e-12):
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, rtol=0, atol=error)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("heads", "group"), [(2, 1), (1, 3), (2, 4), (1, 7)])
@pytest.mark.parametrize(("new", "old"), [(16, 0), (32, 21), (48, 200)])
def test_equals_loops(function, heads, group, new, old):
    query, key, carry, _ = draw(heads, group, new, old)
    frames, rows = loops(query, key, carry)
    got = function(query, key, carry=carry)
    close(got.spectrum, frames)
    close(got.carry, rows[:, :, -16:])


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("kind", ["left padding", "ragged"])
@pytest.mark.parametrize("old", [0, 21])
def test_keys_that_do_not_exist(function, kind, old):
    query, key, carry, _ = draw(old=old)
    mask = left_padding(2, old + 32) if kind == "left padding" else ragged(2, 2, old + 32)
    frames, rows = loops(query, key, carry, mask)
    key = key.masked_fill(~mask[..., None], torch.nan)  # what is not there may be anything
    got = function(query, key, carry=carry, mask=mask)
    close(got.spectrum, frames)
    close(got.carry, rows[:, :, -16:])
    absent = ~mask.expand(2, 2, -1)[..., old:]
    assert (got.spectrum[..., old:, :].movedim(2, 3)[absent] == 0).all()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_query_that_sees_nothing_gives_zeros_whatever_its_log_sum_exp(function):
    query, key, _, _ = draw(old=0)
    mask = torch.zeros(2, 1, 32, dtype=torch.bool)
    for blank in (None, -torch.inf, torch.inf, torch.nan, 0.0):
        lse = None if blank is None else torch.full(query.shape[:3], blank, dtype=torch.float64)
        for result in function(query, key, lse, mask=mask):
            assert (result == 0).all()


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("with_previous", [False, True])
def test_decay_is_the_moving_average_of_the_frames(function, with_previous):
    query, key, carry, previous = draw(new=64)
    previous = previous if with_previous else None
    frames, rows = loops(query, key, carry)
    average = torch.zeros_like(frames[:, :, 0])
    if with_previous:
        average[:, :, :21] = previous
    for f in range(4):
        average = 0.97**16 * average + (1 - 0.97**16) * frames[:, :, f]
    got = function(query, key, carry=carry, previous=previous, decay=0.97)
    close(got.spectrum, average)
    close(got.carry, rows[:, :, -16:])


def test_frames_before_a_new_keys_own_block_are_zero():
    query, key, carry, _ = draw(new=64)
    frames = attention_spectrogram(query, key, carry=carry).spectrum
    for j in range(64):
        assert (frames[:, :, : j // 16, 21 + j] == 0).all()
        assert (frames[:, :, j // 16 :, 21 + j, 0] > 0).all()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_two_runs_equal_one(function):
    query, key, carry, previous = draw(new=64)
    whole = function(query, key, None, carry, previous, decay=0.99)
    first = function(query[:, :, :32], key[:, :, :53], None, carry, previous, decay=0.99)
    second = function(query[:, :, 32:], key, None, first.carry, first.spectrum, decay=0.99)
    close(second.spectrum, whole.spectrum)
    close(second.carry, whole.carry)


def test_no_carry_is_a_carry_of_zeros():
    query, key, carry, previous = draw(dtype=torch.float32)
    without = attention_spectrogram(query, key, decay=0.9)
    zeros = attention_spectrogram(query, key, None, carry.zero_(), previous.zero_(), decay=0.9)
    assert all(torch.equal(a, b) for a, b in zip(without, zeros, strict=True))


@pytest.mark.parametrize("size", [100, 1 << 10, 1 << 14])
def test_any_tiles_give_the_same(monkeypatch, size):
    query, key, carry, previous = draw(heads=3, group=2, old=150)
    mask = ragged(2, 3, 182)
    whole = attention_spectrogram(query, key, None, carry, previous, mask, decay=0.9)
    monkeypatch.setattr(tiles, "_CACHED_SCORES", size)
    for got, expected in zip(
        attention_spectrogram(query, key, None, carry, previous, mask, decay=0.9), whole, strict=True
    ):
        close(got, expected, 1e-14)


@pytest.mark.parametrize("kind", [None, "left padding", "ragged"])
def test_log_sum_exp(kind):
    query, key, _, _ = draw(old=0)
    mask = {None: None, "left padding": left_padding(2, 32), "ragged": ragged(2, 2, 32)}[kind]
    exact = attention_lse_reference(query, key, mask)
    for b, head, i in ((0, 0, 0), (1, 3, 31), (1, 2, 12)):
        seen = torch.arange(32) <= i
        if mask is not None:
            seen &= mask[b, head // 2 if mask.shape[1] > 1 else 0]
        close(exact[b, head, i], (key[b, head // 2, seen] @ query[b, head, i] * 5**-0.5).logsumexp(0))
    close(attention_lse(query, key, mask), exact)
    assert (exact == -torch.inf).any() == (kind is not None)


def test_a_given_log_sum_exp_and_scale_are_used():
    query, key, _, _ = draw()
    expected = loops(query, key, scale=0.3)[0]
    lse = attention_lse(query, key, scale=0.3)
    close(attention_spectrogram(query, key, scale=0.3).spectrum, expected)
    close(attention_spectrogram(query, key, lse, scale=0.3).spectrum, expected)
    close(attention_spectrogram(query, key, lse - 1, scale=0.3).spectrum, torch.e * expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_give_float32_of_their_own_values(dtype):
    query, key, carry, _ = draw(dtype=dtype)
    exact = attention_spectrogram(query.double(), key.double(), carry=carry.double())
    got = attention_spectrogram(query, key, carry=carry.float())
    for single, double in zip(got, exact, strict=True):
        assert single.dtype == torch.float32
        close(single.double(), double, 1e-5)


def test_views_of_a_larger_cache_need_no_copy():
    query, key, carry, _ = draw()
    cache = torch.full((2, 100, 2, 5), torch.nan, dtype=torch.float64)
    cache[:, :53] = key.transpose(1, 2)
    expected = attention_spectrogram(query, key, carry=carry)
    turned = query.transpose(1, 2).contiguous().transpose(1, 2)
    got = attention_spectrogram(turned, cache.transpose(1, 2)[:, :, :53], carry=carry.mT.contiguous().mT)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert got.carry.mT.is_contiguous()


@pytest.mark.parametrize("decay", [None, 0.9])
def test_meta_and_compiled(decay):
    query, key, carry, previous = draw(dtype=torch.float32)
    inputs = (query, key, None, carry, None if decay is None else previous, left_padding(2, 53))
    expected = attention_spectrogram(*inputs, decay=decay)
    meta = attention_spectrogram(*(x if x is None else x.to("meta") for x in inputs), decay=decay)
    compiled = torch.compile(attention_spectrogram, backend="aot_eager", fullgraph=True)(*inputs, decay=decay)
    for shape, got, exact in zip(meta, compiled, expected, strict=True):
        assert (shape.shape, shape.dtype, shape.stride()) == (exact.shape, exact.dtype, exact.stride())
        assert torch.equal(got, exact)


def test_operators_keep_torchs_rules():
    query, key, carry, previous = draw(batch=1, heads=1, dtype=torch.float32)
    lse = attention_lse(query, key)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        torch.ops.memx.attention_spectrogram, (query, key, lse, carry, previous, None, 0.4, 0.9, "torch"),
        test_utils=checks,
    )  # fmt: skip
    torch.library.opcheck(torch.ops.memx.attention_lse, (query, key, None, 0.4, "torch"), test_utils=checks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_passes_its_own_check(dtype):
    error, limit = check_op(OP, OP.shapes[0], dtype, torch.device("cpu"))
    assert error <= limit


def test_the_rival_is_the_same_thing():
    inputs = OP.make_inputs(OP.shapes[0], torch.float32, torch.device("cpu"), torch.Generator().manual_seed(0))
    for rival, ours in zip(op.eager(*inputs), attention_spectrogram(*inputs), strict=True):
        close(rival, ours, 1e-6)


def test_says_what_it_does_not_take():
    query, key, carry, _ = draw()
    with pytest.raises(MemxError, match="24 new queries are not a multiple of 16"):
        attention_spectrogram(query[:, :, :24], key)
    with pytest.raises(MemxError, match="attention_spectrogram has no implementation 'native'"):
        attention_spectrogram(query, key, impl="native")
    with pytest.raises(AssertionError):
        attention_spectrogram(query, key, carry=carry[..., :-1])
