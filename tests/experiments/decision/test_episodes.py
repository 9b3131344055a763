"""Teachers, and the episodes that are learned from: what they are, again and again, also after a stop."""

import numpy as np
import pytest
from memx.errors import MemxError
from memx.experiments.decision.batches import EpisodeBatches, returns_to_come
from memx.experiments.decision.episodes import EXPERT, MEDIUM, RANDOM, episodes_folder, find_episodes, read_episodes
from memx.experiments.decision.teachers import Scaling, Shape, Snapshots, act

from .tiny_host import point


class Stopped(Exception):
    pass


def nothing(generation):
    pass


@pytest.mark.parametrize("hidden", [0, 3])
def test_teachers_side_by_side_act_as_each_alone(hidden):
    draw = np.random.default_rng(0)
    shape, scaling = Shape(4, 2, hidden), Scaling(draw.normal(size=4), draw.uniform(1, 2, 4))
    numbers, states = draw.normal(size=(5, shape.numbers)), draw.normal(size=(5, 4))
    together = act(numbers, shape, scaling, states)
    for teacher, state, action in zip(numbers, states, together, strict=True):
        x = (state - scaling.mean) / scaling.deviation
        if hidden:
            first, teacher = teacher[:15].reshape(5, 3), teacher[15:]
            x = np.tanh(first[:4].T @ x + first[4])
        last = teacher.reshape(-1, 2)
        assert np.allclose(action, np.tanh(last[:-1].T @ x + last[-1]))


def test_the_way_ends_where_most_of_the_gain_is_made():
    snapshots = Snapshots(np.zeros((5, 2)), np.array([-100.0, -60.0, -35.0, -20.0, -10.0]))
    assert snapshots.medium(-110.0).tolist() == [0, 1, 2]


def test_episodes_are_the_same_again_and_after_a_stop(tmp_path):
    config = point(**{"episodes.generations": 25, "episodes.population": 8, "episodes.trials": 4}).config
    whole = find_episodes(config, tmp_path / "a", nothing)

    def stop(generation):
        if generation == 22:
            raise Stopped

    with pytest.raises(Stopped):
        find_episodes(config, tmp_path / "b", stop)
    begun = []
    resumed = find_episodes(config, tmp_path / "b", begun.append)
    assert begun[0] == 21  # what was saved after 20 generations is not done again
    for name in ("states", "actions", "rewards", "lengths", "quality"):
        assert np.array_equal(getattr(whole, name), getattr(resumed, name)), name
    assert np.array_equal(whole.teacher[0], resumed.teacher[0])
    assert not np.array_equal(whole.actions[0], whole.actions[1])


def test_episodes_have_the_qualities_that_were_asked_for(tmp_path):
    config = point(**{"episodes.random": 0.25, "episodes.medium": 0.5}).config
    found = find_episodes(config, tmp_path, nothing)
    assert [int((found.quality == one).sum()) for one in (RANDOM, MEDIUM, EXPERT)] == [3, 6, 3]
    assert (abs(found.actions) <= 1).all() and (found.lengths == 16).all()
    assert found.normalised(found.random_return) == 0 and found.normalised(found.expert_return) == pytest.approx(100)


def test_other_seeds_of_the_host_share_the_episodes_and_other_episodes_do_not(tmp_path):
    first, other = point(seed=1).config, point(seed=2).config
    assert episodes_folder(first, tmp_path) == episodes_folder(other, tmp_path)
    assert episodes_folder(point(**{"episodes.seed": 1}).config, tmp_path) != episodes_folder(first, tmp_path)


def test_damaged_episodes_are_named(tmp_path):
    config = point().config
    find_episodes(config, tmp_path, nothing)
    (file,) = episodes_folder(config, tmp_path).glob("episodes.safetensors")
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(MemxError, match="cannot read the episodes in"):
        read_episodes(file.parent)


def test_returns_to_come_are_sums_of_what_follows():
    rewards = np.array([[1.0, 2.0, 4.0], [0.5, 0.0, 0.0]], dtype=np.float32)
    assert returns_to_come(rewards).tolist() == [[7, 6, 4], [0.5, 0, 0]]


def test_a_batch_depends_on_seed_and_step_alone(tmp_path):
    import torch

    episodes = find_episodes(point().config, tmp_path, nothing)
    batches = [EpisodeBatches(episodes, 4, seed, torch.device("cpu")) for seed in (0, 0, 1)]
    batches[0].at(5)
    assert torch.equal(batches[0].at(2).actions, batches[1].at(2).actions)
    assert not torch.equal(batches[1].at(2).actions, batches[1].at(3).actions)
    assert not torch.equal(batches[0].at(2).actions, batches[2].at(2).actions)
