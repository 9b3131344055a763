"""Policies on a GPU: the same model when all is kept, the same choices as on the CPU."""

import pytest
import torch
from memx import namm
from memx.namm.policies.base import Rule
from memx.namm.policies.network import Namm

from .hosts import left_padded, make_host, prompts

pytestmark = pytest.mark.gpu
EVERY = 64


def evolved(**settings) -> Namm:
    parameters = 0.3 * torch.randn(4172, generator=torch.Generator().manual_seed(3))
    return Namm(parameters, rule=Rule(**settings), every=EVERY)


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen", "gemma", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_zero_parameters_are_the_plain_model(name, dtype):
    host = make_host(name).to("cuda", dtype)
    ids, mask = (x.cuda() for x in left_padded(prompts(300, 200)))
    wanted = host(ids, attention_mask=mask).logits[mask == 1].float()
    with namm.attach(host, Namm(every=EVERY)) as attached:
        got = host(ids, attention_mask=mask).logits[mask == 1].float()
    error = 1e-3 if dtype == torch.float32 else 0.1
    assert (got - wanted).abs().mean() <= error * wanted.abs().mean()
    assert attached.cache.seen == [300, 200]


@torch.no_grad()
@pytest.mark.parametrize("settings", [dict(budget=0.5), dict(), dict(grouping="per_head")], ids=str)
def test_the_cpu_s_choices(settings):
    host, (ids, mask) = make_host(), left_padded(prompts(300, 200, 64))
    kept = []
    for device in ("cpu", "cuda"):
        host.to(device)
        with namm.attach(host, evolved(**settings)) as attached:
            host(ids.to(device), attention_mask=mask.to(device))
        kept.append(torch.cat([attached.cache.holds(b) for b in range(3)], 1))
    assert (kept[0] - kept[1]).abs().gt(1e-6).float().mean() < 0.01  # scores that are nearly the threshold may turn


@torch.no_grad()
def test_chunks_and_single_tokens_agree():
    host, ids = make_host().cuda(), prompts(200)[0][None].cuda()
    with namm.attach(host, evolved(budget=0.5)) as attached:
        logits = host(ids).logits
        whole = attached.cache
        for lengths in ([100, 100], [1] * 200):
            cache = attached.new_cache()
            parts = [host(part, past_key_values=cache).logits for part in ids.split(lengths, 1)]
            torch.testing.assert_close(torch.cat(parts, 1), logits, rtol=1e-2, atol=1e-2)
            assert torch.equal(cache.holds(), whole.holds())


@torch.no_grad()
def test_memory_is_freed():
    host, ids = make_host(num_hidden_layers=4, head_dim=128).cuda(), prompts(2048)[0][None].cuda()
    host(ids, logits_to_keep=1)
    with namm.attach(host, evolved(budget=0.25)) as attached:
        before = torch.cuda.memory_allocated()
        host(ids, logits_to_keep=1)
        held = torch.cuda.memory_allocated() - before
        sizes = attached.cache.sizes()
    kv = sum(size.kv_bytes for size in sizes)
    assert kv == 4 * 2 * 2 * 512 * 128 * 4  # layers, keys and values, heads, tokens, width, float32
    assert held <= 1.5 * kv + (1 << 22)
