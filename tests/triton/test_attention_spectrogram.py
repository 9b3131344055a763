"""The spectrogram and log-sum-exp kernels against the definition in float64: groups, widths, tiles, masks, strides."""

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
    lse_kernel,
)


def draw(device, batch=1, heads=1, group=2, new=32, old=21, dim=16, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(size, generator=generator).to(device)

    query, key = 2 * normal(batch, heads * group, new, dim), normal(batch, heads, old + new, dim)
    carry, previous = normal(batch, heads, 16, old).abs(), normal(batch, heads, old, 17).abs()
    return query.to(dtype), key.to(dtype), carry, previous


def wide(x):
    return x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x


def check(inputs, decay=None, error=5e-6, scale=None):
    """The kernel's outputs against those of the definition for the same inputs in float64."""
    expected = attention_spectrogram_reference(*map(wide, inputs), scale=scale, decay=decay)
    got = attention_spectrogram(*inputs, scale=scale, decay=decay, impl="triton")
    for ours, exact in zip(got, expected, strict=True):
        assert ours.dtype == torch.float32 and ours.shape == exact.shape
        torch.testing.assert_close(ours.double(), exact, rtol=0, atol=error)
    return got


@pytest.mark.parametrize(
    ("heads", "group", "new", "old", "dim"),
    [
        (2, 1, 16, 0, 16),
        (1, 3, 32, 21, 63),
        (2, 4, 48, 90, 64),
        (1, 7, 16, 33, 80),
        (1, 5, 32, 16, 128),
        (1, 2, 64, 1, 1),
    ],
)
def test_frames(device, heads, group, new, old, dim):
    query, key, carry, _ = draw(device, 2, heads, group, new, old, dim)
    check((query, key, attention_lse(query, key, impl="torch"), carry))


@pytest.mark.parametrize(("heads", "group", "old"), [(2, 3, 70), (1, 8, 5), (3, 1, 0)])
@pytest.mark.parametrize("state", [False, True])
def test_moving_average(device, heads, group, old, state):
    query, key, carry, previous = draw(device, 2, heads, group, 32, old)
    check((query, key, None, *((carry, previous) if state else (None, None))), decay=0.97)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(device, dtype):
    query, key, carry, previous = draw(device, group=4, old=100, dim=64, dtype=dtype)
    check((query, key, None, carry, previous), decay=0.97, error=2e-5)
    torch.testing.assert_close(
        attention_lse(query, key, impl="triton").double(), attention_lse_reference(query.double(), key.double()),
        rtol=0, atol=1e-5,
    )  # fmt: skip


def masks(batch, heads, keys, device):
    pads = torch.tensor([0, 9])[:batch, None, None]
    ragged = torch.rand(batch, heads, keys, generator=torch.Generator().manual_seed(7)) < 0.6
    ragged[..., :25] = False
    return {"left padding": (torch.arange(keys) >= pads).to(device), "ragged": ragged.to(device)}


@pytest.mark.parametrize("kind", ["left padding", "ragged"])
@pytest.mark.parametrize("old", [0, 40])
def test_keys_that_do_not_exist(device, kind, old):
    query, key, carry, previous = draw(device, 2, 2, 2, 32, old)
    mask = masks(2, 2, old + 32, device)[kind]
    key = key.masked_fill(~mask[..., None], torch.nan)  # what is not there may be anything
    check((query, key, None, carry, None, mask))
    check((query, key, None, carry, previous, mask), decay=0.9)


def test_a_query_that_sees_nothing_gives_zeros_whatever_its_log_sum_exp(device):
    query, key, _, _ = draw(device, old=0)
    mask = torch.zeros(1, 1, 32, dtype=torch.bool, device=device)
    for blank in (None, -torch.inf, torch.inf, torch.nan, 0.0):
        lse = None if blank is None else torch.full(query.shape[:3], blank, device=device)
        for result in attention_spectrogram(query, key, lse, mask=mask, impl="triton"):
            assert (result == 0).all()


def test_two_runs_equal_one(device):
    query, key, carry, previous = draw(device, new=64)
    whole = attention_spectrogram(query, key, None, carry, previous, decay=0.99, impl="triton")
    first = attention_spectrogram(query[:, :, :32], key[:, :, :53], None, carry, previous, decay=0.99, impl="triton")
    second = attention_spectrogram(query[:, :, 32:], key, None, first.carry, first.spectrum, decay=0.99, impl="triton")
    for one, two in zip(whole, second, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [None, "left padding", "ragged"])
@pytest.mark.parametrize(("group", "new", "old", "dim"), [(3, 32, 70, 16), (1, 80, 0, 40)])
def test_log_sum_exp(device, monkeypatch, kind, group, new, old, dim):
    query, key, _, _ = draw(device, 2, 2, group, new, old, dim)
    mask = None if kind is None else masks(2, 2, old + new, device)[kind]
    expected = attention_lse_reference(query.double(), key.double(), mask, 0.4)
    for span in (4096, 64):
        monkeypatch.setattr(lse_kernel, "_SPAN", span)
        got = attention_lse(query, key, mask, 0.4, impl="triton")
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-5)


def test_views_and_offsets_beyond_32_bits(device):
    query, key, carry, _ = draw(device, new=16, old=54, dtype=torch.float16)
    cache = torch.empty(70 << 25, dtype=torch.float16, device=device)  # touched at its keys alone
    spread = cache.as_strided(key.shape, (0, 0, 1 << 25, 1)).copy_(key)
    turned = query.transpose(1, 2).contiguous().transpose(1, 2)
    expected = attention_spectrogram(query, key, carry=carry, impl="triton")
    got = attention_spectrogram(turned, spread, carry=carry.mT.contiguous().mT, impl="triton")
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    check((turned, spread, None, carry), error=2e-5)
    assert got.carry.mT.is_contiguous()


def test_a_scale_and_the_same_bits_twice(device):
    query, key, carry, previous = draw(device, old=100)
    inputs = (query, key, None, carry, previous)
    one = check(inputs, decay=0.9, scale=0.7)
    two = attention_spectrogram(*inputs, scale=0.7, decay=0.9, impl="triton")
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_passes_its_own_check(device, dtype):
    error, limit = check_op(OP, OP.shapes[0], dtype, device, "triton")
    assert error <= limit


def test_compiled(device):
    query, key, carry, previous = draw(device)
    inputs = (query, key, None, carry, previous)
    expected = attention_spectrogram(*inputs, decay=0.9, impl="triton")
    compiled = torch.compile(attention_spectrogram, backend="aot_eager", fullgraph=True)
    for got, exact in zip(compiled(*inputs, decay=0.9, impl="triton"), expected, strict=True):
        assert torch.equal(got, exact) and got.stride() == exact.stride()


def test_float64_and_wide_heads_are_left_to_torch(device):
    query, key, _, _ = draw(device)
    for dtype, dim, name in ((torch.float64, 16, "float64 heads of 16"), (torch.float32, 272, "float32 heads of 272")):
        wider = (query.to(dtype).repeat(1, 1, 1, dim // 16), key.to(dtype).repeat(1, 1, 1, dim // 16))
        with pytest.raises(MemxError, match=f"has no {name}"):
            attention_spectrogram(*wider, impl="triton")
        with pytest.raises(MemxError, match=f"attention_lse has no {name}"):
            attention_lse(*wider, impl="triton")
        assert attention_spectrogram(*wider).spectrum.isfinite().all()
