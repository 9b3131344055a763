"""Reading a prompt's context into a cache, and answering from what the cache holds: by likelihood, or greedily.

B sequences of one cache, all of the same prompt.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import MemxError
from ...namm.attachment import attach
from ...namm.cache.cache import EvictingCache
from ...namm.policies.base import Policy
from ...namm.policies.heuristics import Full
from ...transformers_compat import input_device, reset_rotary
from ..data.long_context.example import Example
from ..data.tokenizer import encode_text
from ..models.generation import end_tokens, forward, generate_texts, greedy_tokens, log_likelihoods, next_token

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Prompt:
    """An example in tokens: context [N], question and answer [M], of which the last `answer` are the gold answer."""

    example: Example
    context: Tensor
    rest: Tensor
    answer: int


@dataclass(frozen=True)
class Answered:
    """Of each sequence [B], on the CPU: the gold answer's mean log-likelihood in nats a token, and whether it is exact.

    exact: each token of the gold answer is the likeliest after those before it, so that greedy decoding writes it.
    """

    log_likelihood: Tensor
    exact: Tensor


def tokenise(example: Example, tokenizer: PreTrainedTokenizerFast) -> Prompt:
    """An example in tokens. Raises MemxError for one without an answer."""

    def ids(text: str) -> list[int]:
        return encode_text(tokenizer, text, begin=False)

    start = [] if tokenizer.bos_token_id is None else tokenizer("")["input_ids"][:1]  # if it begins texts by itself
    target = ids(example.target)
    if not target:
        raise MemxError(f"an example of task {example.task} has an empty answer", hint="remove the example")
    rest = torch.tensor(ids(example.question) + target)
    return Prompt(example, torch.tensor([*start, *ids(example.context)]), rest, len(target))


def question_first(prompt: Prompt) -> Prompt:
    """A prompt whose question is read with the context, before anything is evicted, but for its last token.

    Args:
        prompt: The prompt.

    Returns:
        The same tokens. The last one of the question is left to be read after eviction, as the answer begins from it.
    """
    asked = len(prompt.rest) - prompt.answer
    context = torch.cat([prompt.context, prompt.rest[:asked]])
    return replace(prompt, context=context[:-1], rest=torch.cat([context[-1:], prompt.rest[asked:]]))


def read(model: PreTrainedModel, ids: Tensor, policy: Policy, *, length: int = 0) -> EvictingCache:
    """A new cache of one sequence, of the tokens [N] read under a policy.

    length: of the whole text, where these are its beginning; rotary factors may depend on it. What they were for other
    texts before is forgotten, so that a text is read alike whatever came before it.
    """
    with attach(model, policy) as attached:
        reset_rotary(attached.decoder)
        cache = attached.new_cache()
        cache.length = length
        attached.decoder(input_ids=ids[None].to(input_device(model)), past_key_values=cache)
    return cache


def feed(model: PreTrainedModel, ids: Tensor, cache: EvictingCache) -> None:
    """Let every sequence of a cache go on with the tokens [N], under the cache's policy."""
    with attach(model, cache.policy) as attached:
        attached.decoder(input_ids=ids.expand(len(cache.seen), -1).to(input_device(model)), past_key_values=cache)


def branched(shared: EvictingCache, policy: Policy, keep: Policy, copies: int, *, online: bool) -> EvictingCache:
    """So many copies of a cache that was read for several policies, as `policy` would leave it.

    Post hoc it chooses now, once, and never again; online it goes on, and has run now if that was due. keep: a policy
    that reads the same and keeps everything.
    """
    done = shared.get_seq_length()
    runs = done > 0 and (not online or done % (policy.every or done) == 0)
    return shared.fork(policy if runs else keep, copies, continue_with=policy if online else Full())


def answer(model: PreTrainedModel, prompt: Prompt, cache: Any) -> Answered:
    """How each sequence of a cache, memx's or transformers' own, answers the prompt.

    The cache goes on with the question and all but the last token of the answer.
    """
    rest = prompt.rest.to(input_device(model))
    # a cache that another library made smaller no longer knows at which position the text goes on
    ours, start = (True, None) if isinstance(cache, EvictingCache) else (False, len(prompt.context))
    fed, wanted = rest[:-1].expand(_sequences(cache), -1), rest[-prompt.answer :].expand(_sequences(cache), -1)
    with attach(model, cache.policy) if ours else nullcontext():
        logits = forward(model, fed, cache, start, prompt.answer).logits.float()
    return Answered(log_likelihoods(logits, wanted).mean(1).cpu(), (logits.argmax(-1) == wanted).all(1).cpu())


def write(model: PreTrainedModel, prompt: Prompt, cache: Any, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """What each sequence of a cache goes on with after the question, greedily."""
    ids, most = torch.cat([prompt.context, prompt.rest[: -prompt.answer]]), prompt.example.max_new_tokens
    if isinstance(cache, EvictingCache):
        rows, pad = [ids.tolist()] * _sequences(cache), tokenizer.pad_token_id
        with attach(model, cache.policy):
            return generate_texts(model, tokenizer, rows, most, pad=pad, past_key_values=cache)
    start, ends = len(prompt.context), end_tokens(model)
    token, cache = next_token(model, ids[start:].to(input_device(model)).expand(_sequences(cache), -1), cache, start)
    tokens = greedy_tokens(model, token, cache, most, ends=ends, fill=ends[0] if ends else None, start=len(ids))
    return tokenizer.batch_decode(tokens, skip_special_tokens=True)


def _sequences(cache: Any) -> int:
    return len(cache.seen) if isinstance(cache, EvictingCache) else cache.layers[0].keys.shape[0]
