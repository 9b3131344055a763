"""Episodes side by side are gymnasium's own one by one, and what is hidden is hidden."""

import gymnasium
import numpy as np
import pytest
from memx.experiments.config.hosts.decision import EnvironmentConfig
from memx.experiments.decision.tasks import Tasks


def made(name="Pendulum-v1", steps=12, **changes):
    return Tasks(EnvironmentConfig(name=name, steps=steps, **changes))


def alone(name, seed, unit, actions):
    """What gymnasium itself observes and rewards: the environment's own loop for one episode."""
    env = gymnasium.make(name, disable_env_checker=True).unwrapped
    draw = np.random.default_rng([seed, unit])
    draw.uniform(-1, 1, 2), draw.uniform(-np.pi, np.pi, 2)  # physics and goals, which are drawn first
    seen, rewards = [env.reset(seed=int(draw.integers(2**31)))[0]], []
    for action in actions:
        observed, reward, ended, *_ = env.step((action * env.action_space.high).astype(np.float64))
        seen.append(observed)
        rewards.append(reward)
        if ended:
            break
    return np.array(seen), np.array(rewards)


@pytest.mark.parametrize("name", ["Pendulum-v1", "InvertedPendulum-v5"])
def test_episodes_side_by_side_are_those_of_gymnasium(name):
    tasks, units = made(name), [3, 8, 5]
    actions = np.random.default_rng(0).uniform(-1, 1, (12, 3, tasks.action_size))
    tasks.reset(7, units)
    states, rewards, live = [tasks.states()], [], [tasks.live]
    for action in actions:
        if not tasks.live.any():
            break
        rewards.append(tasks.act(action))
        states.append(tasks.states().copy())
        live.append(tasks.live)
    for number, unit in enumerate(units):
        seen, own = alone(name, 7, unit, actions[:, number])
        count = len(own)
        assert np.allclose([state[number] for state in states[: count + 1]], np.clip(seen, -10, 10), atol=1e-6)
        assert np.allclose([reward[number] for reward in rewards[:count]], own, atol=1e-6)
        assert not any(reward[number] for reward in rewards[count:])  # after the end nothing is earned


def test_an_episode_does_not_depend_on_its_neighbours():
    tasks = made(hidden=("physics", "goals", "velocity"))
    action = np.full((3, 1), 0.4)

    def play(units):
        tasks.reset(1, units)
        found = [tasks.act(action[: len(units)]) for _ in range(12)]
        return np.array(found).T

    together = play([2, 9, 4])
    assert np.array_equal(play([9])[0], together[1])
    assert not np.allclose(together[0], together[1])


def test_velocities_are_left_out_and_goals_shown_in_their_steps_alone():
    tasks = made(hidden=("velocity", "goals"), steps=12, goals=2, after=1, shown=3)
    tasks.reset(0, [1, 2])
    assert tasks.state_size == 2 + 2 + 5 and tasks.full_size == 3 + 2
    shown, stages = [], []
    while tasks.live.any():
        state = tasks.states()
        shown.append(bool(state[:, 4:].any()))
        stages.append(state[0, 2:4].tolist())
        tasks.act(np.zeros((2, 1)))
    assert shown == [False] + [True] * 3 + [False] * 8
    assert stages == [[1, 0]] * 6 + [[0, 1]] * 6


def test_the_reward_of_a_goal_is_largest_there():
    tasks = made(hidden=("goals",), steps=8, goals=1)
    tasks.reset(0, [1])
    simulator = tasks._simulator
    rewards = []
    for away in (0.0, 0.5, 2.0):
        simulator._env.state = np.array([[tasks._goals[0, 0] + away], [0.0]])
        rewards.append(float(tasks.act(np.zeros((1, 1)))[0]))
    assert rewards[0] == pytest.approx(0) and rewards[1] == pytest.approx(-0.25) and rewards[2] == pytest.approx(-4)


@pytest.mark.parametrize("name", ["Pendulum-v1", "InvertedPendulum-v5"])
def test_physics_are_drawn_for_each_episode_and_put_back(name):
    tasks, action = made(name, hidden=("physics",)), np.full((2, 1), 0.9)

    def first_states(units):
        tasks.reset(0, units)
        tasks.act(action[: len(units)])
        return tasks.full_states().copy()

    once = first_states([1, 2])
    first_states([3, 4])
    assert np.array_equal(first_states([1, 2]), once)  # nothing of the episodes between is left
    factors = once[:, -2:]
    assert (abs(factors) <= 0.3).all() and not np.allclose(factors[0], factors[1])


def test_a_repeated_action_earns_the_rewards_of_all_its_steps():
    once, twice = made(), made(steps=8, repeat=2)
    for tasks in (once, twice):
        tasks.reset(0, [1, 2])
    action = np.array([[0.3], [-0.8]])
    rewards = [once.act(action) for _ in range(2)]
    assert np.allclose(twice.act(action), rewards[0] + rewards[1])
    assert np.array_equal(once.states(), twice.states()) and (once.step, twice.step) == (2, 1)
