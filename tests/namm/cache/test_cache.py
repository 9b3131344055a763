"""What the evicting cache holds, against a forward pass written out here with -inf at every evicted key."""

from dataclasses import dataclass, field

import pytest
import torch
from memx import namm
from memx.errors import MemxError
from memx.kernels.attention_spectrogram import attention_spectrogram_reference
from memx.namm.evolution.population import ObserveOnly
from memx.namm.policies.base import Rule
from memx.namm.policies.features.spectrum import ema, spectrogram
from memx.namm.policies.heuristics import Recency, make_policy
from memx.namm.policies.network import Namm
from memx.namm.policies.panel import PolicySlots
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from ..hosts import left_padded, make_host, prompts


@dataclass(frozen=True)
class Watched:
    """A policy, and what it was asked: (layer, tokens seen, positions held before) of each run."""

    policy: Namm
    runs: list = field(default_factory=list)

    def __getattr__(self, name):
        return getattr(self.policy, name)

    def scores(self, view):
        held, exists = view.recent.positions.clone(), view.recent.exists
        held = held if exists is None else held.masked_fill(~exists, -1)  # slots without a token
        self.runs.append((view.layer, view.seen.tolist(), held, view.state.clone()))
        return self.policy.scores(view)


def evolved(rule, every, seed=3, **settings) -> Namm:
    parameters = 0.3 * torch.randn(4172, generator=torch.Generator().manual_seed(seed))
    return Namm(parameters, rule=rule, every=every, **settings)


def held(layer, sequence=0) -> list[set[int]]:
    """The positions that each head of a layer holds."""
    return [set(positions.tolist()) for positions in layer.state.held(sequence)]


@torch.no_grad()
def full_forward(model, ids, gone, positions=None):
    """Logits and attention [layers][H, Q, T] of a Llama in float64; gone[l][h, t]: when each key was evicted."""
    model = model.double()
    x = model.model.embed_tokens(ids)
    length = ids.shape[1]
    positions = torch.arange(length)[None] if positions is None else positions
    cos, sin = model.model.rotary_emb(x, positions)
    now, attention = torch.arange(length), []
    for layer, evicted in zip(model.model.layers, gone, strict=True):
        block = layer.self_attn
        y = layer.input_layernorm(x)
        query, key, value = (
            part(y).unflatten(-1, (-1, block.head_dim)).transpose(1, 2)
            for part in (block.q_proj, block.k_proj, block.v_proj)
        )
        query, key = apply_rotary_pos_emb(query, key, cos, sin)
        group = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        unseen = (now[None, :] > now[:, None]) | (now[:, None] >= evicted[:, None, :])  # [H, Q, T]
        scores = query @ key.mT * block.scaling
        weights = scores.masked_fill(unseen.repeat_interleave(group, 0), -torch.inf).softmax(-1)
        attention.append(weights[0].unflatten(0, (-1, group)).mean(1))
        x = x + block.o_proj((weights @ value).transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    logits = model.lm_head(model.model.norm(x))
    model.float()
    return logits.float(), attention


def times(runs, layers, heads, length, last):
    """When each key was evicted, from what was held at each run and at the end: [layers][H, T]; never is `length`."""
    gone = [torch.full((heads, length), length) for _ in range(layers)]
    before: list = [None] * layers
    for layer, seen, positions, _ in runs:
        if before[layer] is not None:
            _mark(gone[layer], before[layer], positions[0])
        before[layer] = seen[0]
    for layer in range(layers):
        for head, kept in enumerate(held(last[layer])):
            lost = [t for t in range(length) if t not in kept and gone[layer][head, t] == length]
            gone[layer][head, lost] = before[layer]
    return gone


def _mark(gone, when, positions):
    for head, held_now in enumerate(positions):
        kept = set(held_now.tolist())
        lost = [t for t in range(when) if t not in kept and gone[head, t] == gone.shape[1]]
        gone[head, lost] = when


@torch.no_grad()
@pytest.mark.parametrize(
    "rule", [Rule(budget=0.4), Rule(), Rule(grouping="per_head"), Rule(budget=0.4, allocation="global")], ids=str
)
@pytest.mark.parametrize("explicit", [False, True], ids=["defaults", "mask and positions"])
def test_compacted_attention_is_full_attention_with_evicted_keys_at_minus_infinity(rule, explicit):
    host, ids = make_host(), prompts(300)[0][None]
    watched = Watched(evolved(rule, every=64))
    given = dict(attention_mask=torch.ones_like(ids), position_ids=torch.arange(300)[None]) if explicit else {}
    with namm.attach(host, watched) as attached:
        logits = host(ids, **given).logits
        cache = attached.cache
    gone = times(watched.runs, 2, 2, 300, cache.layers)
    assert 0.1 < (gone[1] < 300).float().mean() < 0.9
    wanted, _ = full_forward(host, ids, gone)
    torch.testing.assert_close(logits, wanted, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_next_position_is_the_absolute_count():
    host, ids = make_host(), prompts(131)[0][None]
    watched = Watched(evolved(Rule(budget=0.25), every=64))
    with namm.attach(host, watched) as attached:
        host(ids[:, :130])
        cache = attached.cache
        assert cache.get_seq_length() == 130 and cache.layers[0].keys.shape[2] == 128 // 4 + 2
        after = host(ids[:, 130:], past_key_values=cache).logits
        again = attached.new_cache()
        host(ids[:, :130], past_key_values=again)
        told = host(ids[:, 130:], past_key_values=again, position_ids=torch.tensor([[130]])).logits
    wanted, _ = full_forward(host, ids, times(watched.runs[:4], 2, 2, 131, cache.layers))
    torch.testing.assert_close(after[:, 0], wanted[:, -1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(after, told, rtol=0, atol=0)


@torch.no_grad()
def test_features_are_those_of_the_attention_written_out():
    host, ids = make_host(), prompts(320)[0][None]
    watched = Watched(evolved(Rule(budget=0.4), every=64))
    with namm.attach(host, watched) as attached:
        host(ids)
    gone = times(watched.runs, 2, 2, 320, attached.cache.layers)
    _, attention = full_forward(host, ids, gone)
    for layer, seen, positions, state in watched.runs:
        stop = seen[0]
        # one spectrogram over all queries so far; evicted keys no longer get any attention, and are not looked at
        rows = attention[layer][None, :, :stop, :stop]
        average = ema(spectrogram(rows))[0]
        for head, at in enumerate(positions[0].long()):
            torch.testing.assert_close(state[0, head].double(), average[head, at], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_features_of_published_chunks_and_when_they_run():
    host = make_host(num_hidden_layers=1).double()  # so that no choice hangs on rounding
    ids = prompts(1300)[0][None]
    policy = evolved(Rule(budget=0.5), every=512)
    states = []
    for size in (512, 128, 1300):
        watched = Watched(policy)
        with namm.attach(host, watched) as attached:
            cache = attached.new_cache()
            for part in ids.split(size, 1):
                host(part, past_key_values=cache)
        assert [seen for _, seen, _, _ in watched.runs] == [[512], [1024]]
        assert cache.layers[0].keys.shape[2] == 512 + 276
        states.append((watched.runs, held(cache.layers[0])))
    for runs, kept in states[1:]:
        assert kept == states[0][1]
        for one, other in zip(runs, states[0][0], strict=True):
            torch.testing.assert_close(one[3], other[3], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_an_infinite_threshold_keeps_the_newest_alone_and_minus_infinity_all():
    host, ids = make_host(), prompts(128)[0][None]
    for threshold, slots in ((torch.inf, 1), (-torch.inf, 128)):
        with namm.attach(host, evolved(Rule(threshold=threshold), every=64)) as attached:
            host(ids)
        for layer in attached.cache.layers:
            assert held(layer) == [set(range(128 - slots, 128))] * 2
            assert layer.keys.shape[2] == slots
            assert layer.keys.untyped_storage().nbytes() == 2 * slots * 8 * 4  # no view of what was freed


@torch.no_grad()
def test_protected_spans_stay():
    host, (row,) = make_host(), prompts(192)
    ids, mask = left_padded([row, row[:130]])
    spans = [(0, 5), (60, 80)]
    with namm.attach(host, evolved(Rule(budget=0.25), every=64), protect=spans) as attached:
        host(ids, attention_mask=mask)
    for sequence in (0, 1):
        for layer in attached.cache.layers:
            for kept in held(layer, sequence):
                assert {*range(5), *range(60, 80)} <= kept


@torch.no_grad()
def test_sizes_count_what_is_really_held():
    host, ids = make_host(), prompts(256)[0][None]
    policy = evolved(Rule(grouping="per_head"), every=64)
    with namm.attach(host, policy) as attached:
        host(ids)
    for size, layer in zip(attached.cache.sizes(), attached.cache.layers, strict=True):
        counts = layer.state.counts[0]
        assert size.slots == max(counts) == layer.keys.shape[2] and size.tokens == sum(counts) / 2
        assert size.heads == tuple(counts) and counts[0] != counts[1]
        assert size.kv_bytes == 2 * sum(counts) * 8 * 4  # keys and values of two heads of 8 float32
        at_least = sum(counts) * (17 * 4 + 4)
        assert at_least <= size.bookkeeping_bytes <= at_least + 4 * (8 + 1) * 4 * 31
        kept = layer.state.ragged.keys
        assert kept.untyped_storage().nbytes() == kept.nbytes
    share = attached.cache.holds()
    assert share.shape == (2, 256)
    torch.testing.assert_close(share.sum(1), torch.tensor([s.tokens for s in attached.cache.sizes()]))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["tova", "snapkv", "h2o", "expected_attention", "recent_max", "published"])
def test_a_cache_keeps_the_memory_of_nothing_else_alive(kind):
    """A slice of a prompt's queries would keep all of them in memory."""
    if kind in ("recent_max", "published"):
        features = dict(scorer="linear", features=("log_age", kind)) if kind == "recent_max" else {}
        policy = Namm(rule=Rule(budget=0.5), every=64, **features)
    else:
        policy = make_policy(kind, budget=0.5, every=64)
    host, ids = make_host(), prompts(200)[0][None]
    with namm.attach(host, policy) as attached:
        host(ids[:, :-1])
        check_memory(attached.cache)
        host(ids[:, -1:], past_key_values=attached.cache)
    check_memory(attached.cache)


def check_memory(cache):
    for layer in cache.layers:
        for name in ("recent", "lse", "summary"):
            tensor = getattr(layer.state, name)
            assert tensor is None or tensor.untyped_storage().nbytes() == tensor.nbytes, name


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "dim"), [(torch.float32, 64), (torch.bfloat16, 128), (torch.bfloat16, 64)])
def test_bookkeeping_is_at_most_a_fifth_of_the_keys_and_values(dtype, dim):
    host = make_host(num_hidden_layers=1, head_dim=dim, hidden_size=64).to(dtype)
    with namm.attach(host, evolved(Rule(budget=0.5), every=512)) as attached:
        host(prompts(2048)[0][None])
    (size,) = attached.cache.sizes()
    assert size.slots == 1024 and size.bookkeeping_bytes <= 0.2 * size.kv_bytes


@torch.no_grad()
@pytest.mark.parametrize(("features", "wanted"), [
    (("published",), torch.float16),
    (("published", "received"), torch.float32),  # a sum over many queries exceeds float16
])  # fmt: skip
def test_only_spectra_are_stored_in_half_precision(features, wanted):
    host = make_host(num_hidden_layers=1, head_dim=64, hidden_size=64).to(torch.bfloat16)
    policy = Namm(rule=Rule(budget=0.5), every=64, features=features)
    panel = PolicySlots((policy, namm.make_policy("h2o", budget=0.5, every=64)))
    for one, dtype in ((policy, wanted), (ObserveOnly(namm=policy), wanted), (panel, torch.float32)):
        with namm.attach(host, one) as attached:
            host(prompts(128)[0][None])
        assert attached.cache.layers[0].state.policy_state.dtype == dtype


@torch.no_grad()
def test_the_cache_reorders_repeats_and_forgets():
    host, rows = make_host(), prompts(100, 80)
    ids, mask = left_padded(rows)
    with namm.attach(host, evolved(Rule(budget=0.5), every=64)) as attached:
        host(ids, attention_mask=mask)
        cache = attached.cache
        before = [held(cache.layers[1], b) for b in (0, 1)]
        cache.batch_repeat_interleave(2)
        assert cache.seen == [100, 100, 80, 80]
        cache.batch_select_indices(torch.tensor([3, 0]))
        assert cache.seen == [80, 100] and [held(cache.layers[1], b) for b in (0, 1)] == before[::-1]
        step = torch.tensor([[5], [5]])
        logits = host(step, past_key_values=cache).logits
        alone = attached.new_cache()
        host(rows[1][None], past_key_values=alone)
        # rotary positions of the padded row count its padding: only differences matter
        torch.testing.assert_close(logits[:1], host(step[:1], past_key_values=alone).logits, rtol=1e-4, atol=1e-4)
        cache.reset()
        assert cache.get_seq_length() == 0
        torch.testing.assert_close(host(ids[:1], past_key_values=cache).logits, host(ids[:1]).logits)


def test_a_constant_column_and_an_impulse_have_the_spectrum_of_the_equations():
    """A key that always gets 1 has bins 16, 8 and 0: the window's sum, half of it; an impulse is flat."""
    ones = torch.ones(1, 1, 64, 64).tril()
    frames = spectrogram(ones)[0, 0, :, 0]  # the first key, seen by all queries
    wanted = torch.zeros(17)
    wanted[0], wanted[1] = 16.0, 8.0
    torch.testing.assert_close(frames[1], wanted, rtol=0, atol=1e-5)
    impulse = torch.zeros(1, 1, 64, 64)
    impulse[..., 20, 0] = 1.0
    frames = spectrogram(impulse)[0, 0, :, 0]
    window = torch.hann_window(32, periodic=True)
    torch.testing.assert_close(frames[1], window[20].expand(17), rtol=0, atol=1e-6)
    torch.testing.assert_close(frames[2], window[4].expand(17), rtol=0, atol=1e-6)
    assert frames[0].abs().max() < 1e-6 and frames[3].abs().max() < 1e-6
    assert attention_spectrogram_reference  # the op is held to the same function in its own tests


def test_a_policy_that_looks_further_back_than_it_runs_is_refused():
    class Long(Watched):
        context, every, name = 64, 16, "long"

    with (
        pytest.raises(MemxError, match="needs an eviction interval of at least 64"),
        namm.attach(make_host(), Long(Namm())),
    ):
        pass


def test_room_is_the_share_as_it_is_written():
    assert Rule(budget=0.42).budget_tokens([38_400, 1, 100]) == [16_128, 1, 42] and Rule().budget_tokens([5]) is None
    with pytest.raises(MemxError, match="not a number"):
        Rule(threshold=float("nan"))


def test_a_cache_that_has_read_nothing_repeats_and_clears_without_an_error():
    cache = namm.EvictingCache(Namm(), [None, None])
    cache.batch_repeat_interleave(2)
    cache.reset()
    assert cache.get_seq_length() == 0


@torch.no_grad()
@pytest.mark.parametrize(("value", "message"), [(torch.nan, r"not numbers \(NaN\) in layer 0"), (None, "of shape")])
def test_scores_that_are_no_scores_are_refused_with_the_policy_s_name(value, message):
    @dataclass(frozen=True)
    class Broken(Recency):
        name = "broken"

        def scores(self, view):
            scores = Recency.scores(self, view).float()
            return scores[..., 1:] if value is None else scores.index_fill(2, torch.tensor([3]), value)

    host, (ids,) = make_host(), prompts(70)
    with namm.attach(host, Broken(0.5, every=64)), pytest.raises(MemxError, match=f"policy broken returned.*{message}"):
        host(ids[None])
