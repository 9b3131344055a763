"""Budgets that heads of all layers share, while reading and after it, against sets of tokens kept by plain Python."""

from dataclasses import replace

import pytest
import torch
from memx import namm
from memx.errors import MemxError
from memx.namm.policies.base import Rule
from memx.namm.policies.heuristics import Full, Random, make_policy
from memx.namm.policies.panel import PolicyBatch, PolicySlots
from memx.namm.policies.shares import HeadShares

from ..hosts import left_padded, make_host, prompts

EVERY, BUDGET, LAYERS, HEADS = 32, 0.3, 2, 2
SHARES = HeadShares((0.3,), (((0.9, 0.1), (0.05, 0.15)),))
RULES = [
    Rule(budget=BUDGET, allocation="global"),
    Rule(budget=BUDGET, allocation="global", first=3, newest=2),
    Rule(budget=BUDGET, allocation="table", shares=SHARES),
    Rule(budget=BUDGET, allocation="layer_max"),
    Rule(budget=12, allocation="global"),  # tokens of each head
    Rule(budget=12, allocation="table", shares=SHARES),
    Rule(budget=12, allocation="layer_max"),
]


@pytest.fixture(scope="module")
def host():
    """In float64, so that no choice hangs on rounding."""
    return make_host().double()


@pytest.fixture(scope="module")
def windowed():
    return make_host("gemma").double()  # its first layer sees 40 tokens


def lots(layer, head, tokens):
    """What the policy random thinks of each token."""
    positions = torch.arange(tokens).expand(1, HEADS, -1)
    attention = namm.policies.base.Attention(*[torch.empty(0)] * 4, positions, None, 1.0, None)
    nothing = torch.empty(0)
    view = namm.policies.base.View(layer, attention, nothing, nothing, torch.tensor([tokens]), None)
    return Random(BUDGET, seed=3).scores(view)[0, head]


def kept_by_hand(rule, tokens):
    """The tokens that each layer and head holds after reading so many, {(layer, head): positions}."""
    scores = {(layer, head): lots(layer, head, tokens) for layer in range(LAYERS) for head in range(HEADS)}
    held = {place: [] for place in scores}
    for now in range(1, tokens + 1):
        for kept in held.values():
            kept.append(now - 1)
        if now % EVERY:
            continue

        def rank(place, p, now=now):
            preferred = p < rule.first or now - 1 - p < rule.newest
            return (p == now - 1, preferred, float(scores[place][p]))

        ranked = sorted(((rank(place, p), place, p) for place, kept in held.items() for p in kept), reverse=True)
        share = rule.budget if rule.budget <= 1 else min(rule.budget, now) / now
        total = int(share * HEADS * LAYERS * now + 1e-6)
        limits = limits_by_hand(rule, [place for _, place, _ in ranked], total, now)
        held = {place: [] for place in held}
        for place, p in [(place, p) for _, place, p in ranked]:
            if len(held[place]) < limits[place]:
                held[place].append(p)
        held = {place: sorted(kept) for place, kept in held.items()}
    return held


def limits_by_hand(rule, ranked, total, now):
    """How many each head may keep; ranked: the head of each token, the best first."""
    if rule.allocation == "global":
        return {place: ranked[:total].count(place) for place in {*ranked}}
    if rule.allocation == "table":
        rooms = SHARES.rooms(rule.budget, now)
        return {(layer, head): rooms[layer][head] for layer, head in {*ranked}}
    fullest, counts = [0] * LAYERS, dict.fromkeys(ranked, 0)
    for place in ranked:
        counts[place] += 1
        if counts[place] > fullest[place[0]]:
            if HEADS * (sum(fullest) + 1) > total:
                break
            fullest[place[0]] += 1
    return {(layer, head): fullest[layer] for layer, head in counts}


def held(cache, sequence=0):
    return {
        (number, head): positions.tolist()
        for number, layer in enumerate(cache.layers)
        for head, positions in enumerate(layer.state.held(sequence))
    }


def read(model, policy, *pieces, **given):
    with namm.attach(model, policy) as attached:
        cache = attached.new_cache()
        for ids in pieces:
            model(ids, past_key_values=cache, **given)
    return cache


@torch.no_grad()
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.allocation} {rule.budget:g} {rule.first}")
def test_heads_share_the_budget_of_all_layers(host, rule):
    """In one piece, in pieces, and in a padded batch."""
    short, long = prompts(75, 110)
    policy = Random(rule.budget, EVERY, 3, rule=rule)
    wanted = kept_by_hand(rule, 110)
    assert held(read(host, policy, long[None])) == wanted
    assert held(read(host, policy, long[None, :50], long[None, 50:51], long[None, 51:])) == wanted
    ids, mask = left_padded([short, long])
    batch = read(host, policy, ids, attention_mask=mask)
    assert held(batch, 1) == wanted
    assert held(batch, 0) == kept_by_hand(rule, 75)
    if rule.allocation != "layer_max":
        assert len({len(kept) for kept in wanted.values()}) > 1


@torch.no_grad()
@pytest.mark.parametrize("rule", RULES[:4:2], ids=lambda rule: rule.allocation)
def test_a_layer_with_a_window_counts_with_what_it_can_hold(windowed, rule):
    (ids,) = prompts(160)
    cache = read(windowed, Random(0.4, EVERY, 3, rule=rule), ids[None])
    reach = [None if layer.state.window is None else 39 for layer in cache.layers]
    assert sum(map(len, held(cache).values())) == int(0.4 * 2 * 160 + 2 * 39)
    assert None in reach and all(len(kept) <= 39 for (n, _), kept in held(cache).items() if reach[n])


@torch.no_grad()
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.allocation} {rule.budget:g} {rule.first}")
def test_a_choice_after_reading_is_that_of_each_policy_alone(host, rule):
    """Where the last tokens are not observed yet, they stay within the budget."""
    (ids,) = prompts(96)
    found = [make_policy(name, budget=rule.budget, every=96) for name in ("random", "h2o", "knorm")]
    found = [replace(policy, rule=rule) for policy in found]
    slots = PolicySlots((*found,))
    forked = read(host, slots, ids[None]).fork(PolicyBatch(slots, (*found,)), len(found), continue_with=Full())
    for number, policy in enumerate(found):
        assert held(forked, number) == held(read(host, policy, ids[None])), policy.name
    later = read(host, slots, prompts(100)[0][None]).fork(
        PolicyBatch(slots, (*found,)), len(found), continue_with=Full()
    )
    for number in range(len(found)):
        kept = held(later, number)
        assert all({96, 97, 98, 99} <= set(positions) for positions in kept.values())
        total = sum(map(len, kept.values()))
        most = 48 if rule.budget == 12 else 120
        assert total == most or (rule.allocation == "layer_max" and total <= most)


@torch.no_grad()
def test_a_table_of_another_model_is_refused(host):
    rule = Rule(allocation="table", shares=HeadShares((0.5,), (((0.5, 0.5, 0.5),),)))
    with pytest.raises(MemxError, match="1 layers, 3 heads, the model 2 layers, 4 heads"):
        read(host, Random(0.5, EVERY, rule=rule), prompts(64)[0][None])
