"""Reading a prompt's context into a cache, and answering from what the cache holds: by likelihood, or greedily.

B sequences of one cache, all of the same prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from ...errors import MemxError
from ...namm.attachment import attach
from ...namm.cache.cache import EvictingCache
from ...namm.policies.base import Policy
from ...namm.policies.simple import Full
from ..data.long_context.example import Example

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
        return tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[return-value]

    start = [] if tokenizer.bos_token_id is None else tokenizer("")["input_ids"][:1]  # if it begins texts by itself
    target = ids(example.target)
    if not target:
        raise MemxError(f"an example of {example.task} has an empty answer", hint="leave it out")
    rest = torch.tensor(ids(example.question) + target)
    return Prompt(example, torch.tensor([*start, *ids(example.context)]), rest, len(target))


def read(model: PreTrainedModel, ids: Tensor, policy: Policy) -> EvictingCache:
    """A new cache of one sequence, of the tokens [N] read under a policy."""
    with attach(model, policy) as attached:
        attached.decoder(input_ids=ids[None].to(model.device))
    assert attached.cache is not None
    return attached.cache


def feed(model: PreTrainedModel, ids: Tensor, cache: EvictingCache) -> None:
    """Let every sequence of a cache go on with the tokens [N], under the cache's policy."""
    with attach(model, cache.policy) as attached:
        attached.decoder(input_ids=ids.expand(len(cache.seen), -1).to(model.device), past_key_values=cache)


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
    rest = prompt.rest.to(model.device)
    with _going_on(model, prompt, cache) as (sequences, positions):
        fed = rest[:-1].expand(sequences, -1)
        logits = model(fed, past_key_values=cache, logits_to_keep=prompt.answer, **positions(fed)).logits.float()
        wanted = rest[-prompt.answer :].expand(sequences, -1)
        likelihood = logits.log_softmax(-1).gather(-1, wanted[..., None])[..., 0].mean(1).cpu()
        return Answered(likelihood, (logits.argmax(-1) == wanted).all(1).cpu())


def write(model: PreTrainedModel, prompt: Prompt, cache: Any, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """What each sequence of a cache goes on with after the question, greedily."""
    if not isinstance(cache, EvictingCache):
        return _write_on(model, prompt, cache, tokenizer)
    host: Any = model
    ids = torch.cat([prompt.context, prompt.rest[: -prompt.answer]])
    ids = ids.expand(len(cache.seen), -1).to(host.device)
    greedy = GenerationConfig(
        max_new_tokens=prompt.example.max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=getattr(host.generation_config, "eos_token_id", None),
    )
    with attach(host, cache.policy):
        told = host.generate(ids, attention_mask=torch.ones_like(ids), past_key_values=cache, generation_config=greedy)
    return tokenizer.batch_decode(told[:, ids.shape[1] :], skip_special_tokens=True)


def _write_on(model: PreTrainedModel, prompt: Prompt, cache: Any, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """`write` of a cache that another library made smaller: it no longer knows at which position the text goes on."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    ends = torch.tensor(ends if isinstance(ends, list) else [-1 if ends is None else ends], device=model.device)
    place, told = len(prompt.context), []
    fed = prompt.rest[: -prompt.answer].to(model.device).expand(_sequences(cache), -1)
    ended = torch.zeros(len(fed), 1, dtype=torch.bool, device=model.device)
    while len(told) < prompt.example.max_new_tokens and not ended.all():
        positions = torch.arange(place, place + fed.shape[1], device=fed.device)[None]
        logits = model(fed, past_key_values=cache, position_ids=positions, logits_to_keep=1).logits
        place += fed.shape[1]
        fed = logits[:, -1].argmax(-1, keepdim=True)
        ended |= torch.isin(fed, ends)
        fed = fed.where(~ended, ends[0])
        told.append(fed)
    return tokenizer.batch_decode(torch.cat(told, 1), skip_special_tokens=True)


def _sequences(cache: Any) -> int:
    return cache.layers[0].keys.shape[0]


@contextmanager
def _going_on(model: PreTrainedModel, prompt: Prompt, cache: Any) -> Iterator[tuple[int, Any]]:
    """How many sequences a cache has, and what a forward pass is told of positions where the cache does not know."""
    if isinstance(cache, EvictingCache):
        with attach(model, cache.policy):
            yield len(cache.seen), lambda fed: {}
        return
    start = len(prompt.context)
    yield (
        _sequences(cache),
        lambda fed: {"position_ids": torch.arange(start, start + fed.shape[1], device=fed.device)[None]},
    )
