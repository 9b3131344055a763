"""A question about a clip under an eviction policy: a config -> a report of what each layer still holds of the clip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ...results.eviction.clip_report import ClipAnswer, ClipReport, Frame, png
from ...results.eviction.report import Unit
from ..eviction.policy import EvictConfig, build_policy, describe
from ..eviction.run import layer_caches
from .data import TEXT, Asked, asked
from .host import VideoHost, load_host
from .model import context_ids
from .questions import WORDS
from .reading import answers, embed, evicted, keeping, read, write


def run_clip_eviction(config: EvictConfig, number: int, folder: Path) -> ClipReport:
    """Read the clip of a question, evict, and answer it from what is left, and from the full cache.

    Args:
        config: The policy and the device. With an interval it evicts while the clip is read, else once, after it.
        number: Of the question.
        folder: The finished run of `memx train video` whose model answers.

    Returns:
        The report.

    Raises:
        MemxError: There is no such policy, run or device.
    """
    policy = build_policy(config)
    device = "cpu" if config.device == "auto" else config.device
    host = load_host(folder, device)
    one = asked(host.config, number)
    online = config.every is not None
    if not online and policy.every is not None:  # how often it would run does not matter, as it runs once
        found: Any = policy
        policy = replace(found, every=host.every)
    embedded = embed(host.model, [one])
    full = read(host.model, embedded, None)
    cache = read(host.model, embedded, policy if online else keeping(policy))
    if not online:
        cache = evicted(cache, policy)
    held = [[min(1.0, share) for share in layer] for layer in cache.kept_share().tolist()]
    return ClipReport(
        host=config.host,
        policy=policy.name,
        rule=describe(policy),
        mode=f"every {policy.every} tokens" if online else "once, after the clip and before the question",
        number=one.number,
        frames=_frames(one),
        words=_words(one),
        held=held,
        layers=layer_caches(cache),
        question=one.question.text,
        right=one.question.answer,
        evicted=_answer(host, cache, one),
        full=_answer(host, full, one),
    )


def _answer(host: VideoHost, cache: Any, one: Asked) -> ClipAnswer:
    (scored,) = answers(host.model, cache, [one])
    return ClipAnswer(write(host.model, cache, one.question), scored.log_likelihood)


def _frames(one: Asked) -> tuple[Frame, ...]:
    start = int((~one.kinds[TEXT]).argmax())
    found = []
    for number, kind in enumerate(one.clip.kinds):
        first, digit = start + number * one.tokens, int(one.clip.shown[number])
        picture = png(one.clip.pixels[number])
        found.append(Frame(first, first + one.tokens, kind, None if digit < 0 else digit, picture))
    return tuple(found)


def _words(one: Asked) -> tuple[Unit, ...]:
    ids = context_ids(len(one.clip.kinds), one.tokens)
    text = one.kinds[TEXT]
    return tuple(Unit(place, place + 1, WORDS[token]) for place, token in enumerate(ids) if text[place])
