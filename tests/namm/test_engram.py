"""Eviction on a model with n-gram memories: they read every token, also those that the cache has lost."""

import pytest
import torch
from memx import MemoryLlamaConfig, MemoryLlamaForCausalLM
from memx.experiments.models.generation import forward
from memx.memory_layers.llama import draw_weights
from memx.namm import Rule, attach, make_policy
from memx.namm.cache.masked import MaskedCache, masked
from memx.namm.policies.heuristics import Full

TEXT = torch.randint(2, 40, (2, 60), generator=torch.Generator().manual_seed(0))


def model_with(*, convolution: bool) -> MemoryLlamaForCausalLM:
    config = MemoryLlamaConfig(
        memory_kind="engram", memory_layers=[1], memory_slots=100, memory_heads=2, memory_value_width=3,
        memory_convolution=convolution, vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64, pad_token_id=0, eos_token_id=1,
        bos_token_id=None,
    )  # fmt: skip
    model = MemoryLlamaForCausalLM(config).double().eval()
    draw_weights(model, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "taps" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize("convolution", [False, True])
@pytest.mark.parametrize("cuts", [[60], [7, 40, 60]], ids=str)
def test_a_policy_that_keeps_all_changes_nothing_with_padding_on_either_side(convolution, cuts):
    model = model_with(convolution=convolution)
    mask = torch.ones_like(TEXT)
    mask[0, :5] = mask[1, 50:] = 0
    ids = TEXT.masked_fill(mask == 0, 0)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    with torch.no_grad():
        plain = model(ids, attention_mask=mask, position_ids=positions).logits
        policy = make_policy("knorm", budget=1.0, rule=Rule(budget=1.0), every=16)
        with attach(model, policy) as attached:
            cache, found = attached.new_cache(), []
            for start, stop in zip([0, *cuts], cuts, strict=False):
                found.append(
                    model(
                        ids[:, start:stop],
                        attention_mask=mask[:, :stop],
                        position_ids=positions[:, start:stop],
                        past_key_values=cache,
                    ).logits
                )
    there = mask.bool()
    assert torch.allclose(torch.cat(found, 1)[there], plain[there], rtol=0, atol=1e-11)


@pytest.mark.parametrize("convolution", [False, True])
def test_after_an_eviction_rows_are_those_of_all_tokens(convolution):
    model, found = model_with(convolution=convolution), []
    with torch.no_grad():
        model.model.layers[1].engram.observe = found.append
        model(TEXT)
        (whole,) = found
        with attach(model, make_policy("recency", budget=0.25, every=16)) as attached:
            found.clear()  # attaching tries the model
            cache = attached.new_cache()
            model(TEXT[:, :50], past_key_values=cache)
            cache.reorder_cache(torch.tensor([1, 0]))
            model(TEXT[[1, 0], 50:], past_key_values=cache)
    pieces = [part.view(2, -1, part.shape[1]) for part in found]
    joined = torch.cat([*pieces[:-1], pieces[-1][[1, 0]]], 1)
    assert torch.equal(joined, whole.view(2, 60, -1))
    assert max(size.tokens for size in cache.sizes()) < 60


@pytest.mark.parametrize("convolution", [False, True])
def test_masks_on_a_shared_cache_answer_as_a_fork_does(convolution):
    model = model_with(convolution=convolution)
    policy = make_policy("knorm", budget=0.3)
    context, rest = TEXT[0, :40], TEXT[1, :20]
    with attach(model, Full()) as attached, torch.no_grad():
        shared = attached.new_cache()
        attached.decoder(input_ids=context[None], past_key_values=shared)
        fork = shared.fork(policy, 2, continue_with=attached.policy)
        expected = forward(model, rest.expand(2, -1), fork, keep=20).logits
    cache = MaskedCache(shared, shared.choices(policy, 2))
    with masked(model, cache), torch.no_grad():
        parts = [
            forward(model, ids.expand(2, -1), cache, at, keep=10).logits
            for ids, at in ((rest[:10], 40), (rest[10:], 50))
        ]
        assert torch.allclose(torch.cat(parts, 1), expected, rtol=0, atol=1e-11)
        cache.reset()
        again = forward(model, rest[:10].expand(2, -1), cache, 40, keep=10).logits
    assert torch.equal(again, parts[0])
