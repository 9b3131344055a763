"""Use of a table against counts of every lookup."""

from math import log

import pytest
import torch
from memx import MemoryLayer, MemoryLlamaConfig, MemoryLlamaForCausalLM
from memx.experiments.models.slot_usage import SlotUsage
from memx.memory_layers.usage import UsageWindow


def by_hand(lookups, slots):
    counts = [0] * slots
    for slot in lookups:
        counts[slot] += 1
    shares = [count / len(lookups) for count in counts if count]
    return sum(count > 0 for count in counts) / slots, sum(share * log(share * slots) for share in shares)


def draw(seed, tokens=20, slots=100):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(tokens, 2, 3, generator=generator).square() * slots).long()


def test_equals_counts_by_hand_over_several_lookups():
    window, seen = UsageWindow(100), []
    for seed in range(5):
        window.add(draw(seed))
        seen += draw(seed).flatten().tolist()
        used, kl = by_hand(seen, 100)
        found = window.read()
        assert (found.used, found.lookups) == (used, len(seen))
        assert found.kl == pytest.approx(kl, abs=1e-9)


def test_only_masked_tokens_count():
    window, mask = UsageWindow(100), torch.arange(20) % 3 == 0
    window.mask = mask
    window.add(draw(0))
    expected = draw(0)[mask].flatten().tolist()
    assert window.read().lookups == len(expected)
    assert window.read()[:2] == pytest.approx(by_hand(expected, 100))
    window.mask = torch.zeros(20, dtype=torch.bool)
    window.add(draw(1))
    assert window.read().lookups == len(expected)


def test_a_reset_starts_anew():
    window = UsageWindow(100)
    window.add(draw(0))
    window.add(draw(1))
    window.reset()
    assert window.read() is None and window.counts.sum() == 0
    window.add(draw(2))
    assert window.read()[:2] == pytest.approx(by_hand(draw(2).flatten().tolist(), 100))


def test_a_window_goes_on_from_its_saved_tensors():
    straight, saved, resumed = (UsageWindow(100) for _ in range(3))
    for window in (straight, saved):
        window.add(draw(0))
        window.add(draw(1))
    resumed.add(draw(9))
    resumed.load_state_tensors(saved.state_tensors())
    for window in (straight, resumed):
        window.add(draw(2))
    assert resumed.read() == straight.read()
    resumed.reset()
    assert resumed.counts.sum() == 0
    resumed.load_state_tensors(UsageWindow(100).state_tensors())
    assert resumed.read() is None


def test_uniform_use_has_no_divergence_and_one_slot_the_most():
    window = UsageWindow(64)
    window.add(torch.arange(64).repeat(3).view(-1, 2, 3))
    assert window.read().used == 1.0 and window.read().kl == pytest.approx(0.0, abs=1e-12)
    window.reset()
    window.add(torch.full((5, 2, 3), 7))
    assert window.read().used == 1 / 64 and window.read().kl == pytest.approx(log(64))


def test_watches_each_layer_of_a_model_and_pauses():
    config = MemoryLlamaConfig(
        memory_layers=[0, 2], memory_slots=64, memory_heads=2, memory_top_k=4, vocab_size=40, hidden_size=16,
        intermediate_size=24, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    model = MemoryLlamaForCausalLM(config)
    use = SlotUsage(model)
    tokens = torch.arange(10).view(1, 10)
    use.count_only(torch.arange(10) < 4)
    model(tokens)
    with use.paused():
        model(tokens)
    assert set(use.read()) == {"0", "2"}
    assert [found.lookups for found in use.last.values()] == [4 * 2 * 4] * 2
    assert use.read().keys() == use.last.keys()


def test_a_layer_without_an_observer_counts_nothing():
    assert MemoryLayer(16, 64, top_k=4).observe is None
