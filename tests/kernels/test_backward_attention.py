"""The compiled backward attention against its definition in float64; the scorer with it against the scorer on torch."""

import os
import subprocess
import sys

import pytest
import torch
from memx.kernels import native
from memx.namm.policies.scorer import bam_scores

pytestmark = pytest.mark.skipif(native.library() is None, reason="no C compiler here")
LENGTHS = (1, 5, 33, 64, 127, 300)


def draw(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def draw_mask(kind, sequences, length):
    """None, left padding, or tokens at random: of the first sequence none, of the second all but the newest."""
    if kind is None:
        return None
    if kind == "padding":
        return (torch.arange(length) >= torch.arange(sequences)[:, None] * 9).contiguous()
    mask = torch.rand(sequences, length, generator=torch.Generator().manual_seed(7)) < 0.6
    mask[0], mask[1] = False, True
    mask[1, -1] = False
    return mask


def definition(tokens, exists, strict):
    """All T x T weights, in float64."""
    query, key, value = tokens.double().chunk(3, -1)
    place = torch.arange(tokens.shape[1])
    seen = (place > place[:, None]) if strict else (place >= place[:, None])
    seen = seen if exists is None else seen & exists[:, None]
    scores = (query @ key.mT / 32**0.5).masked_fill(~seen, -torch.inf)
    return scores.softmax(-1).nan_to_num(0.0) @ value


def check(lengths, scale=1.0):
    for length in lengths:
        tokens = draw(4, length, 96, seed=length, scale=scale)
        for kind in (None, "padding", "ragged"):
            exists = draw_mask(kind, 4, length)
            for strict in (False, True):
                read = native.backward_attention(tokens, exists, strict=strict)
                exact = definition(tokens, exists, strict)
                assert read.shape == exact.shape and read.dtype == torch.float32
                torch.testing.assert_close(read.double(), exact, rtol=0, atol=2e-6 * scale**3)


@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_definition(length):
    check([length])


def test_large_scores_in_any_order():
    """Scores of some hundreds, which grow and fall: weights below e^-88 of the largest are zero."""
    check([200], scale=6.0)
    tokens = draw(2, 400, 96)
    for slope in (torch.linspace(1, 40, 400), torch.linspace(40, 1, 400)):
        steep = tokens.clone()
        steep[..., 32:64] *= slope[:, None]
        torch.testing.assert_close(
            native.backward_attention(steep).double(), definition(steep, None, strict=False), rtol=0, atol=1e-4
        )


def test_who_has_nothing_to_read_reads_zero():
    tokens = draw(3, 70, 96)
    nobody = torch.zeros(3, 70, dtype=torch.bool)
    for strict in (False, True):
        assert (native.backward_attention(tokens, nobody, strict=strict) == 0).all()
    assert (native.backward_attention(tokens, strict=True)[:, -1] == 0).all()
    assert torch.equal(native.backward_attention(tokens)[:, -1], tokens[:, -1, 64:])
    assert native.backward_attention(tokens[:, :0]).shape == (3, 0, 32)


def test_what_is_not_finite_stays_with_those_who_see_it():
    tokens = draw(1, 150, 96)
    tokens[0, 100, 40] = torch.nan
    read = native.backward_attention(tokens)
    assert read[0, :101].isnan().all() and read[0, 101:].isfinite().all()


def test_any_number_of_threads_and_sequences_gives_the_same_bits():
    tokens, exists = draw(5, 333, 96), draw_mask("ragged", 5, 333)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            found.append(native.backward_attention(tokens, exists))
    finally:
        torch.set_num_threads(before)
    alone = [native.backward_attention(tokens[i : i + 1], exists[i : i + 1]) for i in range(5)]
    assert all(torch.equal(other, found[0]) for other in (*found[1:], torch.cat(alone)))


def test_tensors_may_lie_as_they_like():
    tokens = draw(3, 50, 96)
    exists = draw_mask("ragged", 3, 50)
    turned = tokens.transpose(0, 1).contiguous().transpose(0, 1)
    expected = native.backward_attention(tokens, exists)
    assert torch.equal(native.backward_attention(turned, exists.mT.contiguous().mT), expected)
    assert torch.equal(native.backward_attention(tokens.double(), exists), expected)


@pytest.fixture
def calls(monkeypatch):
    """The times that the loop was called."""
    found, run = [], native.backward_attention
    monkeypatch.setattr(native, "backward_attention", lambda *x, **more: found.append(1) or run(*x, **more))
    return found


@pytest.mark.parametrize("kind", [None, "padding", "ragged"])
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_the_scorer_is_the_same_on_torch(calls, monkeypatch, kind, strict, own):
    population = draw(3, 4172, scale=0.2)
    tokens = draw(3, 2, 2, 90, 25, seed=1) if own else draw(2, 2, 90, 25, seed=1)
    exists = draw_mask(kind, 2, 90)
    exists = None if exists is None else exists[:, None]
    scores = bam_scores(population, tokens, exists, strict=strict)
    assert len(calls) == 1
    monkeypatch.setattr(native, "available", lambda *_: False)
    expected = bam_scores(population, tokens, exists, strict=strict)
    assert len(calls) == 1 and scores.shape == expected.shape
    there = torch.ones(2, 1, 90, dtype=torch.bool) if exists is None else exists
    there = there.expand_as(scores)
    torch.testing.assert_close(scores[there], expected[there], rtol=2e-5, atol=2e-5)
    assert scores.isfinite().all()


def test_the_scorer_has_gradients(calls):
    parameters, tokens = draw(4172, scale=0.2), draw(1, 2, 40, 25, seed=1)
    for x in (parameters, tokens):
        x.requires_grad_()
        bam_scores(parameters, tokens).sum().backward()
        assert x.grad is not None and x.grad.abs().max() > 0 and not calls
        with torch.no_grad():
            bam_scores(parameters, tokens)
        assert calls.pop()
        x.requires_grad_(False)


CHECKS = """
import importlib.util
spec = importlib.util.spec_from_file_location("checks", {path!r})
checks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(checks)
assert checks.native.library() is not None
checks.check([1, 33, 127])
"""


@pytest.mark.parametrize("vectors", ["8 lanes", pytest.param("4 lanes", marks=pytest.mark.slow)])
def test_processors_of_shorter_vectors(tmp_path, vectors):
    macros = "-U__AVX512F__" if vectors == "8 lanes" else "-U__AVX512F__ -U__AVX__"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "CC": f"{os.environ.get('CC') or 'cc'} {macros}"}
    command = [sys.executable, "-c", CHECKS.format(path=__file__)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
