"""sparse_adam against torch.optim.Adam and a dense simulation, in fp64; rounding of half-precision tables."""

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.benchmarks.ops.correctness import check_op
from memx.kernels.embedding_bag import BagGradient, row_gradient
from memx.kernels.sparse_adam import (
    OP,
    make_state,
    sparse_adam,
    sparse_adam_reference,
    sparse_sgd,
    stochastic_round,
)

SLOTS, WIDTH = 3000, 5  # more touched rows than one chunk
BETAS = (0.9, 0.95)


def draw_table(dtype=torch.float64):
    return torch.randn(SLOTS, WIDTH, generator=torch.Generator().manual_seed(0), dtype=dtype)


def draw_gradient(seed, *, every=False, dtype=torch.float64, high=SLOTS):
    """A gradient of some rows, or of every row, of the table."""
    generator = torch.Generator().manual_seed(seed)
    slots = torch.randint(high, (1200, 3), generator=generator)
    if every:
        slots = torch.cat([slots, torch.randperm(SLOTS, generator=generator).view(-1, 3)])
    weights = torch.randn(slots.shape, generator=generator, dtype=dtype)
    return row_gradient([BagGradient(slots, weights, torch.randn(len(slots), WIDTH, generator=generator, dtype=dtype))])


@pytest.mark.parametrize("betas", [BETAS, (0.0, 0.99)])
def test_equals_dense_adam_when_every_row_is_hit(betas):
    values, other = draw_table(), draw_table().requires_grad_()
    state = make_state(values, moments=torch.float64, momentum=betas[0] > 0)
    adam = torch.optim.Adam([other], lr=0.01, betas=betas)
    for step in range(1, 8):
        gradient = draw_gradient(step, every=True)
        sparse_adam(values, gradient, state, step=step, lr=0.01, betas=betas, scale=0.5)
        other.grad = 0.5 * gradient.dense(SLOTS)
        adam.step()
        torch.testing.assert_close(values, other.detach(), rtol=0, atol=1e-12)
    assert (state.last == 7).all()


@pytest.mark.parametrize("second_moment", ["full", "row"])
def test_equals_its_reference_and_leaves_other_rows_alone(second_moment):
    values = draw_table()
    state = make_state(values, second_moment=second_moment, moments=torch.float64)
    state.second = state.second.double()
    expected = [x.clone() for x in (values, state.momentum, state.second, state.last, state.gap)]
    for step in range(1, 7):
        gradient = draw_gradient(step, high=SLOTS - 500)
        touched = torch.zeros(SLOTS, dtype=torch.bool)
        touched[gradient.rows] = True
        held = (values, state.momentum, state.second, state.last, state.gap)
        before = [x.clone() for x in held]
        table, *rest = expected
        expected = sparse_adam_reference(table, gradient.dense(SLOTS), touched, *rest, step=step, lr=0.01, betas=BETAS)
        sparse_adam(values, gradient, state, step=step, lr=0.01, betas=BETAS)
        for got, exact, old in zip(held, expected, before, strict=True):
            torch.testing.assert_close(got, exact, rtol=0, atol=1e-12)
            assert torch.equal(got[~touched], old[~touched])
    assert (state.last[SLOTS - 500 :] == 0).all() and torch.equal(values[SLOTS - 500 :], draw_table()[SLOTS - 500 :])


def test_moments_catch_up_as_if_absent_gradients_had_been_zero():
    values = draw_table()
    state = make_state(values, moments=torch.float64)
    momentum, second = torch.zeros_like(values), torch.zeros_like(values)
    for step in range(1, 9):
        gradient = draw_gradient(step)
        dense = gradient.dense(SLOTS)
        momentum = BETAS[0] * momentum + (1 - BETAS[0]) * dense
        second = BETAS[1] * second + (1 - BETAS[1]) * dense.square()
        sparse_adam(values, gradient, state, step=step, lr=0.01, betas=BETAS)
        torch.testing.assert_close(state.momentum[gradient.rows], momentum[gradient.rows], rtol=0, atol=1e-12)
        torch.testing.assert_close(state.second[gradient.rows], second[gradient.rows], rtol=0, atol=1e-12)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.4])
def test_follows_dense_adam_where_rows_are_hit_now_and_then(share):
    """Rows hit with a probability of `share` a step travel as dense Adam carries them, coasting included."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(SLOTS, WIDTH, generator=generator, dtype=torch.float64)
    values, other = torch.zeros_like(target), torch.zeros_like(target).requires_grad_()
    state = make_state(values, moments=torch.float64)
    adam = torch.optim.Adam([other], lr=0.01, betas=BETAS)
    for step in range(1, 201):
        rows = (torch.rand(SLOTS, generator=generator) < share).nonzero()
        noise = torch.randn(len(rows), WIDTH, generator=generator, dtype=torch.float64)
        weights = torch.ones(len(rows), 1, dtype=torch.float64)
        gradient = row_gradient([BagGradient(rows, weights, values[rows[:, 0]] - target[rows[:, 0]] + 0.5 * noise)])
        other.grad = torch.zeros_like(target)
        other.grad[rows[:, 0]] = other.detach()[rows[:, 0]] - target[rows[:, 0]] + 0.5 * noise
        sparse_adam(values, gradient, state, step=step, lr=0.01, betas=BETAS)
        adam.step()
    travelled = other.detach().abs().mean()
    assert (values - other.detach()).abs().mean() < 0.15 * travelled  # without coasting: 0.9


def test_sgd():
    values, gradient = draw_table(), draw_gradient(1)
    sparse_sgd(values, gradient, lr=0.1, scale=0.5)
    torch.testing.assert_close(values, draw_table() - 0.05 * gradient.dense(SLOTS), rtol=0, atol=1e-12)


def test_no_touched_rows_change_nothing():
    values = draw_table()
    state = make_state(values, moments=torch.float64)
    empty = row_gradient(
        [BagGradient(torch.empty(0, 3, dtype=torch.long), torch.empty(0, 3), torch.empty(0, WIDTH).double())]
    )
    sparse_adam(values, empty, state, step=1, lr=0.1, betas=BETAS)
    assert torch.equal(values, draw_table())


@pytest.mark.parametrize("second_moment", ["full", "row"])
def test_bits_do_not_depend_on_the_number_of_threads(second_moment):
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            values = draw_table(torch.float32)
            state = make_state(values, second_moment=second_moment)
            for step in (1, 2):
                gradient = draw_gradient(step, dtype=torch.float32)
                sparse_adam(values, gradient, state, step=step, lr=0.01, betas=BETAS)
            seen.append((values, *state.tensors().values()))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))


def test_states():
    table = draw_table(torch.bfloat16)
    state = make_state(table, second_moment="row", moments=torch.bfloat16, masters=True, momentum=False)
    assert set(state.tensors()) == {"second", "last", "gap", "master"}
    assert state.second.shape == (SLOTS,) and state.second.dtype == torch.float32
    assert torch.equal(state.master, table.float())
    full = make_state(table, moments=torch.bfloat16)
    assert full.momentum.dtype == full.second.dtype == torch.bfloat16 and full.master is None
    assert full.second.shape == table.shape and (full.second == 0).all() and full.last.dtype == torch.int32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_masters_follow_the_float32_table(dtype):
    values = draw_table(dtype)
    exact = values.float()
    state, wide = make_state(values, masters=True), make_state(exact)
    for step in range(1, 5):
        gradient = draw_gradient(step, dtype=torch.float32)
        sparse_adam(values, gradient, state, step=step, lr=1e-4, betas=BETAS)
        sparse_adam(exact, gradient, wide, step=step, lr=1e-4, betas=BETAS)
    torch.testing.assert_close(state.master, exact, rtol=0, atol=1e-6)
    assert torch.equal(values, state.master.to(dtype))


def test_a_float16_table_needs_masters():
    values = draw_table(torch.float16)
    with pytest.raises(MemxError, match="needs master weights"):
        sparse_adam(values, draw_gradient(1, dtype=torch.float32), make_state(values), step=1, lr=1e-4, betas=BETAS)


def test_bfloat16_moments_stay_near_float32_ones():
    tables = [draw_table(torch.float32), draw_table(torch.float32)]
    for values, moments in zip(tables, (torch.float32, torch.bfloat16), strict=True):
        state = make_state(values, moments=moments)
        for step in range(1, 6):
            gradient = draw_gradient(step, dtype=torch.float32)
            sparse_adam(values, gradient, state, step=step, lr=0.01, betas=BETAS)
    moved = tables[0] - draw_table(torch.float32)
    assert (tables[1] - tables[0]).norm() < 0.01 * moved.norm()


def test_small_updates_of_a_bfloat16_table_add_up_only_when_rounded_stochastically():
    slots, ones = torch.arange(500)[:, None], torch.ones(500, 1)
    gradient = row_gradient([BagGradient(slots, ones, torch.full((500, 8), 2e-5))])
    values = torch.full((500, 8), 0.03).bfloat16()
    start = values.float().mean()
    plain, generator = values.clone(), torch.Generator().manual_seed(0)
    for _ in range(50):
        sparse_sgd(values, gradient, lr=1.0, generator=generator)
        plain = (plain.float() - 2e-5).bfloat16()
    assert torch.equal(plain.float(), torch.full((500, 8), float(start)))
    assert (start - values.float().mean()).item() == pytest.approx(50 * 2e-5, rel=0.05)


def test_stochastic_rounding_is_unbiased_and_repeats():
    x = torch.tensor([0.03, -0.7, 1.001, 3e-5, -1e20]).repeat(20_000, 1)
    rounded, again = (stochastic_round(x, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(rounded, again) and not torch.equal(rounded, stochastic_round(x))
    ulp = x[0].abs().log2().floor().exp2() / 2**7
    assert ((rounded.double() - x.double()).abs() < ulp).all()
    bias = (rounded.double() - x.double()).mean(0).abs()
    assert (bias < 4 * 0.5 * ulp / 20_000**0.5).all()


def test_stochastic_rounding_keeps_what_needs_no_rounding():
    x = torch.randn(1000).bfloat16().float()
    x[:5] = torch.tensor([torch.inf, -torch.inf, 0.0, -0.0, 1e-40]).bfloat16().float()
    assert torch.equal(stochastic_round(x).float(), x)
    assert stochastic_round(torch.full((100,), torch.nan)).isnan().all()


@pytest.mark.parametrize("impl", OP.available(torch.device("cpu")))
@pytest.mark.parametrize("full", [0, 1])
def test_passes_its_own_check(full, impl):
    shape = {"B": 256, "K": 16, "N": 2**12, "D": 64, "full": full}
    error, limit = check_op(OP, shape, torch.float32, torch.device("cpu"), impl)
    assert error <= limit


def test_says_what_is_not_there():
    values = draw_table()
    with pytest.raises(MemxError, match="sparse_adam has no implementation 'triton'"):
        sparse_adam(values, draw_gradient(0), make_state(values), step=1, lr=0.1, betas=BETAS, impl="triton")
