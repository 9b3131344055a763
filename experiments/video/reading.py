"""Clips read into a cache, plain or under a policy, and questions answered from what the cache holds.

B clips, N tokens of a clip with the words around it, M tokens of a question and its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...namm.attachment import attach
from ...namm.cache.cache import EvictingCache
from ...namm.policies.base import Policy
from ...namm.policies.heuristics import Full
from ...namm.policies.panel import PolicyBatch, PolicySlots
from .data import Asked
from .model import context_ids, pixel_values, question_ids
from .questions import END, WORDS, Question

if TYPE_CHECKING:
    from transformers import LlavaNextVideoForConditionalGeneration


class Answer(NamedTuple):
    """How a question was answered: whether greedy decoding writes the right answer, and its mean log-likelihood.

    The log-likelihood is in nats a token, the token that ends the answer among them.
    """

    correct: bool
    log_likelihood: float


@torch.no_grad()
def embed(model: LlavaNextVideoForConditionalGeneration, questions: Sequence[Asked]) -> Tensor:
    """What the decoder reads of clips: [B, N, width], with the words around them."""
    place = model.device
    frames, tokens = len(questions[0].clip.kinds), questions[0].tokens
    ids = torch.tensor([context_ids(frames, tokens)] * len(questions), device=place)
    pixels = torch.from_numpy(np.stack([one.clip.pixels for one in questions])).to(place)
    values = pixel_values(pixels).to(model.dtype)
    seen: Any = model.model.get_video_features(values)
    features = torch.cat([part.flatten(0, 1) for part in seen.pooler_output])
    embedded = model.get_input_embeddings()(ids)
    return embedded.masked_scatter((ids == model.config.video_token_id)[..., None], features.to(embedded.dtype))


@torch.no_grad()
def read(model: LlavaNextVideoForConditionalGeneration, embedded: Tensor, policy: Policy | None) -> Any:
    """Read clips into a cache.

    Args:
        model: The model.
        embedded: What `embed` gave [B, N, width].
        policy: What evicts while the clips are read; None: the plain model.

    Returns:
        The cache of B sequences, memx's or transformers' own.
    """
    if policy is None:
        return model.get_decoder()(inputs_embeds=embedded, use_cache=True).past_key_values
    with attach(model, policy) as attached:
        cache = attached.new_cache()
        attached.decoder(inputs_embeds=embedded, past_key_values=cache)
    return cache


def keeping(policy: Policy) -> PolicySlots:
    """A policy that notes what another notes while it reads, and keeps everything."""
    return policy.slots if isinstance(policy, PolicyBatch) else PolicySlots((policy,))


def evicted(cache: EvictingCache, policy: Policy) -> EvictingCache:
    """What a policy leaves of clips that were read under `keeping` of it, at once; later tokens all stay."""
    if not isinstance(policy, PolicyBatch):
        assert isinstance(cache.policy, PolicySlots)
        policy = PolicyBatch(cache.policy, (policy,))
    return cache.fork(policy, continue_with=Full())


@torch.no_grad()
def answers(model: LlavaNextVideoForConditionalGeneration, cache: Any, questions: Sequence[Asked]) -> list[Answer]:
    """Ask each sequence of a cache its question.

    Args:
        model: The model.
        cache: What `read` gave; it does not change.
        questions: A question for each sequence [B].

    Returns:
        The answers, in the same order.
    """
    texts = [question_ids(one.question) for one in questions]
    found: list[Answer | None] = [None] * len(questions)
    # those of one length at a time: padding would have the plain model compute in another way
    by_length = sorted(range(len(texts)), key=lambda row: (len(texts[row][0]), len(texts[row][1])))
    for _, group in groupby(by_length, key=lambda row: (len(texts[row][0]), len(texts[row][1]))):
        rows = list(group)
        own = deepcopy(cache)
        own.batch_select_indices(torch.tensor(rows))
        for row, answer in zip(rows, _of_one_length(model, own, [texts[row] for row in rows]), strict=True):
            found[row] = answer
    return [answer for answer in found if answer is not None]


def _of_one_length(
    model: LlavaNextVideoForConditionalGeneration, cache: Any, texts: Sequence[tuple[list[int], list[int]]]
) -> list[Answer]:
    """The same for questions of one length, with answers of one length; the cache goes on with them."""
    wanted = torch.tensor([answer for _, answer in texts], device=model.device)
    ids = torch.tensor([asked + answer[:-1] for asked, answer in texts], device=model.device)
    with attach(model, cache.policy) if isinstance(cache, EvictingCache) else nullcontext():
        hidden = model.get_decoder()(
            inputs_embeds=model.get_input_embeddings()(ids), past_key_values=cache, use_cache=True
        ).last_hidden_state
    logits = model.lm_head(hidden[:, -wanted.shape[1] :]).double()
    correct = (logits.argmax(-1) == wanted).all(1)
    likelihood = logits.log_softmax(-1).gather(2, wanted[..., None]).mean((1, 2))
    return [Answer(bool(one), float(other)) for one, other in zip(correct, likelihood, strict=True)]


@torch.no_grad()
def write(model: LlavaNextVideoForConditionalGeneration, cache: Any, question: Question, most: int = 12) -> str:
    """Write the answer to a question greedily, from a cache of one sequence.

    Args:
        model: The model.
        cache: What `read` gave for one clip; it does not change.
        question: The question.
        most: Longest answer in words.

    Returns:
        The words of the answer.
    """
    own, ids, words = deepcopy(cache), question_ids(question)[0], list[str]()
    with attach(model, own.policy) if isinstance(own, EvictingCache) else nullcontext():
        while len(words) < most:
            embedded = model.get_input_embeddings()(torch.tensor([ids], device=model.device))
            hidden = model.get_decoder()(inputs_embeds=embedded, past_key_values=own, use_cache=True).last_hidden_state
            ids = [int(model.lm_head(hidden[0, -1]).argmax())]
            if WORDS[ids[0]] == END:
                break
            words.append(WORDS[ids[0]])
    return " ".join(words)
