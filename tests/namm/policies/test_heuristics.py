"""The rivals of a NAMM against their definitions written out: every probability of every head, token by token."""

from __future__ import annotations

from dataclasses import replace
from math import inf, log2, sqrt

import pytest
import torch
from memx import namm
from memx.errors import MemxError
from memx.namm import POLICIES, make_policy
from memx.namm.policies.attention_rivals import H2O, TOVA, SnapKV
from memx.namm.policies.base import Attention, Block, Rule, View
from memx.namm.policies.heuristics import Full, Knorm, Random, Recency, StreamingLLM
from memx.namm.policies.keep import kept_tokens
from transformers import AttentionInterface, DynamicCache

from ..features_reference import expected_attention, record
from ..hosts import left_padded, make_host, prompts

EVERY, BUDGET, VOTERS = 32, 0.25, 8
BUDGETED = [name for name in POLICIES if name != "full"]
HOSTS = {"llama": {}, "mistral": {"sliding_window": 64}}


@pytest.fixture(scope="module", params=HOSTS)
def host(request):
    """A host in float64, so that no choice hangs on rounding."""
    return make_host(request.param, **HOSTS[request.param]).double()


def policy_of(name):
    """A policy that runs often, and leaves SnapKV something to choose."""
    return SnapKV(BUDGET, EVERY, window=VOTERS) if name == "snapkv" else make_policy(name, budget=BUDGET, every=EVERY)


def held(cache, sequence=0):
    """The tokens that each head of each layer holds."""
    return [[positions.tolist() for positions in layer.state.held(sequence)] for layer in cache.layers]


# -- a host whose attention is written out, and the published rules by loops over its tokens


class WrittenOut:
    """A host that keeps all keys and probabilities, and strikes out the tokens that a rule no longer wants."""

    def __init__(self, host, window):
        self.host, self.window = host, window
        self.cache = DynamicCache()
        self.alive: dict[int, list[set[int]]] = {}  # by layer: tokens of each key-value head
        self.probabilities: dict[int, list[torch.Tensor]] = {}  # by layer: [Hq, n] of each query
        self.keys: dict[int, torch.Tensor] = {}  # by layer: [H, n, d]

    def attention(self, module, query, key, value, mask, scaling=None, **kwargs):
        layer, (new, heads, tokens) = module.layer_idx, (query.shape[2], *key.shape[1:3])
        alive = self.alive.setdefault(layer, [set() for _ in range(heads)])
        rows = self.probabilities.setdefault(layer, [])
        self.keys[layer], out = key[0], torch.zeros_like(query)
        for own in range(tokens - new, tokens):
            row = torch.zeros(query.shape[1], tokens, dtype=torch.float64)
            for h in range(query.shape[1]):
                head = h // (query.shape[1] // heads)
                alive[head].add(own)
                seen = [t for t in alive[head] if t <= own and (self.window is None or own - t < self.window)]
                here = query[0, h, own - tokens + new]
                row[h, seen] = torch.softmax(key[0, head, seen] @ here * scaling, 0)
                out[0, h, own - tokens + new] = row[h, seen] @ value[0, head, seen]
            rows.append(row)
        return out.transpose(1, 2), None

    @torch.no_grad()
    def run(self, ids, every, budget, worth):
        """Logits of a prompt; worth(rule) -> {token: worth} decides what stays whenever `every` tokens have come."""
        AttentionInterface.register("written_out", self.attention)
        usual, self.host.config._attn_implementation = self.host.config._attn_implementation, "written_out"
        logits, seen = [], 0
        try:
            for part in ids.split(every, 1):
                logits.append(self.host(part, past_key_values=self.cache).logits)
                seen += part.shape[1]
                if part.shape[1] == every:
                    for layer in self.alive:
                        self.evict(layer, seen, int(seen * budget), worth)
        finally:
            self.host.config._attn_implementation = usual
        return torch.cat(logits, 1)

    def evict(self, layer, seen, room, worth):
        rows = torch.stack(
            [torch.nn.functional.pad(row, (0, seen - row.shape[1])) for row in self.probabilities[layer]]
        )
        rows = rows.permute(1, 0, 2)  # [Hq, queries, tokens]
        for head, alive in enumerate(self.alive[layer]):
            group = rows.unflatten(0, (len(self.alive[layer]), -1))[head]
            seen_last = [t for t in alive if self.window is None or t >= seen - self.window]
            keys = self.keys[layer][head].tolist()
            worths = worth(sorted(alive), rows.tolist(), group.tolist(), keys, room, seen_last)
            worths[seen - 1] = inf
            near = [t for t in alive if self.window is None or t > seen - self.window or t == seen - 1]
            self.alive[layer][head] = set(sorted(near, key=lambda t: (worths[t], t))[-room:])


def recency(alive, heads, group, keys, room, seen):
    return {t: float(t) for t in alive}


def streamingllm(alive, heads, group, keys, room, seen):
    return {t: inf if t < 4 else t for t in alive}


def h2o(alive, heads, group, keys, room, seen):
    worths = {t: sum(row[t] for head in group for row in head) / len(group) for t in alive}
    newest = alive[-(room - room // 2) :]
    return worths | dict.fromkeys(newest, inf)


def knorm(alive, heads, group, keys, room, seen):
    return {t: -round(log2(sqrt(sum(x * x for x in keys[t]))), 3) for t in alive}


def tova(alive, heads, group, keys, room, seen):
    return {t: sum(head[-1][t] for head in heads) / len(heads) for t in alive}


def snapkv(alive, heads, group, keys, room, seen):
    older, own = alive[:-VOTERS], alive[-VOTERS:]
    votes = [sum(row[t] for head in group for row in head[-VOTERS:]) for t in older]
    pooled = [max(votes[max(0, i - 3) : i + 4]) for i in range(len(votes))]
    return dict(zip(older, pooled, strict=True)) | dict.fromkeys(own, inf)


def keydiff(alive, heads, group, keys, room, seen):
    norms = {t: sqrt(sum(x * x for x in keys[t])) for t in alive}
    mean = [sum(keys[t][i] / norms[t] for t in seen) for i in range(len(keys[0]))]
    return {t: -sum(x * m for x, m in zip(keys[t], mean, strict=True)) / norms[t] for t in alive}


RULES = [recency, streamingllm, h2o, knorm, tova, snapkv, keydiff]


@torch.no_grad()
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_policy_keeps_what_its_definition_keeps(host, rule):
    ids = prompts(5 * EVERY + 9)[0][None]
    with namm.attach(host, policy_of(rule.__name__)) as attached:
        logits = host(ids).logits
    reference = WrittenOut(host, attached.windows[0])
    wanted = reference.run(ids, EVERY, BUDGET, rule)
    assert held(attached.cache) == [[sorted(head) for head in layer] for layer in reference.alive.values()]
    torch.testing.assert_close(logits, wanted, rtol=1e-8, atol=1e-8)


@torch.no_grad()
def test_expected_attention_keeps_what_is_expected_to_be_attended_to():
    host, (ids,) = make_host("qwen").double(), prompts(3 * EVERY)
    with namm.attach(host, make_policy("expected_attention", budget=BUDGET, every=3 * EVERY)) as attached:
        host(ids[None])
    for layer, tokens in zip(record(host, ids), held(attached.cache), strict=True):
        worth = expected_attention(layer) * layer.value.norm(dim=-1)
        worth[:, :4] = inf
        worth[:, -1] = inf
        assert tokens == [sorted(head.topk(int(3 * EVERY * BUDGET)).indices.tolist()) for head in worth]


# -- the same choice however a prompt comes


@torch.no_grad()
@pytest.mark.parametrize("name", BUDGETED)
def test_chunks_of_any_length_keep_the_same(host, name):
    ids = prompts(128)[0][None]
    with namm.attach(host, policy_of(name)) as attached:
        kept = []
        for lengths in ([128], [24, 50, 32, 22], [1] * 128):
            cache = attached.new_cache()
            for part in ids.split(lengths, 1):
                host(part, past_key_values=cache)
            kept.append(held(cache))
    assert kept[0] == kept[1] == kept[2]


@torch.no_grad()
@pytest.mark.parametrize("name", BUDGETED)
def test_a_sequence_keeps_the_same_alone_and_in_a_left_padded_batch(host, name):
    rows = prompts(137, 105, 64, 5)
    ids, mask = left_padded(rows)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    with namm.attach(host, policy_of(name)) as attached:
        host(ids, attention_mask=mask, position_ids=positions)
        together = attached.cache
        for number, row in enumerate(rows):
            host(row[None])
            assert held(together, number) == held(attached.cache)


@torch.no_grad()
@pytest.mark.parametrize("name", BUDGETED)
def test_every_head_keeps_exactly_its_budget(name):
    host, ids = make_host(), prompts(1024)[0][None]
    for budget, room in ((0.75, 768), (0.25, 256), (0.125, 128), (100, 100)):
        with namm.attach(host, make_policy(name, budget=budget)) as attached:
            host(ids)
        assert [layer.state.counts for layer in attached.cache.layers] == [[[room] * 2]] * 2
        assert all(layer.keys.shape[2] == room for layer in attached.cache.layers)


@torch.no_grad()
@pytest.mark.parametrize("allocation", ["equal", "global"])
@pytest.mark.parametrize("name", BUDGETED)
def test_a_budget_in_tokens_is_held_while_the_model_writes(name, allocation):
    """After each multiple of the interval a head holds the budget, or the mean of all heads does, and then grows."""
    host, ids, every, budget = make_host(), prompts(40)[0][None], 32, 48
    policy = make_policy(name, budget=budget, every=every, rule=Rule(allocation=allocation))
    with namm.attach(host, policy) as attached:
        cache = attached.new_cache()
        host(ids, past_key_values=cache)
        for seen in range(41, 140):
            host(ids[:, :1], past_key_values=cache)
            counts = [count for layer in cache.layers for heads in layer.state.counts for count in heads]
            wanted = seen if seen < 64 else budget + seen % every
            assert sum(counts) == wanted * len(counts) and (allocation == "global" or set(counts) == {wanted})


@torch.no_grad()
@pytest.mark.parametrize("name", POLICIES)
def test_a_full_budget_generates_what_the_plain_model_does(name):
    host, (ids, mask) = make_host(), left_padded(prompts(70, 50))
    wanted = host.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False)
    with namm.attach(host, make_policy(name, budget=1.0, every=EVERY)):
        assert torch.equal(host.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False), wanted)


# -- scores of layers made by hand


def make_view(counts, seen, *, queries=4, budget=0.5, layer=0, seed=0):
    """Sequences with `seen` tokens each, heads that hold so many of them, counts [B][H], and junk in other slots."""
    generator = torch.Generator().manual_seed(seed)
    heads, slots = len(counts[0]), max(c for held in counts for c in held)
    exists = torch.arange(slots) >= slots - torch.tensor(counts)[..., None]
    positions = torch.zeros(len(counts), heads, slots, dtype=torch.int32)
    for b, (held, total) in enumerate(zip(counts, seen, strict=True)):
        for h, count in enumerate(held):  # the newest are there, those before have gaps
            older = torch.randperm(total - queries, generator=generator)[: count - queries].sort().values
            positions[b, h, slots - count :] = torch.cat([older, torch.arange(total - queries, total)])
    query = torch.randn(len(counts), 2 * heads, queries, 8, generator=generator)
    key = torch.randn(len(counts), heads, slots, 8, generator=generator)
    key = torch.where(exists[..., None], key, 100.0)
    own = torch.tensor(seen)[:, None, None] + torch.arange(-queries, 0)
    met = Attention(query, key, torch.empty(0), own, positions, exists, 8**-0.5, None)
    total = torch.tensor(seen)
    state = torch.rand(*key.shape[:3], 1, generator=generator)
    room = (total * budget).long()
    return View(layer, replace(met, lse=met.log_sum_exp()), key, state, total, room)


def sequence(view, b):
    """One sequence of a view alone, without the slots that it leaves unused."""
    used = slice(int((~view.recent.exists[b]).sum(-1).min()), None)
    met, one = view.recent, slice(b, b + 1)
    alone = Attention(
        met.query[one], met.key[one, :, used], met.lse[one], met.own[one], met.positions[one, :, used],
        met.exists[one, :, used], met.scale, met.window,
    )  # fmt: skip
    return View(view.layer, alone, view.value[one, :, used], view.state[one, :, used], view.seen[one], view.room[one])


COUNTS, SEEN = [[30, 22], [17, 12]], [40, 21]


@pytest.mark.parametrize(
    "policy",
    [
        Full(), Random(0.5), Recency(0.5), StreamingLLM(0.5), H2O(0.5), Knorm(0.5), SnapKV(0.5, window=4),
        SnapKV(0.5, window=4, kernel=5, pooling="avg"), TOVA(0.5),
    ],
    ids=lambda policy: policy.name,
)  # fmt: skip
def test_scores_never_look_at_other_sequences_or_empty_slots(policy):
    view = make_view(COUNTS, SEEN)
    scores = policy.scores(view)
    assert scores.shape == view.key.shape[:3]
    for b in range(2):
        alone = policy.scores(sequence(view, b))
        exists = view.recent.exists[b]
        torch.testing.assert_close(scores[b][exists], alone[0][sequence(view, b).recent.exists[0]])
        assert not scores[b][exists].isnan().any()


@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_snapkv_pools_older_tokens_that_exist_alone(pooling):
    view = make_view(COUNTS, SEEN)
    scores = SnapKV(0.5, window=4, pooling=pooling).scores(view)
    for b in range(2):
        for h in range(2):
            count, key = COUNTS[b][h], view.key[b, h].double()
            votes = [0.0] * (count - 4)
            for head in (2 * h, 2 * h + 1):
                for q in range(4):
                    seen = key[-count : key.shape[0] - 3 + q]
                    row = torch.softmax(seen @ view.recent.query[b, head, q].double() * 8**-0.5, 0)
                    votes = [v + row[i].item() / 8 for i, v in enumerate(votes)]
            around = [votes[max(0, i - 3) : i + 4] for i in range(len(votes))]
            pooled = [max(x) if pooling == "max" else sum(x) / 7 for x in around]
            wanted = torch.tensor([*pooled, *[inf] * 4])
            torch.testing.assert_close(scores[b, h, -count:], wanted, rtol=1e-4, atol=1e-6)


def test_h2o_gives_half_of_the_room_to_the_newest_and_half_to_heavy_hitters():
    view = make_view([[40]], [40], budget=0.25)  # room for 10
    view.state[0, 0, [3, 11, 12, 20, 33, 38]] += torch.tensor([5.0, 4.0, 3.0, 2.0, 1.5, 9.0])[:, None]
    kept = kept_tokens(H2O(0.25).scores(view), budget=view.room)
    assert kept[0, 0].nonzero().flatten().tolist() == [3, 11, 12, 20, 33, 35, 36, 37, 38, 39]


def test_h2o_adds_up_attention_in_parts():
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 4, 320, 8, generator=generator), torch.randn(2, 2, 350, 8, generator=generator)
    positions = torch.arange(350, dtype=torch.int32).expand(2, 2, 350)
    own = torch.arange(30, 350).expand(2, 1, 320)
    met = Attention(query, key, torch.empty(0), own, positions, None, 8**-0.5, None)
    met = replace(met, lse=met.log_sum_exp())
    state = torch.rand(2, 2, 30, 1, generator=generator)
    got = H2O(0.5).observe(Block(met, met.last(0), state))
    scores = query.double().unflatten(1, (2, 2)) @ key.double()[:, :, None].mT * 8**-0.5
    future = torch.arange(350) > torch.arange(30, 350)[:, None]
    wanted = scores.masked_fill(future, -inf).softmax(-1).mean(2).sum(2)
    wanted[..., :30] += state[..., 0]
    torch.testing.assert_close(got, wanted[..., None].float(), rtol=1e-5, atol=1e-5)


def test_streamingllm_keeps_the_first_sinks_of_a_room_too_small_for_all():
    kept = kept_tokens(StreamingLLM(0.1).scores(make_view([[30]], [30], budget=0.1)), budget=torch.tensor([3]))
    assert kept[0, 0].nonzero().flatten().tolist() == [0, 1, 29]


def test_tova_scores_heads_alike_and_by_the_last_query_alone():
    view = make_view([[20, 20]], [20], queries=1)
    scores = TOVA(0.5).scores(view)
    row = view.recent.query[0, :, 0].double().unflatten(0, (2, 2)) @ view.key[0].double().mT * 8**-0.5
    assert torch.equal(scores[0, 0], scores[0, 1])
    torch.testing.assert_close(scores[0, 0], row.softmax(-1).mean((0, 1)).float())


def test_tova_averages_a_token_over_the_heads_that_hold_it():
    view = make_view([[12, 17], [20, 9]], [40, 30], queries=1)
    scores, rows, met = TOVA(0.5).scores(view), view.recent.rows()[:, :, 0], view.recent
    for b in range(2):
        by_token = {}
        for h in range(2):
            for slot in met.exists[b, h].nonzero().flatten().tolist():
                by_token.setdefault(int(met.positions[b, h, slot]), []).append((h, slot))
        assert {1, 2} == {len(places) for places in by_token.values()}
        for places in by_token.values():
            mean = sum(float(rows[b, h, slot]) for h, slot in places) / len(places)
            assert [float(scores[b, h, slot]) for h, slot in places] == pytest.approx([mean] * len(places), rel=1e-5)


def test_knorm_lets_the_newer_stay_among_keys_that_differ_by_their_rotation():
    angles = torch.arange(64)[:, None] * 10.0 ** -torch.arange(4)
    one = torch.randn(8, generator=torch.Generator().manual_seed(0))
    first, second = one[:4] * angles.cos() - one[4:] * angles.sin(), one[4:] * angles.cos() + one[:4] * angles.sin()
    view = make_view([[64]], [64])
    view = replace(view, recent=replace(view.recent, key=torch.cat([first, second], -1)[None, None]))
    assert view.key.norm(dim=-1).unique().numel() > 1
    kept = kept_tokens(Knorm(0.5).scores(view), budget=view.room)
    assert kept[0, 0].nonzero().flatten().tolist() == list(range(32, 64))


# -- the lottery


def test_random_keeps_a_uniform_share_of_the_whole_sequence():
    host, ids = make_host(), prompts(1024)[0][None]
    with torch.no_grad(), namm.attach(host, Random(0.5, EVERY)) as attached:
        host(ids)
    for layer in held(attached.cache):
        for head in layer:
            quarters = torch.tensor(head).div(256, rounding_mode="floor").bincount(minlength=4)
            assert ((quarters - 128).abs() < 40).all(), quarters


def test_random_lots_differ_by_seed_layer_and_head_and_never_else():
    view = make_view([[20, 20]], [20])
    view = replace(view, recent=replace(view.recent, positions=torch.arange(20, dtype=torch.int32).expand(1, 2, 20)))
    random_state = torch.get_rng_state()
    draws = [Random(0.5, seed=seed).scores(replace(view, layer=layer))[0] for seed in (0, 1) for layer in (0, 1)]
    lots = torch.cat(draws)  # [seeds * layers * heads, 20]
    assert lots.unique().numel() == lots.numel() and lots.min() >= 0 and lots.max() < 1
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(Random(0.5).scores(view), Random(0.5).scores(view))
    # fixed for good: a run that is repeated elsewhere evicts the same
    assert (lots[0, :3] * 2**24).int().tolist() == [10502363, 7582868, 3993144]


# -- by name


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_made_by_its_name(name):
    policy = make_policy(name, budget=None if name == "full" else 0.5, every=128, seed=7)
    assert (policy.name, policy.rule.budget) == (name, None if name == "full" else 0.5)
    assert policy.every == (None if name == "full" else 128)
    assert name != "random" or policy.seed == 7


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (dict(name="snapvk", budget=0.5), "unknown policy 'snapvk'", "did you mean 'snapkv'?"),
        (dict(name="H2O", budget=0.5), "unknown policy 'H2O'", "did you mean 'h2o'?"),
        (dict(name="quest", budget=0.5), "unknown policy 'quest'", "full, random, recency"),
        (dict(name="tova"), "tova needs a budget", "a share of the cache"),
        (dict(name="kvzip", budget=0.5), "kvzip reads a text twice", "memx eval-namm"),
        (dict(name="full", budget=0.5), "full keeps every token", "remove the budget"),
        (dict(name="h2o", budget=0.0), r"budget must be in \(0, 1\] or a whole number of tokens, got 0", "0.5 or 512"),
        (dict(name="h2o", budget=float("nan")), r"a whole number of tokens, got nan", "0.5 or 512"),
        (dict(name="snapkv", budget=2.5), r"a whole number of tokens, got 2.5", "0.5 or 512"),
        (dict(name="recency", budget=0.5, every=100), "multiple of 16 tokens, got 100", "use e.g. 16"),
    ],
)
def test_what_does_not_fit_is_one_line_and_a_hint(arguments, message, hint):
    with pytest.raises(MemxError, match=message) as error:
        make_policy(**arguments)
    assert hint in error.value.hint
