"""Masks on one shared cache against real evictions, which `test_cache.py` holds against plain masks."""

import pytest
import torch
from memx.experiments.models.generation import forward
from memx.namm import Rule, attach, make_policy
from memx.namm.cache.masked import MaskedCache, attention_with_lse, masked
from memx.namm.policies.heuristics import Full

from ..hosts import make_host, prompts

CONTEXT, REST = prompts(90, 50)
RULES = [
    Rule(budget=0.3),
    Rule(budget=0.2, allocation="global", first=2),
    Rule(budget=0.3, allocation="layer_max"),
    Rule(threshold=-0.5),
]


@pytest.mark.parametrize("device", ["fused", "plain"])
def test_attention_under_a_mask_is_softmax_over_what_is_seen(device, monkeypatch):
    if device == "plain":
        monkeypatch.setattr("memx.namm.cache.masked.has_flash_attention_for_cpu", lambda: False)
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 4, 5, 8, generator=generator, dtype=torch.float64)
    key, value = torch.randn(2, 1, 2, 30, 8, generator=generator, dtype=torch.float64)
    for rows in (1, 5):
        visible = torch.rand(3, 2, rows, 30, generator=generator) > 0.5
        visible[0, 1, rows // 2] = False
        output, lse = attention_with_lse(query, key, value, visible, 0.3)
        scores = 0.3 * query @ key.repeat_interleave(2, 1).mT
        scores = scores.masked_fill(~visible.repeat_interleave(2, 1), -torch.inf)
        torch.testing.assert_close(lse, scores.logsumexp(-1))
        torch.testing.assert_close(output, scores.softmax(-1).nan_to_num() @ value.repeat_interleave(2, 1))


@pytest.fixture(scope="module", params=["llama", "gemma"])
def host(request):
    return make_host(request.param).double()


@pytest.mark.parametrize("pieces", [[30, 20], [1] * 50], ids=["two pieces", "token by token"])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_masks_answer_as_an_eviction_does(host, rule, pieces):
    """Also in pieces, and with attention windows that the rest of the text leaves behind."""
    policy = make_policy("knorm", budget=0.5)
    policy = type(policy)(**{**vars(policy), "rule": rule})
    with attach(host, Full()) as attached, torch.no_grad():
        shared = attached.new_cache()
        attached.decoder(input_ids=CONTEXT[None], past_key_values=shared)
        evicted = shared.fork(policy, 2, continue_with=attached.policy)
        expected = forward(host, REST.expand(2, -1), evicted, keep=50).logits
    cache = MaskedCache(shared, shared.choices(policy, 2))
    with masked(host, cache), torch.no_grad():
        starts = [90 + sum(pieces[:number]) for number in range(len(pieces))]
        found = [
            forward(host, ids.expand(2, -1), cache, start, keep=50).logits
            for ids, start in zip(REST.split(pieces), starts, strict=True)
        ]
    torch.testing.assert_close(torch.cat(found, 1), expected, rtol=1e-9, atol=1e-9)
    held = [sum(map(sum, layer.state.counts)) for layer in shared.layers]
    assert cache.kept_share().shape == (2,) and (cache.kept_share() < 0.9).all()
    assert held == [sum(map(sum, layer.state.counts)) for layer in shared.layers]
