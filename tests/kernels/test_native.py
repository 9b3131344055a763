"""The compiled loops: the same as torch's ops to rounding, the same bits for any number of threads, and optional."""

import os
import subprocess
import sys

import pytest
import torch
from memx.errors import MemxError
from memx.kernels import native
from memx.kernels.embedding_bag import BagGradient, embedding_bag, row_gradient
from memx.kernels.native import build
from memx.kernels.native import rows as loops
from memx.kernels.product_topk import product_topk
from memx.kernels.sparse_adam import make_state, sparse_adam

needs_compiler = pytest.mark.skipif(native.library() is None, reason="no C compiler here")
SLOTS, BETAS = 400, (0.9, 0.95)
WIDTHS = (1, 7, 63, 256)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def draw_bags(width, seed=0):
    """700 bags of 3 rows out of the first 300, some many times, some never; weights and what comes back to them."""
    slots = torch.randint(SLOTS - 100, (700, 3), generator=torch.Generator().manual_seed(seed))
    return BagGradient(slots, draw(700, 3, seed=seed + 1), draw(700, width, seed=seed + 2))


def adam_steps(width, impl, **settings):
    """Values and state after 5 steps of different rows."""
    values = draw(SLOTS, width)
    state = make_state(values, **settings)
    for step in range(1, 6):
        gradient = row_gradient([draw_bags(width, seed=10 * step)])
        sparse_adam(values, gradient, state, step=step, lr=0.01, betas=BETAS, scale=0.7, impl=impl)
    return {"values": values, **state.tensors()}


@needs_compiler
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("second_moment", ["full", "row"])
@pytest.mark.parametrize("moments", [torch.float32, torch.bfloat16])
def test_adam_equals_torchs_ops(width, second_moment, moments):
    settings = {"second_moment": second_moment, "moments": moments}
    ours, theirs = adam_steps(width, "native", **settings), adam_steps(width, "torch", **settings)
    for name, tensor in ours.items():
        own, other = tensor.float(), theirs[name].float()
        if moments == torch.float32:
            torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6, msg=name)
            continue
        # sums that end halfway between two bfloat16 may be rounded either way, now and then
        close = torch.isclose(own, other, rtol=1e-5, atol=1e-6)
        assert tensor.dtype == theirs[name].dtype and (~close).float().mean() < 2e-3, name
        assert (own - other).abs().max() <= 2**-8 * other.abs().max(), name
    untouched = slice(SLOTS - 100, None)
    assert torch.equal(ours["values"][untouched], draw(SLOTS, width)[untouched])
    assert not ours["momentum"][untouched].any() and not ours["second"][untouched].any()


@needs_compiler
def test_adam_is_refused_where_it_does_not_fit():
    values = draw(SLOTS, 4).double()
    with pytest.raises(MemxError, match="native step takes float32"):
        gradient = row_gradient([draw_bags(4)])
        sparse_adam(values, gradient, make_state(values), step=1, lr=0.1, betas=BETAS, impl="native")
    assert torch.equal(values, draw(SLOTS, 4).double())


def layer_outcome(width, kept=3, keys=8):
    """Every gradient of a lookup and a bag over it."""
    query, halves = draw(700, 2, 4).requires_grad_(), draw(2, 2, keys, 2, seed=1).requires_grad_()
    values = draw(keys * keys, width, seed=2).requires_grad_()
    scores, slots = product_topk(query, halves, kept)
    y = embedding_bag(values, slots.flatten(1), scores.softmax(-1).flatten(1))
    return torch.autograd.grad((y * draw(700, width, seed=3)).sum(), (query, halves, values))


@needs_compiler
@pytest.mark.parametrize("width", WIDTHS)
def test_gradients_equal_torchs_ops(width, monkeypatch):
    called = set()
    for name in ("dots", "scatter", "lookup_backward"):
        loop = getattr(native, name)
        monkeypatch.setattr(native, name, lambda *given, loop=loop, name=name: called.add(name) or loop(*given))
    ours = layer_outcome(width)
    assert called == {"dots", "scatter", "lookup_backward"}  # or this test compares one way with itself
    monkeypatch.setattr(loops, "library", lambda: None)
    theirs = layer_outcome(width)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


@needs_compiler
def test_any_number_of_threads_gives_the_same_bits():
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append([*layer_outcome(64), *adam_steps(64, "native").values()])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@needs_compiler
def test_the_library_is_compiled_once(tmp_path):
    compiler = [os.environ.get("CC", "cc")]
    path = build.compiled(compiler, tmp_path / "new")
    made = path.stat().st_mtime_ns
    assert build.compiled(compiler, tmp_path / "new") == path and path.stat().st_mtime_ns == made
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("setting", [{"CC": "no-such-compiler"}, {"CC": "false"}, {"MEMX_NATIVE": "0"}])
def test_without_a_compiler_torchs_ops_stand_in(setting, tmp_path):
    code = (
        "import torch; from memx.kernels import native; from memx.kernels.sparse_adam import OP;"
        "assert native.library() is None and OP.available(torch.device('cpu')) == ('torch',);"
        "OP.run(*OP.make_inputs({'B': 8, 'K': 2, 'N': 16, 'D': 4, 'full': 1}, torch.float32, torch.device('cpu'),"
        "torch.Generator().manual_seed(0)))"
    )
    environment = {**os.environ, "MEMX_CACHE": str(tmp_path), **setting}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
