"""One prompt under an eviction policy: a config -> the answer, and which tokens each layer still holds."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import MemxError
from ...namm.attachment import attach
from ...namm.cache.cache import EvictingCache
from ...results.eviction.report import INTERVAL_STEP, EvictionReport, LayerCache, Written
from ..base_models.load import load_host
from ..base_models.rope import check_positions
from ..data.tokenizer import check_unicode, special_texts
from ..models.generation import end_tokens, greedy_tokens, next_token
from ..runtime.devices import pick_device, pick_dtype
from ..runtime.malloc import keep_freed_memory
from .policy import EvictConfig, build_policy, describe, other_heads
from .text import tokenize

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_SPAN = re.compile(r"(-?\d+)?:(-?\d+)?")
Span = tuple[int | None, int | None]


def run_eviction(config: EvictConfig, progress: Callable[[str], None] = lambda text: None) -> EvictionReport:
    """Read the prompt under the policy, write an answer greedily, and report what is held when the answer begins.

    Args:
        config: The prompt, the model, the policy and where to compute.
        progress: Gets a line for each thing that takes time.

    Raises:
        MemxError: The prompt is empty, or with its answer does not fit into the model's context; a policy, interval,
            budget, span or device does not exist; or the model cannot be loaded or observed.
    """
    if not config.prompt.strip():
        raise MemxError("the prompt is empty", hint="give a text, or --file PATH")
    check_unicode(config.prompt)
    policy = build_policy(config)
    spans = [parse_span(text) for text in config.protect]
    device = pick_device(config.device, "--device")
    dtype = pick_dtype(config.dtype, device)
    keep_freed_memory()
    progress(f"loading model {config.host}")
    model, tokenizer = load_host(config.host, dtype=dtype, any_decoder=True)
    if told := other_heads(config, policy):
        progress(told)
    if found := special_texts(tokenizer, config.prompt):
        progress(f"special tokens in the prompt are read as ordinary text: {', '.join(found)}")
    ids, units = tokenize(tokenizer, config.prompt)
    _check_length(len(ids), config.new_tokens, model.config, config.host)
    protect = tuple(_resolve(span, text, len(ids)) for span, text in zip(spans, config.protect, strict=True))
    torch.nn.Module.to(model, device)
    prompt = torch.tensor([ids], device=device)
    writer = _Writer(model, tokenizer, ids, config.new_tokens)
    progress(
        f"prefilling {len(ids):,} token{'s' if len(ids) > 1 else ''} with policy {policy.name} ({describe(policy)})"
    )
    with attach(model, policy, protect=protect) as attached:
        first, output, seconds = writer.read(prompt)
        cache = attached.cache
        assert cache is not None
        layers, held = layer_caches(cache), [[min(1.0, share) for share in layer] for layer in cache.holds().tolist()]
        progress(f"generating up to {config.new_tokens:,} token{'s' if config.new_tokens > 1 else ''}")
        answer, new = writer.write(first, output, seconds)
        after = layer_caches(cache)
    full = None
    if config.compare:
        progress("generating with the full cache for comparison")
        full, other = writer.write(*writer.read(prompt))
        same = next((i for i, (a, b) in enumerate(zip(new, other, strict=False)) if a != b), min(len(new), len(other)))
        answer = replace(answer, agrees=same)
    return EvictionReport(
        host=config.host,
        policy=policy.name,
        rule=describe(policy),
        every=policy.every,
        protect=protect,
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        units=units,
        held=held,
        layers=layers,
        after=after,
        answer=answer,
        full=full,
        budget=None if policy.every is None else policy.rule.budget,
        shortest=max(INTERVAL_STEP, -(-policy.context // INTERVAL_STEP) * INTERVAL_STEP),
    )


def parse_span(text: str) -> Span:
    """START:STOP as two numbers, None for an open end. Raises MemxError for anything else."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise MemxError(
            f"--protect: {text!r} is not a span of tokens",
            hint="use START:STOP, e.g. 0:16, or -64: for the last 64 tokens",
        )
    start, stop = found.groups()
    return None if start is None else int(start), None if stop is None else int(stop)


def _resolve(span: Span, text: str, tokens: int) -> tuple[int, int]:
    start, stop = (0 if span[0] is None else span[0]), (tokens if span[1] is None else span[1])
    start, stop = start + tokens * (start < 0), stop + tokens * (stop < 0)
    if not 0 <= start < stop <= tokens:
        raise MemxError(
            f"--protect {text} is not a valid span of the prompt, which has {tokens:,} tokens",
            hint="use START:STOP with START < STOP; both are optional, and negative numbers count from the end",
        )
    return start, stop


def _check_length(prompt: int, new: int, config: PretrainedConfig, name: str) -> None:
    if prompt == 0:
        raise MemxError("the prompt has no tokens", hint="use a longer text")
    check_positions(
        prompt + new,
        config,
        name,
        f"{prompt:,} prompt tokens and {new:,} new tokens do",
        "shorten the prompt, lower --new-tokens, or use another --model",
    )


class _Writer:
    """Greedy decoding with a model, step by step, so that the cache can be looked at when the prompt is read."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any, prompt: list[int], most: int) -> None:
        self.model, self.tokenizer, self.prompt, self.most = model, tokenizer, prompt, most
        self.ends = [end for end in (tokenizer.eos_token_id, *end_tokens(model)) if end is not None]

    @torch.no_grad()
    def read(self, prompt: Tensor) -> tuple[Tensor, Any, float]:
        """Prefill [1, N]: the first new token [1, 1], the cache, seconds."""
        begun = time.perf_counter()
        first, cache = next_token(self.model, prompt)
        first.tolist()  # waits for the device
        return first, cache, time.perf_counter() - begun

    @torch.no_grad()
    def write(self, token: Tensor, cache: Any, prefill: float) -> tuple[Written, list[int]]:
        """The answer from its first token on, and its token ids."""
        begun = time.perf_counter()
        new = greedy_tokens(self.model, token, cache, self.most, ends=self.ends).flatten().tolist()
        seconds = (time.perf_counter() - begun) / (len(new) - 1) if len(new) > 1 else None
        return Written(self._text(new), len(new), new[-1] in self.ends, prefill, seconds), new

    def _text(self, new: list[int]) -> str:
        """What new tokens add to the prompt's text, without special ones."""
        both, before = (
            str(self.tokenizer.decode(ids, skip_special_tokens=True)) for ids in (self.prompt + new, self.prompt)
        )
        if both.startswith(before):
            return both[len(before) :]
        return str(self.tokenizer.decode(new, skip_special_tokens=True))  # the prompt ended within a character


def layer_caches(cache: EvictingCache) -> tuple[LayerCache, ...]:
    """The sizes of all layers as plain data."""
    seen, found = cache.seen[0], []
    for size, layer in zip(cache.sizes(), cache.layers, strict=True):
        window = layer.state.window
        visible = seen if window is None else min(seen, window - 1)  # what the plain model would hold
        by_key = (layer.state.keys, layer.state.values)
        full = visible * sum(tensor.shape[1] * tensor.shape[3] * tensor.itemsize for tensor in by_key)
        sizes = (size.tokens, size.slots, size.kv_bytes, size.bookkeeping_bytes, full)
        found.append(LayerCache(size.layer, by_key[0].shape[1], *sizes, size.heads))
    return tuple(found)
