"""The model: causal, the same with a cache as without; the full cache is the policy that keeps all, to the bit."""

import numpy as np
import pytest
import torch
from memx import namm
from memx.experiments.decision.acting import play, tokens_of_kinds
from memx.experiments.decision.model import TOKENS

from .tiny_host import double, trained


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return double(trained(tmp_path_factory.mktemp("decision")))


def batch(host, count=2, steps=16):
    draw = torch.Generator().manual_seed(0)

    def of(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    return of(count, steps, 1), of(count, steps, host.tasks.state_size), of(count, steps, 1).tanh()


def test_an_action_depends_on_nothing_later(host):
    returns, states, actions = batch(host)
    before = host.model.actions(returns, states, actions)
    for changed, later in ((returns, 9), (states, 9), (actions, 8)):  # its own step's action comes after it
        kept = changed.clone()
        changed[:, later:] += 1
        after = host.model.actions(returns, states, actions)
        same = before[:, : later if changed is not actions else later + 1]
        assert torch.allclose(same, after[:, : same.shape[1]], atol=1e-12)
        assert not torch.allclose(before[:, 10:], after[:, 10:], atol=1e-6)
        changed.copy_(kept)


def test_acting_step_by_step_is_what_whole_episodes_predict(host):
    seen = []
    tasks, act = host.tasks, host.tasks.act

    def record(action):
        state, reward = tasks.states().copy(), act(action)
        seen.append((state, action.copy(), reward))
        return reward

    tasks.act = record
    try:
        play(host.model, tasks, host.episodes, None, [0, 1], host.target, 5)
    finally:
        tasks.act = act
    states, actions, rewards = (np.stack(one, 1) for one in zip(*seen, strict=True))
    to_come = host.target - np.cumsum(rewards, 1) + rewards
    given = [torch.from_numpy(one) for one in (to_come[..., None], states, actions)]
    with torch.no_grad():
        assert torch.allclose(host.model.actions(*given), given[2], atol=1e-9)


@pytest.mark.parametrize("name", ["recency", "h2o", "knorm"])
def test_keeping_all_is_the_full_cache_to_the_bit(host, name):
    plain = host.measure(None, range(3))
    kept = host.measure(namm.make_policy(name, budget=1, every=16), range(3))
    assert [one.line() for one in kept] == [one.line() for one in plain]


def test_a_namm_that_keeps_all_is_the_full_cache_to_the_bit(host):
    from dataclasses import replace

    universal = namm.load("universal")
    keeps = replace(universal, every=32, rule=namm.Rule(threshold=-torch.inf))
    assert [one.line() for one in host.measure(keeps, range(3))] == [one.line() for one in host.measure(None, range(3))]


def test_what_is_held_is_what_the_budget_says(host):
    (one,) = host.measure(namm.make_policy("recency", budget=0.5, every=32), [0])
    # 47 tokens: the last run at 32 kept 16 of them, and 15 came since
    assert one.held == pytest.approx(31 / 47, abs=1e-5) and one.layers == [one.held] * 2
    newest = np.arange(47) >= 16
    for kind, of_kind in tokens_of_kinds(16).items():
        assert [tuple(count) for count in one.kinds[kind]] == [(2 * (of_kind & newest).sum(), 2 * of_kind.sum())] * 2
    assert one.kv_bytes == 2 * 2 * 31 * 2 * 8 * 8  # layers, heads, tokens, keys and values, numbers, bytes


def test_kinds_of_tokens_are_all_tokens_once():
    kinds = tokens_of_kinds(5)
    assert (sum(one.astype(int) for one in kinds.values()) == 1).all() and len(kinds["state"]) == 5 * TOKENS - 1
    assert np.flatnonzero(kinds["action"]).tolist() == [2, 5, 8, 11]


def test_actions_are_told_apart_by_their_distance_to_the_teacher(host):
    played = play(host.model, host.tasks, host.episodes, None, [0], host.target, 5)
    kinds = host._kinds(played, 0)
    near, far = np.flatnonzero(kinds["near action"]) // 3, np.flatnonzero(kinds["far action"]) // 3
    assert len(near) == len(far) == 5
    assert played.distances[0, near].max() <= played.distances[0, far].min()
    assert np.flatnonzero(kinds["state with goals"]).tolist() == [1, 4]


def test_eviction_changes_what_is_done(host):
    full, tight = host.measure(None, range(2)), host.measure(namm.make_policy("recency", budget=2, every=16), range(2))
    assert [one.scores for one in full] != [one.scores for one in tight]
