"""Bytes that are counted without a cache, against those of real ones."""

from dataclasses import replace

import pytest
import torch
from memx import namm
from memx.kernels.attention_spectrogram import HOP
from memx.namm.cache_bytes import CacheShape, cache_bytes
from memx.namm.policies.base import Rule
from memx.namm.policies.features.registry import NO_PASS, PUBLISHED
from memx.namm.policies.heuristics import Full, make_policy
from memx.namm.policies.network import Namm
from memx.namm.policies.shares import HeadShares

from .hosts import make_host, prompts

EVERY, BUDGET = 32, 0.3
SHARES = HeadShares((BUDGET,), (((0.9, 0.1), (0.05, 0.15)),))
EVICTING = ("random", "recency", "streamingllm", "h2o", "knorm", "tova", "snapkv", "keydiff", "expected_attention")
OFFSETS = 8 * 3  # of a layer of two heads that hold different numbers


def make(name, budget):
    """A policy under a budget that does not evict by itself in short prompts."""
    return Namm(rule=Rule(budget=budget), every=512) if name == "namm" else make_policy(name, budget=budget, every=512)


def of_cache(kind, policy, tokens, dtype, *, at_end=False):
    """What a real cache holds, and what is counted for it. at_end: the policy evicts once, when all is read."""
    host = make_host(kind).to(dtype)
    with torch.no_grad(), namm.attach(host, policy) as attached:
        host(prompts(tokens)[0][None])
        cache = attached.cache.fork(policy, continue_with=policy) if at_end else attached.cache
    sizes = cache.sizes()
    found = [sum(getattr(size, name) for size in sizes) for name in ("tokens", "kv_bytes", "bookkeeping_bytes")]
    return found, cache_bytes(policy, CacheShape.of(host, dtype), tokens)


@pytest.mark.parametrize("kind", ["llama", "gemma", "gpt2"])
@pytest.mark.parametrize("name", EVICTING)
def test_every_policy_holds_what_is_counted(kind, name):
    policy = make_policy(name, budget=BUDGET, every=EVERY)
    (tokens, kv, stored), counted = of_cache(kind, policy, 96, torch.float32)
    assert (2 * counted.tokens, counted.kv_bytes, counted.policy_bytes) == (tokens, kv, stored)


@pytest.mark.parametrize("budget", [BUDGET, 8, 24, 48])
@pytest.mark.parametrize("kind", ["llama", "gemma"])
@pytest.mark.parametrize("name", [*EVICTING, "namm"])
def test_budgets_in_tokens_and_lengths_between_hops_are_counted(name, kind, budget):
    policy = make(name, budget)
    at_end = policy.hop > 0  # of other policies a copy of the cache holds no queries
    lengths = (9, 20, 30, 70) if at_end else (96, 192)
    policy = policy if at_end else replace(policy, every=EVERY)
    for tokens in lengths:
        (held, kv, stored), counted = of_cache(kind, policy, tokens, torch.float32, at_end=at_end)
        assert (2 * counted.tokens, counted.kv_bytes) == (held, kv), tokens
        missing = counted.policy_bytes - stored  # numbers of tokens that no eviction has made room for
        assert missing in ((0,) if budget < tokens and tokens > HOP else range(4 * policy.width * 4 * HOP + 1)), tokens


@pytest.mark.parametrize("name", EVICTING)
def test_prompts_shorter_than_the_context_are_counted(name):
    for tokens in (9, 20):  # snapkv looks at 32 queries
        (held, kv, stored), counted = of_cache("llama", make(name, 48), tokens, torch.float32)
        assert (2 * counted.tokens, counted.kv_bytes) == (held, kv) == (2 * tokens, 2 * 2 * 2 * 8 * 4 * tokens)
        assert 0 <= counted.policy_bytes - stored < (4 * 4 * HOP if name == "h2o" else 1), tokens


@pytest.mark.parametrize("kind", ["llama", "gemma"])
@pytest.mark.parametrize("allocation", ["global", "table", "layer_max"])
def test_budgets_that_heads_share_hold_as_much(kind, allocation):
    rule = Rule(budget=BUDGET, allocation=allocation, shares=SHARES if allocation == "table" else None)
    policy = replace(make_policy("random", budget=BUDGET, every=EVERY), rule=rule)
    (_, kv, stored), counted = of_cache(kind, policy, 96, torch.float64)
    if allocation == "layer_max":
        assert 0.8 * counted.kv_bytes < kv <= counted.kv_bytes
    else:
        assert counted.kv_bytes == kv and 0 <= counted.policy_bytes - stored <= 2 * OFFSETS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("features", [PUBLISHED, NO_PASS])
def test_a_namm_s_numbers_are_counted_in_the_type_that_they_are_stored_in(dtype, features):
    policy = Namm(features=features, rule=Rule(budget=BUDGET), every=EVERY)
    (_, kv, stored), counted = of_cache("llama", policy, 64, dtype)
    assert (counted.kv_bytes, counted.policy_bytes) == (kv, stored)


def test_what_keeps_everything_is_counted_in_full():
    for policy in (Full(), Namm(every=EVERY)):
        (tokens, kv, stored), counted = of_cache("llama", policy, 64, torch.float32)
        assert (2 * counted.tokens, counted.kv_bytes, counted.policy_bytes) == (tokens, kv, stored) and tokens == 128
