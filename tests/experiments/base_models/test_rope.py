"""Rotary scaling that a config sets in place of the model's own, and the positions that a model then has."""

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.base_models.load import load_host
from memx.experiments.base_models.rope import check_positions, positions, rope_words, with_rope
from memx.experiments.config.base import assign, config_hash, to_tree, validate
from memx.experiments.config.eviction.evolution import EvolveConfig
from memx.experiments.config.loading import load_evolution_config
from transformers import GPT2Config, LlamaConfig, LlamaForCausalLM

DYNAMIC = {"rope_type": "dynamic", "factor": 2}
PUBLISHED = 500_000 * (2 * 4 - 2 + 1) ** (128 / 126)  # base * (alpha * factor - alpha + 1)^(d / (d - 2))


def llama(**changes):
    sizes = dict(hidden_size=64, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
    return LlamaConfig(**{**sizes, "max_position_embeddings": 64, **changes})


def test_the_published_recipe_has_the_published_base():
    config = load_evolution_config("namm-llama-3-8b")
    host = llama(
        head_dim=128, max_position_embeddings=8192, rope_parameters={"rope_type": "default", "rope_theta": 5e5}
    )
    with_rope(host, config.host.rope, "llama")
    rotary = LlamaForCausalLM(host).model.rotary_emb
    rotary(torch.zeros(1), torch.arange(config.tasks.length)[None])
    wanted = PUBLISHED ** -(torch.arange(0, 128, 2) / 128)
    torch.testing.assert_close(rotary.inv_freq, wanted, rtol=1e-5, atol=0)
    assert f"base {PUBLISHED:,.0f} at 32,768 tokens" in rope_words(host, config.tasks.length)
    assert positions(host) is None


def test_positions_count_rotary_scaling():
    def scaled(**rope):
        return positions(llama(rope_parameters={"rope_theta": 1e4, **rope}))

    assert scaled(rope_type="default") == 64 and scaled(rope_type="linear", factor=4.0) == 256
    assert scaled(rope_type="yarn", factor=4.0, original_max_position_embeddings=64) == 256
    assert positions(GPT2Config(n_positions=77)) == 77
    with pytest.raises(MemxError, match="length 65 does not fit in the 64 positions of it"):
        check_positions(65, llama(), "it", "length 65 does", "lower it")
    check_positions(64, llama(), "it", "length 64 does", "lower it")


def test_settings_that_do_not_suit_are_refused_by_name():
    for problem, tree in (
        ("rope_type 'dynamick' is unknown", {"rope_type": "dynamick"}),
        ("rope_type null is unknown", {"factor": 2}),
        ("'factor' must be a finite number above 0", {"rope_type": "linear", "factor": -1.0}),
        ("'factor' must be a finite number above 0", {"rope_type": "linear", "factor": "abc"}),
    ):
        with pytest.raises(MemxError, match=problem):
            validate({"host": {"name": "smollm2", "rope": tree}}, EvolveConfig)
    with pytest.raises(MemxError, match="does not suit it: lacks 'factor'"):
        with_rope(llama(), {"rope_type": "yarn"}, "it")
    with pytest.raises(MemxError, match="it has no rotary positions"):
        with_rope(GPT2Config(), DYNAMIC, "it")


def test_a_model_without_rope_settings_keeps_its_run_s_name():
    config = load_evolution_config("namm-tiny")
    assert config.host.rope is None and "rope" in to_tree(config)["host"]
    other = validate(assign(to_tree(config), "host.rope", DYNAMIC), EvolveConfig)
    assert config_hash(other) != config_hash(config)


def test_a_loaded_model_has_the_settings(tiny_run):
    folder = tiny_run[0].folder / "checkpoint"
    model, _ = load_host(str(folder), any_decoder=True, rope=DYNAMIC)
    plain, _ = load_host(str(folder), any_decoder=True)
    short, long = (torch.arange(count)[None] % 50 for count in (8, positions(plain.config) + 40))
    with torch.no_grad():
        assert torch.equal(model(short).logits, plain(short).logits)
        assert not torch.allclose(model(long).logits, plain(long).logits, atol=1e-3)
