"""Token features against the equations: known spectra, chunking, the moving average by hand, ages without a table."""

import math

import pytest
import torch
from memx.errors import MemxError
from memx.kernels.attention_spectrogram import attention_spectrogram
from memx.kernels.attention_spectrogram.reference import averaged_rows
from memx.namm.policies.features.normalisation import Normalisation
from memx.namm.policies.features.spectrum import age_features, ema, spectrogram

from ..published import token_features


def attention(queries, keys, batch=2, heads=3, seed=0):
    """Causal attention rows [B, H, Q, T] in float64."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(batch, heads, queries, keys, generator=generator, dtype=torch.float64)
    return rows.tril(keys - queries)


def test_a_constant_column_has_the_spectrum_of_the_window():
    """The periodic Hann window has sum 16 and first Fourier coefficient -8, and nothing else."""
    rows = torch.full((1, 1, 64, 80), 0.25, dtype=torch.float64)
    frames = spectrogram(rows, torch.full((1, 1, 16, 16), 0.25, dtype=torch.float64))
    expected = torch.zeros(17, dtype=torch.float64)
    expected[0], expected[1] = 0.25 * 16, 0.25 * 8
    torch.testing.assert_close(frames[0, 0, :, :16], expected.expand(4, 16, 17), rtol=0, atol=1e-12)


@pytest.mark.parametrize("place", [0, 5, 16, 31, 47])
def test_an_impulse_has_a_flat_spectrum_of_the_windows_height(place):
    rows = torch.zeros(1, 1, 48, 48, dtype=torch.float64)
    rows[0, 0, place, 0] = 1.0
    frames = spectrogram(rows)
    for frame in range(3):
        n = place - 16 * (frame - 1)  # its place in the window, which begins 16 rows before the block
        height = 0.5 - 0.5 * math.cos(2 * math.pi * n / 32) if 0 <= n < 32 else 0.0
        torch.testing.assert_close(frames[0, 0, frame, 0], torch.full((17,), height, dtype=torch.float64))


@pytest.mark.parametrize("chunk", [16, 32, 96])
def test_chunks_give_the_frames_and_average_of_one_piece(chunk):
    whole = attention(96, 96)
    expected = ema(spectrogram(whole))
    carry, average = None, None
    for end in range(chunk, 97, chunk):
        rows = whole[:, :, end - chunk : end, :end]
        frames = spectrogram(rows, carry)
        average = ema(frames, average)
        carry = rows[:, :, -16:]
    torch.testing.assert_close(average, expected, rtol=0, atol=1e-12)


def test_the_average_by_hand():
    rows, previous = attention(32, 40), torch.rand(2, 3, 8, 17, dtype=torch.float64)
    frames = spectrogram(rows, torch.rand(2, 3, 16, 8, dtype=torch.float64))
    gamma = 0.99
    expected = (1 - gamma**16) * (gamma**16 * frames[:, :, 0] + frames[:, :, 1])
    expected[:, :, :8] += gamma**32 * previous
    torch.testing.assert_close(ema(frames, previous), expected)


def test_frames_before_a_keys_own_block_count_for_nothing():
    frames = torch.ones(1, 1, 3, 50, 17, dtype=torch.float64)  # 2 old keys and 48 new ones
    average = ema(frames)[0, 0, :, 0]
    share = 1 - 0.99**16
    steps = [share * sum(0.99 ** (16 * age) for age in range(count)) for count in (3, 2, 1)]
    for key, expected in ((0, steps[0]), (2, steps[0]), (17, steps[0]), (18, steps[1]), (33, steps[1]), (49, steps[2])):
        assert average[key] == pytest.approx(expected), key


def test_the_kernel_op_computes_the_same():
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 6, 32, 8, generator=generator, dtype=torch.float64)
    key = torch.randn(2, 3, 50, 8, generator=generator, dtype=torch.float64)
    carry, previous = (
        torch.rand(2, 3, *size, generator=generator, dtype=torch.float64) for size in ((16, 18), (18, 17))
    )
    found = attention_spectrogram(query, key, carry=carry, previous=previous, decay=0.99)
    rows = averaged_rows(query, key, None, None, None)
    torch.testing.assert_close(found.spectrum, ema(spectrogram(rows, carry), previous))
    torch.testing.assert_close(found.carry, rows[:, :, -16:])


@pytest.mark.parametrize("queries", [0, 8, 24])
def test_a_chunk_that_is_no_multiple_of_the_hop_is_refused(queries):
    with pytest.raises(MemxError, match=rf"new queries must be a multiple of 16 .*, got {queries}"):
        spectrogram(torch.zeros(1, 1, queries, 64))


def test_ages_of_any_size():
    ages = torch.tensor([[0, 1, 77, 10**9]])
    found = age_features(ages)
    assert found.shape == (1, 4, 8) and found.dtype == torch.float32
    for row, age in zip(found[0].tolist(), ages[0].tolist(), strict=True):
        angles = [age * 50_000 ** (-k / 4) for k in range(4)]
        assert row == pytest.approx([*map(math.sin, angles), *map(math.cos, angles)], abs=1e-6)


def test_tokens_are_ages_then_the_normalised_spectrum():
    spectra = [torch.rand(2, 3, length, 17, dtype=torch.float64) * 5 for length in (7, 20)]
    normal = Normalisation()
    for spectrum in spectra:
        normal.add(spectrum)
    mean, variance = normal.result()
    flat = torch.cat([spectrum.flatten(0, 2) for spectrum in spectra])
    torch.testing.assert_close(mean.double(), flat.mean(0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(variance.double(), flat.var(0, correction=0), rtol=1e-5, atol=1e-6)
    ages = torch.arange(7, 0, -1).expand(2, 1, 7)
    tokens = token_features(ages, spectra[0], mean, variance)
    assert tokens.shape == (2, 3, 7, 25)
    assert torch.equal(tokens[..., :8], age_features(ages).expand(2, 3, 7, 8))
    torch.testing.assert_close(tokens[..., 8:], ((spectra[0].float() - mean) / variance.sqrt()))


def test_nothing_seen_is_no_normalisation():
    with pytest.raises(MemxError, match="no features were collected"):
        Normalisation().result()
