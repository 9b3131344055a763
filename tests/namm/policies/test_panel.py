"""Policies that watch one reading together against each of them alone: the same tokens, after one choice and online."""

from dataclasses import replace

import pytest
import torch
from memx import namm
from memx.namm.policies.base import Rule
from memx.namm.policies.heuristics import POLICIES, Full, make_policy
from memx.namm.policies.network import Namm
from memx.namm.policies.panel import PolicyBatch, PolicySlots, keep_all

from ..hosts import make_host, prompts

EVERY, BUDGET = 64, 0.3
RIVALS = [name for name in POLICIES if name != "full"]


def scorer(seed, rule):
    parameters = 0.3 * torch.randn(4172, generator=torch.Generator().manual_seed(seed))
    return Namm(parameters, variance=torch.full((17,), 0.01), rule=rule, every=EVERY)


def policies(budget=BUDGET, every=EVERY):
    rivals = [make_policy(name, budget=budget, every=every, seed=3) for name in RIVALS]
    return [*rivals, *(replace(scorer(seed, Rule(budget=budget)), every=every) for seed in (0, 1))]


HOSTS = {"llama": {}, "mistral": {"sliding_window": 150}, "gpt2": {}}


@pytest.fixture(scope="module", params=HOSTS)
def host(request):
    """A host in float64, so that no choice hangs on rounding."""
    return make_host(request.param, **HOSTS[request.param]).double()


def held(cache, sequence=0):
    """The tokens that each head of each layer holds."""
    return [positions.tolist() for layer in cache.layers for positions in layer.state.held(sequence)]


def read(host, ids, policy):
    with namm.attach(host, policy) as attached:
        host(ids[None])
    return attached.cache


@torch.no_grad()
@pytest.mark.parametrize("rule", ["budget", "threshold"])
def test_each_member_chooses_what_it_would_alone(host, rule):
    (context,) = prompts(192)
    found = policies(every=192)
    if rule == "threshold":
        found = [replace(one, rule=Rule(grouping="per_head")) for one in found[-2:]]
    seats = PolicySlots((*policies(), scorer(5, Rule())))
    panel = PolicyBatch(seats, tuple(found))
    assert seats.width == 18 and seats.context == 32
    shared = read(host, context, seats)
    before = held(shared)
    cache = shared.fork(panel, len(found), continue_with=Full())
    for number, policy in enumerate(found):
        alone = read(host, context, policy)
        assert held(cache, number) == held(alone), policy.name
        assert [layer.state.counts[number] for layer in cache.layers] == [
            layer.state.counts[0] for layer in alone.layers
        ]
    different = {str(held(cache, number)) for number in range(len(found))}
    sinks_are_out_of_sight = rule == "budget" and shared.layers[0].state.window is not None
    assert len(different) == len(found) - sinks_are_out_of_sight
    assert held(shared) == before and len(shared.layers[0].keys) == 1  # the branch left it alone


@torch.no_grad()
def test_online_each_member_evicts_as_it_would_alone(host):
    (context,) = prompts(64 * 3 + 23)
    found = policies()
    seats = PolicySlots((*found,))
    panel = PolicyBatch(seats, tuple(found))
    shared = read(host, context[:EVERY], seats)
    cache = shared.fork(panel, len(found), continue_with=panel)
    with namm.attach(host, panel) as attached:
        together = host(context[None, EVERY:].expand(len(found), -1), past_key_values=cache).logits
        assert attached.cache is cache
    for number, policy in enumerate(found):
        with namm.attach(host, policy) as attached:
            alone = host(context[None]).logits[:, EVERY:]
        mine, own = cache.holds(number), attached.cache.holds()
        for layer, window in enumerate(layer.state.window for layer in cache.layers):
            near = 0 if window is None else len(context) - window  # what is out of sight may go a little later
            assert torch.equal(mine[layer, near:], own[layer, near:]), policy.name
        torch.testing.assert_close(together[number], alone[0])


@torch.no_grad()
@pytest.mark.parametrize("length", [200, 215])
def test_the_newest_tokens_wait_within_the_budget_of_every_member(length):
    host, (context,) = make_host().double(), prompts(length)
    found, waiting = policies(every=208), length % 16
    cache = read(host, context, PolicySlots((*found,))).fork(
        PolicyBatch(PolicySlots((*found,)), tuple(found)), len(found), continue_with=Full()
    )
    for number in range(len(found)):
        for tokens in held(cache, number):
            assert len(tokens) == int(BUDGET * length) and tokens[-waiting:] == list(range(length - waiting, length))


@torch.no_grad()
def test_sequences_of_a_batch_keep_to_their_member():
    host, found = make_host().double(), policies(every=96)[-3:]
    seats, contexts = PolicySlots((*found,)), torch.stack(prompts(96, 96))
    with namm.attach(host, seats) as attached:
        host(contexts)
    cache = attached.cache.fork(PolicyBatch(seats, tuple(found)), len(found), continue_with=Full())
    for member, policy in enumerate(found):
        for number, context in enumerate(contexts):
            assert held(cache, member * 2 + number) == held(read(host, context, policy)), (policy.name, number)


@torch.no_grad()
def test_a_panel_that_keeps_all_is_the_full_cache():
    host, (context, question) = make_host(), prompts(75, 9)
    for kinds in ((make_policy("recency", budget=0.5),), tuple(policies())):
        cache = read(host, context, PolicySlots(kinds)).fork(keep_all(PolicySlots(kinds)), continue_with=Full())
        assert cache.holds().min() == 1
        with namm.attach(host, cache.policy):
            told = host(question[None], past_key_values=cache).logits
        torch.testing.assert_close(
            told, host(torch.cat([context, question])[None]).logits[:, 75:], rtol=1e-4, atol=1e-4
        )


def test_members_under_several_rules_are_no_panel():
    one, other = make_policy("tova", budget=0.5), make_policy("tova", budget=0.25)
    with pytest.raises(AssertionError, match="one rule"):
        PolicyBatch(PolicySlots((one,)), (one, other))
