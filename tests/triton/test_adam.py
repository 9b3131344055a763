"""The sparse Adam kernel against the step by torch's ops, over several steps with rows that come and go."""

import pytest
import torch
from memx.experiments.benchmarks.ops.correctness import check_op
from memx.kernels.embedding_bag import BagGradient, row_gradient
from memx.kernels.sparse_adam import OP, make_state, sparse_adam

ROWS, WIDTH = 24, 37


def gradients(device, steps, dtype, width=WIDTH):
    """For each step the use of a table: a hot row, many rows touched now and then."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(steps):
        slots = torch.randint(ROWS - 2, (44, 4), generator=generator)  # the last two rows are never touched
        slots[:39] = 7
        weights, dout = torch.randn(44, 4, generator=generator), torch.randn(44, width, generator=generator)
        yield BagGradient(slots.to(device), weights.to(device, dtype), dout.to(device, dtype))


def trained(device, impl, steps=3, width=WIDTH, dtype=torch.float32, betas=(0.9, 0.95), **settings):
    values = torch.randn(ROWS, width, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    state = make_state(values, **settings)
    for step, part in enumerate(gradients(device, steps, dtype, width), start=1):
        grouped = row_gradient([part], size=ROWS, impl=impl)
        sparse_adam(values, grouped, state, step=step, lr=1e-2, betas=betas, scale=0.5, impl=impl)
    return {"values": values, **state.tensors()}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"second_moment": "row"},
        {"second_moment": "row", "moments": torch.bfloat16},
        {"momentum": False, "betas": (0.0, 0.95)},
        {"dtype": torch.bfloat16, "masters": True},
        {"dtype": torch.float16, "masters": True, "second_moment": "row"},
        {"dtype": torch.float64},
        {"width": 1},
        {"width": 600, "second_moment": "row", "steps": 2},
    ],
    ids=str,
)
def test_steps_equal_those_of_torch(settings, device):
    kernel, plain = trained(device, "triton", **settings), trained(device, "torch", **settings)
    for name, tensor in plain.items():
        coarse = tensor.dtype in (torch.bfloat16, torch.float16)
        bound = {"rtol": 2**-7, "atol": 1e-6} if coarse else {}  # one step of a half-precision moment
        torch.testing.assert_close(kernel[name], tensor, **bound, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "shape",
    [{"B": 3, "K": 5, "N": 7, "D": 63, "full": 1}, {"B": 90, "K": 4, "N": 2, "D": 5, "full": 0},
     {"B": 2, "K": 3, "N": 1, "D": 1000, "full": 0}],
    ids=str,
)  # fmt: skip
def test_is_as_near_the_definition_in_float64_as_torch_is(shape, dtype, device):
    error, limit = check_op(OP, shape, dtype, device, "triton")
    assert error <= limit


def test_untouched_rows_keep_every_bit(device):
    before = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1)).to(device)
    after = trained(device, "triton")
    assert torch.equal(after["values"][-2:], before[-2:]) and not torch.equal(after["values"][:-2], before[:-2])
    assert (after["momentum"][-2:] == 0).all() and (after["last"][-2:] == 0).all()


def test_the_same_bits_come_out_each_time(device):
    one, other = (trained(device, "triton", second_moment="row") for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_bfloat16_without_masters_is_right_on_average(device):
    """A step far below the spacing of bfloat16 moves the mean by what it should, the same for the same generator."""
    values = torch.ones(4, 4096, dtype=torch.bfloat16, device=device)
    part = BagGradient(torch.zeros(1, 1, dtype=torch.long, device=device), torch.ones(1, 1, device=device),
                       torch.full((1, 4096), -1.0, device=device))  # fmt: skip
    results = []
    for seed in (0, 0, 1):
        table, generator = values.clone(), torch.Generator(device).manual_seed(seed)
        grouped = row_gradient([part], size=4, impl="triton")
        sparse_adam(table, grouped, make_state(table), step=1, lr=2**-10, betas=(0.0, 0.9), generator=generator,
                    impl="triton")  # fmt: skip
        results.append(table)
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
    assert set(results[0][0].tolist()) == {1.0, 1 + 2**-7} and (results[0][1:] == 1).all()
    share = (results[0][0] > 1).double().mean()
    assert abs(share - 2**-3) < 5 * (2**-3 / 4096) ** 0.5


def test_a_gradient_of_nothing_changes_nothing(device):
    values, empty = torch.ones(3, 5, device=device), torch.zeros(2, 0, device=device)
    part = BagGradient(empty.long(), empty, torch.ones(2, 5, device=device))
    sparse_adam(
        values,
        row_gradient([part], impl="triton"),
        make_state(values),
        step=1,
        lr=1.0,
        betas=(0.9, 0.99),
        impl="triton",
    )
    assert (values == 1).all()
