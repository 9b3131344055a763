"""How a decision transformer acts: B episodes in lockstep, one cache, with or without an eviction policy.

A step feeds three tokens, the last action, the return that is still to come and the state; the first step has no
action yet. The policy runs whenever the number of tokens is a multiple of its interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from ...namm.attachment import attach
from ...namm.policies.base import Policy
from .episodes import Episodes
from .model import ACTION, RETURN, STATE, TOKENS, DecisionTransformer
from .simulators import Array
from .tasks import Tasks
from .teachers import act as teacher_act


class Played(NamedTuple):
    """What B episodes of at most T steps were.

    Attributes:
        returns: [B].
        lengths: Steps of each [B].
        cache: The cache at the end, which has read all but the last action of the longest episode.
        distances: How far each action was from the best teacher's in the same state, root of the mean square over the
            action's numbers [B, T].
        to_come: The return that was asked for at each step [B, T].
        states: What the model saw [B, T, S].
        actions: What it did [B, T, A].
        rewards: What came of it [B, T].
    """

    returns: Array
    lengths: NDArray[np.int64]
    cache: Any
    distances: Array
    to_come: Array
    states: Array
    actions: Array
    rewards: Array


@torch.no_grad()
def play(
    model: DecisionTransformer,
    tasks: Tasks,
    episodes: Episodes,
    policy: Policy | None,
    units: Sequence[int],
    target: float,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> Played:
    """Play episodes.

    Args:
        model: What acts, in eval mode.
        tasks: Where.
        episodes: What it learned from, for the best teacher.
        policy: What evicts; None: a plain cache.
        units: The episodes [B].
        target: The return that is asked for.
        seed: Of the episodes.
        check: Called at each step; may raise to stop.

    Returns:
        What happened.
    """
    numbers, shape, scaling = episodes.teacher
    batch, steps = len(units), tasks.config.steps
    tasks.reset(seed, units)
    left, lengths, distances = np.full(batch, target), np.zeros(batch, dtype=np.int64), np.zeros((batch, steps))
    to_come, rewards = np.zeros((batch, steps)), np.zeros((batch, steps))
    states, actions = np.zeros((batch, steps, tasks.state_size)), np.zeros((batch, steps, tasks.action_size))
    action: Tensor | None = None
    with _Attached(model, policy) as cache:
        while tasks.live.any():
            check()
            step, live = tasks.step, tasks.live
            to_come[:, step], states[:, step] = left, tasks.states()
            hidden = model.decoder(
                inputs_embeds=_tokens(model, left, states[:, step], action, step),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            action = model.act(hidden[:, -1])
            actions[:, step] = action.double().cpu().numpy()
            best = teacher_act(numbers[None], shape, scaling, tasks.full_states())
            distances[:, step] = np.sqrt(((actions[:, step] - best) ** 2).mean(1))
            rewards[:, step] = tasks.act(actions[:, step])
            left, lengths = left - rewards[:, step], lengths + live
    return Played(rewards.sum(1), lengths, cache, distances, to_come, states, actions, rewards)


def _tokens(model: DecisionTransformer, left: Array, states: Array, action: Tensor | None, step: int) -> Tensor:
    """The tokens [B, 2 or 3, w] of a step, the last action's first."""

    def of(kind: int, values: Array | Tensor, number: int) -> Tensor:
        given = torch.as_tensor(values).to(model.device, model.dtype)
        return model.embed(kind, given[:, None], torch.tensor([number], device=model.device))

    made = [] if action is None else [of(ACTION, action, step - 1)]
    return torch.cat([*made, of(RETURN, left[:, None], step), of(STATE, states, step)], 1)


class _Attached:
    """The cache of a policy while it is attached, or a plain one."""

    def __init__(self, model: DecisionTransformer, policy: Policy | None) -> None:
        self._attach: AbstractContextManager[Any] = nullcontext() if policy is None else attach(model, policy)

    def __enter__(self) -> Any:
        attached = self._attach.__enter__()
        return DynamicCache() if attached is None else attached.new_cache()

    def __exit__(self, *exception: Any) -> None:
        self._attach.__exit__(*exception)


def tokens_of_kinds(steps: int) -> dict[str, NDArray[np.bool_]]:
    """Which of the tokens of an episode of so many steps are returns, states and actions: [3 * steps - 1] each.

    The action of the last step is never read.
    """
    number = np.arange(TOKENS * steps - 1) % TOKENS
    return {"return": number == RETURN, "state": number == STATE, "action": number == ACTION}
