"""A new memory's queries fit its host: whitened inputs, more slots in use, silent layers unheard."""

import pytest
import torch
from memx import MemoryLlamaConfig, MemoryLlamaForCausalLM
from memx.experiments.models.whitening import whiten_queries, whitening
from memx.memory_layers.llama import draw_weights, memory_layers_of

TOKENS = torch.randint(40, (32, 20), generator=torch.Generator().manual_seed(0))


def make_model(**changes) -> MemoryLlamaForCausalLM:
    """Its hidden states lie along one direction, as those of trained models do."""
    settings = dict(
        memory_layers=[0, 1], memory_slots=4096, memory_heads=2, memory_top_k=4, memory_insertion="beside",
        memory_qk_norm=True, vocab_size=40, hidden_size=32, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    model = MemoryLlamaForCausalLM(MemoryLlamaConfig(**{**settings, **changes})).eval()
    draw_weights(model, seed=0)
    torch.manual_seed(0)
    with torch.no_grad():
        model.model.embed_tokens.weight.add_(3 * torch.randn(32))
    return model


def slots_used(model) -> list[int]:
    seen = []
    layers = memory_layers_of(model)
    for layer in layers:
        layer.observe = lambda slots: seen.append(len(slots.unique()))
    with torch.no_grad():
        model(TOKENS)
    for layer in layers:
        layer.observe = None
    return seen


def test_whitened_inputs_have_no_mean_and_little_covariance():
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, 1.5, 12, dtype=torch.float64)
    x = 20 + torch.randn(4000, 12, generator=generator, dtype=torch.float64) * scales
    white = x @ whitening(x).T
    assert white.mean(0).abs().max() < 1e-8
    values = torch.linalg.eigvalsh(torch.cov(white.T))
    assert values[0].abs() < 1e-8 and values[-1] < 1.0  # the mean's direction is gone
    assert values[-1] / values[1] < 0.05 * (scales[-1] / scales[0]) ** 2


def test_more_slots_are_used_and_silent_layers_change_nothing():
    model = make_model()
    before, used = model(TOKENS).logits, slots_used(model)
    weights = {name: weight.clone() for name, weight in model.named_parameters()}
    whiten_queries(model.model, TOKENS)
    assert torch.equal(model(TOKENS).logits, before)
    assert all(new > 1.5 * old for new, old in zip(slots_used(model), used, strict=True)), (used, slots_used(model))
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, weights[name])}
    assert changed == {f"model.layers.{i}.mlp.memory.query.weight" for i in (0, 1)}


@pytest.mark.parametrize("changes", [{"memory_layers": []}, {"memory_kind": "moe", "memory_insertion": "replace"}])
def test_models_without_queries_are_left_alone(changes):
    model = make_model(**changes)
    before = model(TOKENS).logits
    whiten_queries(model.model, TOKENS)
    assert torch.equal(model(TOKENS).logits, before)
