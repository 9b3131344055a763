"""What a dry run says of a finetuning: the weights, the parts and the policy; nothing of a run from new weights."""

import pytest
from memx.experiments.config.loading import load_config
from memx.experiments.config.points import points
from memx.experiments.planning.finetuning_notes import finetuning_notes


def test_new_models_have_none():
    assert finetuning_notes(load_config("tiny")) == []


def test_every_variant_says_what_it_trains():
    lines = [line for point in points(load_config("continual-facts")) for line in finetuning_notes(point)]
    assert "rare slots, KL: trains 2,000 value rows in each step, chosen by KL, with SGD" in lines
    assert "rare slots, TF-IDF: trains 2,000 value rows in each step, chosen by TF-IDF, with SGD" in lines
    assert "memory layers: trains memory layers" in lines and "all weights: trains all weights" in lines
    assert lines.count("facts are learned in 10 parts, one after another, of 60 steps each") == 6


@pytest.mark.parametrize(
    ("changes", "who"), [([], "NAMM universal"), ([("eviction.policy", "snapkv")], "policy snapkv")]
)
def test_what_evicts_is_named_with_its_prompts(changes, who):
    changes = [("eviction.namm", None), *changes] if changes else []
    trained, evicted = finetuning_notes(load_config("cache-aware", changes))
    assert trained == "trains LoRA of rank 16 on q_proj, k_proj, v_proj, o_proj"
    assert evicted == f"{who} evicts; 36 prompts of at most 320 tokens; cache: 100%, 25%, 12.5%"
