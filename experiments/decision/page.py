"""One episode under a policy, to read: which returns, states and actions each layer still holds at its end."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from ...namm.policies.base import Policy
from ...results.eviction.report import EvictionReport, LayerCache, Unit, Written
from ..eviction.policy import describe
from .acting import Played, play
from .host import EPISODES, DecisionHost
from .model import ACTION, RETURN, TOKENS


@torch.no_grad()
def episode_report(host: DecisionHost, policy: Policy, unit: int, *, compare: bool = True) -> EvictionReport:
    """Play one episode under a policy, and with the full cache.

    Args:
        host: The decision transformer.
        policy: What evicts.
        unit: The episode.
        compare: Whether to play it with the full cache as well.

    Returns:
        What the cache holds at the end, with each token in words.
    """
    played, seconds = _play(host, policy, unit)
    cache = played.cache
    seen, sizes = cache.seen[0], cache.sizes()
    layers = tuple(
        LayerCache(
            size.layer, layer.state.keys.shape[1], size.tokens, size.slots, size.kv_bytes, size.bookkeeping_bytes,
            seen * size.kv_bytes // max(1, size.slots), size.heads,
        )
        for size, layer in zip(sizes, cache.layers, strict=True)
    )  # fmt: skip
    full = _written(host, *_play(host, None, unit)) if compare else None
    return EvictionReport(
        host=host.name,
        policy=policy.name,
        rule=describe(policy),
        every=policy.every,
        protect=(),
        device=host.device,
        dtype=str(host.model.dtype).removeprefix("torch."),
        units=tuple(_units(played, seen)),
        held=[[min(1.0, share) for share in layer] for layer in cache.kept_share().tolist()],
        layers=layers,
        after=layers,
        answer=_written(host, played, seconds),
        full=full,
        budget=policy.rule.budget,
    )


def _play(host: DecisionHost, policy: Policy | None, unit: int) -> tuple[Played, float]:
    begun = time.perf_counter()
    host.model.eval()
    played = play(host.model, host.tasks, host.episodes, policy, [unit], host.target, EPISODES)
    return played, time.perf_counter() - begun


def _written(host: DecisionHost, played: Played, seconds: float) -> Written:
    """What came of an episode, as the page shows an answer."""
    raw, steps = float(played.returns[0]), int(played.lengths[0])
    text = f"return {raw:.1f} in {steps} steps; random policy 0, best teacher 100: {host.episodes.normalised(raw):.1f}"
    return Written(text, steps, True, seconds, None)


def _units(played: Played, seen: int) -> Iterator[Unit]:
    """Each token in words: R and the return still to come, s and the state, a, the action and its reward."""
    for token in range(seen):
        step, kind = divmod(token, TOKENS)
        if kind == RETURN:
            text = f"R {played.to_come[0, step]:.0f} "
        elif kind == ACTION:
            text = f"a {_numbers(played.actions[0, step])} (reward {played.rewards[0, step]:.2f})\n"
        else:
            text = f"s {_numbers(played.states[0, step])} "
        yield Unit(token, token + 1, text)


def _numbers(values: object) -> str:
    return " ".join(f"{value:+.1f}" for value in values)  # type: ignore[attr-defined]
