"""Heads that hold different numbers of tokens: what is stored, and that all goes on as if they were padded."""

from copy import deepcopy

import pytest
import torch
from memx import namm
from memx.namm.cache import attention
from memx.namm.cache.ragged import RaggedTokens
from memx.namm.cache.views import attention_of, visible
from memx.namm.policies.base import Rule
from memx.namm.policies.heuristics import Full, Random
from memx.namm.policies.network import Namm

from ..hosts import left_padded, make_host, prompts

# its scores are lots by layer, head and position, so that no choice hangs on rounding
UNEVEN = Random(0.3, 32, 3, rule=Rule(budget=0.3, allocation="global"))


@pytest.fixture(scope="module")
def host():
    return make_host()


def by_padding(query, state, scale):
    """What `attend_ragged` stands for: attention over padded heads, under a mask."""
    whole = state.padded()
    output, _ = attention.attend(query, whole.keys, whole.values, visible(whole), scale)
    scores = attention_of(whole, slice(None), query, None, whole.slots(slice(None)))
    return output, scores.lse


def read(host, ids, policy=UNEVEN, *, mask=None, steps=3):
    """Read a prompt and a few tokens after it, one by one: the cache and all logits."""
    with torch.no_grad(), namm.attach(host, policy) as attached:
        cache = attached.new_cache()
        logits = [host(ids, past_key_values=cache, attention_mask=mask).logits]
        for step in range(steps):
            logits.append(host(torch.full((len(ids), 1), 5 + step), past_key_values=cache).logits)
    return cache, torch.cat(logits, 1)


def flat(counts=((2, 0), (1, 3))):
    """Tokens of two sequences with two heads, and where they lay among four slots."""
    mask = torch.arange(4) >= 4 - torch.tensor(counts)[..., None]
    tensors = [
        torch.randn(2, 2, 4, 3),
        torch.randn(2, 2, 4, 3),
        torch.arange(16).view(2, 2, 4),
        torch.randn(2, 2, 4, 1),
    ]
    return RaggedTokens.of([list(heads) for heads in counts], mask, *tensors), mask, tensors


def test_tokens_are_stored_without_padding_and_found_again():
    tokens, mask, tensors = flat()
    assert tokens.offsets.tolist() == [0, 2, 2, 3, 6] and tokens.most == 3 and len(tokens.keys) == 6
    for name, tensor in zip(("keys", "values", "positions", "policy_state"), tensors, strict=True):
        assert torch.equal(
            tokens.padded(name), tensor[:, :, 1:] * mask[:, :, 1:].view(2, 2, 3, *[1] * (tensor.dim() - 3))
        )
    assert tokens.of_head("positions", 1, 1).tolist() == [13, 14, 15]
    other = tokens.select([1, 1, 0])
    assert other.counts == [[1, 3], [1, 3], [2, 0]] and other.offsets.tolist() == [0, 1, 4, 5, 8, 10, 10]
    assert torch.equal(other.padded("keys"), tokens.padded("keys")[[1, 1, 0]])
    tokens.set_state(tensors[3][:, :, 1:] + 1)
    assert torch.equal(tokens.padded("policy_state"), (tensors[3][:, :, 1:] + 1) * mask[:, :, 1:, None])


def test_copies_of_one_sequence_are_gathered_like_sequences_of_their_own():
    _, mask, tensors = flat()
    one = [tensor[:1].expand(2, *tensor.shape[1:]) for tensor in tensors]
    counts = mask.sum(-1).tolist()
    shared = RaggedTokens.of(counts, mask, *one)
    written = RaggedTokens.of(counts, mask, *(tensor.contiguous() for tensor in one))
    assert torch.equal(shared.keys, written.keys) and torch.equal(shared.positions, written.positions)


CASES = [("llama", torch.float32), ("llama", torch.float64), ("llama", torch.bfloat16), ("gemma", torch.float32)]


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=str)
def test_attention_is_that_of_padded_heads(monkeypatch, name, dtype):
    """A padded batch, with and without a window, in pieces and one token after another, over a later eviction."""
    host = make_host(name).to(dtype)
    ids, mask = left_padded(prompts(92, 70))
    cache, logits = read(host, ids, mask=mask, steps=6)
    assert all(layer.state.ragged is not None for layer in cache.layers)
    monkeypatch.setattr(attention, "attend_ragged", by_padding)
    padded, wanted = read(host, ids, mask=mask, steps=6)
    assert [layer.state.counts for layer in padded.layers] == [layer.state.counts for layer in cache.layers]
    error = {torch.float32: 1e-4, torch.float64: 1e-9, torch.bfloat16: 0.2}[dtype]
    torch.testing.assert_close(logits, wanted, rtol=0, atol=error)


def test_without_torchs_log_sum_exp_slots_are_heads_of_one_length(monkeypatch, host):
    (ids,) = prompts(80)
    _, wanted = read(host, ids[None])
    monkeypatch.setattr(attention, "_has_lse", lambda *_: False)
    torch.testing.assert_close(read(host, ids[None])[1], wanted, rtol=1e-4, atol=1e-4)


def test_bytes_are_those_of_the_tokens_that_heads_hold(host):
    (ids,) = prompts(100)
    cache, _ = read(host, ids[None], steps=4)
    for size, layer in zip(cache.sizes(), cache.layers, strict=True):
        state, (counts,) = layer.state, layer.state.counts
        parts = [state] if state.ragged is None else [state, state.ragged]
        tensors = [tensor for part in parts for tensor in (part.keys, part.values)]
        assert size.kv_bytes == sum(x.untyped_storage().nbytes() for x in tensors) == 2 * sum(counts) * 8 * 4
        assert size.heads == tuple(counts) and size.slots == max(counts) and size.tokens == sum(counts) / 2
        assert state.ragged is None or state.keys.shape[2] == 8  # those since the last eviction, at 96
    assert any(layer.state.ragged is not None for layer in cache.layers)
    assert sum(sum(layer.state.counts[0]) for layer in cache.layers) == int(0.3 * 4 * 96) + 4 * 8


def test_equal_heads_stay_in_slots_to_the_bit(host):
    (ids,) = prompts(100)
    cache, _ = read(host, ids[None], Random(0.3, 32, 3))
    assert all(layer.state.ragged is None and layer.state.padded() is layer.state for layer in cache.layers)


def test_sequences_are_reordered_repeated_and_copied(host):
    ids, mask = left_padded(prompts(92, 70))
    cache, _ = read(host, ids, mask=mask, steps=0)
    held = [[layer.state.held(b) for layer in cache.layers] for b in (0, 1)]
    twin = deepcopy(cache)
    cache.batch_repeat_interleave(2)
    cache.reorder_cache(torch.tensor([2, 1, 1, 0]))
    for number, b in enumerate((1, 0, 0, 0)):
        for layer, wanted in zip(cache.layers, held[b], strict=True):
            assert all(torch.equal(*pair) for pair in zip(layer.state.held(number), wanted, strict=True))
    with torch.no_grad(), namm.attach(host, UNEVEN):
        mine = host(torch.full((4, 1), 7), past_key_values=cache).logits
        theirs = host(torch.full((2, 1), 7), past_key_values=twin).logits
    torch.testing.assert_close(mine, theirs[[1, 0, 0, 0]], rtol=1e-4, atol=1e-4)


def test_beams_write_what_they_write_with_padded_heads(monkeypatch, host):
    ids, mask = left_padded(prompts(92, 70))
    given = dict(attention_mask=mask, num_beams=3, max_new_tokens=8, do_sample=False)
    found = []
    for _ in range(2):
        with namm.attach(host, UNEVEN):
            found.append(host.generate(ids, **given))
        monkeypatch.setattr(attention, "attend_ragged", by_padding)
    assert torch.equal(*found)


def test_a_fork_of_ragged_heads_goes_on_for_itself(host):
    (ids,) = prompts(96)
    cache, _ = read(host, ids[None], steps=0)
    before = [layer.state.counts for layer in cache.layers]
    full, tighter = Full(), Random(0.1, 32, 3, rule=Rule(budget=0.1, allocation="global"))
    fork = cache.fork(tighter, 2, continue_with=full)
    assert sum(sum(layer.state.counts[1]) for layer in fork.layers) == int(0.1 * 4 * 96)
    assert [layer.state.counts for layer in cache.layers] == before
    with torch.no_grad(), namm.attach(host, full):
        logits = host(torch.full((2, 1), 7), past_key_values=fork).logits
    assert torch.equal(logits[0], logits[1]) and logits.isfinite().all()


def test_a_policy_observes_ragged_heads_as_padded_ones():
    """A NAMM whose threshold keeps other numbers of each head: the same in one piece, in pieces and token by token."""
    host, (ids,) = make_host().double(), prompts(131)
    parameters = 0.3 * torch.randn(4172, generator=torch.Generator().manual_seed(3))
    policy = Namm(parameters, rule=Rule(grouping="per_head"), every=32)
    caches = []
    for sizes in ([131], [40, 50, 41], [70, *[1] * 61]):
        with torch.no_grad(), namm.attach(host, policy) as attached:
            caches.append(attached.new_cache())
            for part in ids[None].split(sizes, 1):
                host(part, past_key_values=caches[-1])
    assert any(layer.state.ragged is not None for layer in caches[0].layers)
    for layer in (layer for cache in caches for layer in cache.layers):
        for part in (layer.state, layer.state.ragged) if layer.state.ragged else ():
            for tensor in (part.keys, part.values, part.positions, part.policy_state):
                assert tensor.untyped_storage().nbytes() == tensor.nbytes  # no view of what was freed
    for other in caches[1:]:
        for one, layer in zip(caches[0].layers, other.layers, strict=True):
            assert all(torch.equal(*pair) for pair in zip(one.state.held(0), layer.state.held(0), strict=True))
            mine, theirs = (state.padded().policy_state for state in (one.state, layer.state))
            both = min(mine.shape[2], theirs.shape[2])  # the last tokens wait for a whole hop
            torch.testing.assert_close(mine[:, :, :both], theirs[:, :, :both], rtol=1e-6, atol=1e-7)
