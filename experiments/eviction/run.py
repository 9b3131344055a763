"""One prompt under an eviction policy: a config -> the answer, and which tokens each layer still holds."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from ...errors import MemxError, nearest
from ...namm.attachment import attach
from ...namm.cache.cache import EvictingCache
from ...namm.policies.base import Policy, Rule
from ...namm.policies.files import load
from ...namm.policies.heuristics import POLICIES, make_policy
from ...namm.policies.keep import Grouping
from ...namm.policies.network import RUN, Namm
from ...results.eviction.report import INTERVAL_STEP, EvictionReport, LayerCache, Written
from ..base_models.load import load_host
from ..base_models.model_folder import SMOLLM2
from ..base_models.rope import check_positions
from ..data.tokenizer import check_unicode, special_texts
from ..models.generation import end_tokens, greedy_tokens, next_token
from ..runtime.devices import pick_device, pick_dtype
from .head_shares import HEAD_SHARES, read_shares
from .text import tokenize

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

DEFAULT_POLICY, DEFAULT_BUDGET = "snapkv", 0.5
_PROTECTION = {"protect_first": "first", "protect_newest": "newest"}  # the rule's own names
_SPAN = re.compile(r"(-?\d+)?:(-?\d+)?")
Span = tuple[int | None, int | None]


@dataclass(frozen=True)
class EvictConfig:
    """What to run: a prompt, a host, and a policy by name or a saved NAMM's folder.

    budget, every: None for the policy's own; threshold, grouping: of a NAMM; protect: spans START:STOP of token
    numbers, either end open or counted from the prompt's end; compare: whether the full cache writes an answer too;
    allocation, shares: how heads share the budget, and the file of a table of head shares; protect_first,
    protect_newest: tokens that are kept within the budget; None for the NAMM's own, or 0.
    """

    prompt: str
    host: str = SMOLLM2
    policy: str | None = None
    namm: Path | None = None
    budget: float | None = None
    every: int | None = None
    threshold: float | None = None
    grouping: str | None = None
    protect: Sequence[str] = ()
    new_tokens: int = 64
    compare: bool = False
    seed: int = 0
    device: str = "auto"
    dtype: str | None = None
    allocation: str | None = None
    shares: Path | None = None
    protect_first: int | None = None
    protect_newest: int | None = None

    @property
    def name(self) -> str:
        """The name of its folder: the same settings have the same, also those that older versions did not have."""
        unused = {name for name in ("allocation", "shares", *_PROTECTION) if getattr(self, name) is None}
        tree = {name: value for name, value in asdict(self).items() if name not in unused}
        tree = json.dumps(tree, sort_keys=True, default=str)
        return f"evict-{hashlib.sha256(tree.encode()).hexdigest()[:8]}"


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
    progress(f"loading model {config.host}")
    model, tokenizer = load_host(config.host, dtype=dtype, any_decoder=True)
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
        layers, held = _layers(cache), [[min(1.0, share) for share in layer] for layer in cache.holds().tolist()]
        answer, new = writer.write(first, output, seconds)
        after = _layers(cache)
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


def build_policy(config: EvictConfig) -> Policy:
    """The policy of a config. Raises MemxError for one that there is not, or settings that do not go together."""
    if config.namm is None:
        if config.policy == "namm":
            raise MemxError("--policy namm needs a saved NAMM", hint="add --namm FOLDER")
        for option, value in (("--threshold", config.threshold), ("--grouping", config.grouping)):
            if value is not None:
                raise MemxError(
                    f"{option} applies only to a NAMM", hint="add --namm FOLDER, or use --budget with this policy"
                )
        name = config.policy or DEFAULT_POLICY
        if name not in POLICIES:
            hint = nearest(name.lower(), POLICIES) or f"choose one of: {', '.join(POLICIES)}"
            raise MemxError(f"unknown policy {name!r}", hint=hint)
        budget = DEFAULT_BUDGET if config.budget is None and name != "full" else config.budget
        every = RUN if config.every is None else config.every
        if name == "full":
            _check_full(config)
        rule = Rule() if name == "full" else shared_rule(config, Rule(budget=budget))
        policy = make_policy(name, budget=budget, every=every, seed=config.seed, rule=rule)
    else:
        policy = _build_namm(config, config.namm)
    EvictingCache(policy, [None])  # raises for an interval that is too short
    return policy


def _check_full(config: EvictConfig) -> None:
    """Raise MemxError for settings of an eviction, of which there is none."""
    given = {
        "--allocation": config.allocation,
        "--shares": config.shares,
        "--protect-first": config.protect_first,
        "--protect-newest": config.protect_newest,
    }
    for option, value in given.items():
        if value:
            raise MemxError(f"{option} has no effect with the policy full, which keeps every token", hint="remove it")


def _build_namm(config: EvictConfig, folder: Path) -> Namm:
    if config.policy not in (None, "namm"):
        raise MemxError(f"--namm and --policy {config.policy} cannot be combined", hint="give only one of them")
    if config.budget is not None and config.threshold is not None:
        raise MemxError("--budget and --threshold cannot be combined", hint="give only one of them")
    if config.threshold is not None and not isfinite(config.threshold):
        raise MemxError(
            f"--threshold must be finite, not {config.threshold}", hint="to keep every token, use --policy full"
        )
    namm = load(folder)
    rule = namm.rule
    if config.budget is not None:
        rule = replace(rule, budget=config.budget)
    if config.threshold is not None:
        rule = replace(rule, budget=None, threshold=config.threshold)
    if config.grouping is not None:
        rule = replace(rule, grouping=cast(Grouping, config.grouping))  # checked by the rule itself
    rule = shared_rule(config, rule)
    return replace(namm, rule=rule, every=namm.every if config.every is None else config.every)


def shared_rule(config: EvictConfig, rule: Rule) -> Rule:
    """A rule with the config's allocation between heads and its protected first and newest tokens.

    Args:
        config: What was asked; None leaves what the rule has.
        rule: The rule of the policy, with its budget or threshold.

    Returns:
        The rule.

    Raises:
        MemxError: There is no such allocation, no budget to share, no table for it, or a table that is not used.
    """
    changes: dict[str, Any] = {
        name: value for option, name in _PROTECTION.items() if (value := getattr(config, option)) is not None
    }
    allocation = "table" if config.shares is not None and config.allocation is None else config.allocation
    if config.shares is not None:
        if allocation != "table":
            raise MemxError(f"--shares is not used by --allocation {allocation}", hint="use --allocation table")
        changes["shares"] = read_shares(config.shares)
    if allocation is not None:
        if rule.budget is None:
            raise MemxError("--allocation needs a budget to share between heads", hint="add --budget, e.g. 0.25")
        if allocation == "table" and config.shares is None and rule.shares is None:
            raise MemxError(
                "--allocation table needs a table of head shares",
                hint=f"add --shares FILE, e.g. {HEAD_SHARES} of a run of memx eval-namm --allocation table",
            )
        changes["allocation"] = allocation  # checked by the rule itself
    return replace(rule, **changes)


def describe(policy: Policy) -> str:
    """How a policy chooses, in words."""
    rule = policy.rule
    if policy.every is None:
        return "keeps everything"
    text = f"threshold {rule.threshold:g}, {rule.grouping}"
    if rule.budget is not None:
        text = f"budget {rule.budget:g}" + ("" if rule.allocation == "equal" else f", {rule.allocation}")
    protection = [f"{name} {count}" for name in ("first", "newest") if (count := getattr(rule, name))]
    return text + (f", {' and '.join(protection)} protected" if protection else "")


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


def _layers(cache: EvictingCache) -> tuple[LayerCache, ...]:
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
