"""Virtual addresses are a permutation; sums by block equal a loop over slots."""

import pytest
import torch
from memx.kernels.embedding_bag import row_gradient
from memx.memory_layers.tables.values import MemoryValues
from memx.memory_layers.ultramem import expansion
from memx.memory_layers.ultramem.expansion import block_bags, gathered, scattered


@pytest.mark.parametrize("n", [1, 2, 3, 8, 33, 64])
def test_addresses_are_a_permutation_and_its_inverse_undoes_it(n):
    slots = torch.arange(n * n)
    addresses = scattered(slots, n)
    assert torch.equal(addresses.sort().values, slots)
    assert torch.equal(gathered(addresses, n), slots)


def test_addresses_never_change():
    """A saved model means the same rows for ever: these numbers were written down once."""
    assert scattered(torch.arange(5), 64).tolist() == EXPECTED


EXPECTED = [3194, 1998, 918, 3970, 3851]


def test_large_tables_need_no_table_of_the_permutation():
    n = 1 << 14
    slots = torch.randint(n * n, (1000,), generator=torch.Generator().manual_seed(0))
    addresses = scattered(slots.unique(), n)
    assert len(addresses.unique()) == len(slots.unique()) and addresses.min() >= 0 and addresses.max() < n * n
    assert torch.equal(gathered(addresses, n), slots.unique())


@pytest.mark.parametrize("stride", [1, 64])
def test_slots_that_share_a_half_key_are_spread_evenly(stride):
    """In each of four blocks about a fourth of a row or column of the grid of slots; sums of random numbers."""
    n, blocks = 64, 4
    for start in range(5):
        slots = start * (n if stride == 1 else 1) + stride * torch.arange(n)
        counts = torch.bincount(scattered(slots, n) // (n * n // blocks), minlength=blocks)
        assert counts.min() >= 5 and counts.max() <= 30
        assert len((scattered(slots, n) % (n * n // blocks)).unique()) > 0.9 * n


def inputs(tokens=6, kept=9, blocks=4, dtype=torch.float64):
    torch.manual_seed(1)
    values = MemoryValues(20, 5).to(dtype)
    rows, block = torch.randint(20, (tokens, kept)), torch.randint(blocks, (tokens, kept))
    return values, rows, block, torch.randn(tokens, kept, dtype=dtype, requires_grad=True)


def by_loop(values, rows, block, weights, blocks):
    out = torch.zeros(len(rows), blocks, values.shape[1], dtype=weights.dtype)
    for t in range(len(rows)):
        for k in range(rows.shape[1]):
            out[t, block[t, k]] = out[t, block[t, k]] + weights[t, k] * values.weight[rows[t, k]]
    return out


@pytest.mark.parametrize("blocks", [1, 2, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_sums_by_block_equal_a_loop(blocks, masked, monkeypatch):
    if masked:  # as on a GPU and for sharded tables
        monkeypatch.setattr("memx.memory_layers.ultramem.expansion._lengths_may_vary", lambda *given: False)
    values, rows, block, weights = inputs(blocks=blocks)
    ours, exact = block_bags(values, rows, block, weights, blocks), by_loop(values, rows, block, weights, blocks)
    torch.testing.assert_close(ours, exact, rtol=0, atol=1e-13)
    direction = torch.randn_like(exact)
    of = (values.weight, weights)
    for gradient, expected in zip(
        torch.autograd.grad((ours * direction).sum(), of),
        torch.autograd.grad((exact * direction).sum(), of),
        strict=True,
    ):
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-13)


def test_the_gradient_buffer_holds_what_a_dense_gradient_would():
    values, rows, block, weights = inputs()
    block_bags(values, rows, block, weights, 4).square().sum().backward()
    dense, values.weight.grad = values.weight.grad, None
    values.gradient_buffer = []
    block_bags(values, rows, block, weights, 4).square().sum().backward()
    assert values.weight.grad is None
    gradient = row_gradient(values.pop_gradients())
    torch.testing.assert_close(gradient.dense(20), dense, rtol=0, atol=1e-13)
    assert torch.equal(gradient.rows, rows.unique())  # padding names no rows of its own


def test_no_tokens_and_one_block_for_all():
    values, rows, block, weights = inputs()
    assert block_bags(values, rows[:0], block[:0], weights[:0], 4).shape == (0, 4, 5)
    alone = block_bags(values, rows, torch.full_like(block, 2), weights, 4)
    torch.testing.assert_close(alone[:, 2], values.bag(rows, weights))
    assert alone[:, [0, 1, 3]].abs().sum() == 0


def test_bags_are_no_longer_than_the_fullest_block(monkeypatch):
    values, rows, block, weights = inputs(kept=40)
    seen = []
    monkeypatch.setattr(values, "bag", lambda r, w: seen.append(r.shape) or torch.zeros(len(r), 5))
    block_bags(values, rows, block, weights, 4)
    most = max(torch.bincount(b, minlength=4).max().item() for b in block)
    assert seen == [(6 * 4, most)] and most < 40
    assert expansion._ROUNDS == 4
