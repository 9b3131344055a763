"""A population in one batch against its members one after another: online, and after a context that is cached once."""

from dataclasses import replace

import pytest
import torch
from memx import namm
from memx.namm.evolution.population import ObserveOnly, Population
from memx.namm.policies.base import Rule
from memx.namm.policies.heuristics import Full, make_policy
from memx.namm.policies.network import Namm

from ..hosts import make_host, prompts

EVERY = 64


def members(count=3, seed=0):
    return 0.3 * torch.randn(count, 4172, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["llama", "mistral", "gpt2"])
def host(request):
    """A host in float64, so that no choice hangs on its rounding."""
    return make_host(request.param).double()


@torch.no_grad()
@pytest.mark.parametrize("rule", [Rule(), Rule(budget=0.4), Rule(grouping="per_head")], ids=str)
def test_online_members_do_as_they_do_alone(host, rule):
    ids, one = prompts(200)[0][None], Namm(rule=rule, every=EVERY)
    population = Population(members(), one)
    with namm.attach(host, ObserveOnly()) as attached:
        host(ids[:, :EVERY])
        shared = attached.cache
    cache = shared.fork(population, 3, continue_with=population)
    assert shared.seen == [EVERY] and len(shared.layers[0].keys) == 1  # the branch left it alone
    with namm.attach(host, population) as attached:
        logits = host(ids[:, EVERY:].expand(3, -1), past_key_values=cache).logits
    for number, parameters in enumerate(population.parameters):
        with namm.attach(host, replace(one, parameters=parameters)) as attached:
            alone = host(ids).logits[:, EVERY:]
            assert torch.equal(attached.cache.holds(), cache.holds(number))
        torch.testing.assert_close(logits[number], alone[0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("length", [160, 171])
def test_members_choose_from_a_context_that_was_cached_once(host, length):
    context, question = prompts(length, 9)
    one, never = Namm(rule=Rule(budget=0.5), every=EVERY), Full()
    with namm.attach(host, ObserveOnly()) as attached:
        host(context[None])
        shared = attached.cache
    cache = shared.fork(Population(members(), one), 3, continue_with=never)
    with namm.attach(host, never):
        together = host(question[None].expand(3, -1), past_key_values=cache).logits
        for number, parameters in enumerate(members()):
            own = shared.fork(replace(one, parameters=parameters), continue_with=never)
            assert torch.equal(own.holds()[:, :length], cache.holds(number)[:, :length])
            for layer in own.layers:
                counts, window, room = layer.state.counts, layer.state.window, length // 2
                assert counts[0] == [room if window is None else min(room, window - 1)] * len(counts[0])
            alone = host(question[None], past_key_values=own).logits
            torch.testing.assert_close(together[number], alone[0], rtol=1e-4, atol=1e-4)
    # where a run of the policy is due at that length anyway, it is the same run
    if length % 32 == 0:
        with namm.attach(host, replace(one, parameters=members()[0], every=length)) as attached:
            host(context[None])
            assert torch.equal(attached.cache.holds(), shared.fork(
                replace(one, parameters=members()[0]), continue_with=never).holds())  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("name", ["random", "recency", "streamingllm", "h2o", "knorm", "tova", "snapkv"])
def test_rivals_choose_from_a_cached_context_too(name):
    host, (context,) = make_host().double(), prompts(192)
    policy = make_policy(name, budget=0.5, every=192)
    with namm.attach(host, policy) as attached:
        host(context[None])
        wanted = attached.cache.holds()
    with namm.attach(host, replace(policy, every=None)) as attached:
        host(context[None])
        branched = attached.cache.fork(policy, continue_with=Full())
    assert torch.equal(branched.holds(), wanted) and attached.cache.holds().min() == 1
