"""The rotary positions that memx finds in a model, against what the model's own function turned."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
import transformers
from memx import namm
from memx.errors import MemxError
from memx.namm.host_rotary import find_rotary
from memx.namm.policies.rotary import UNKNOWN, no_rotation
from memx.transformers_compat import reset_rotary
from transformers.models.llama import modeling_llama

from .architectures import tiny_model
from .features_reference import AHEAD, record
from .hosts import make_host, prompts

LENGTH = 40
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
HOSTS = {
    "llama": lambda: make_host("llama").double(),
    "gemma": lambda: make_host("gemma").double(),
    "yarn": lambda: make_host("llama", rope_parameters=YARN).double(),
    "partial": lambda: tiny_model(transformers.GPTNeoXConfig),
    "partial, interleaved": lambda: tiny_model(transformers.GlmConfig),
}


@torch.no_grad()
@pytest.mark.parametrize("name", HOSTS)
def test_it_turns_back_what_the_model_turned(name):
    host, (ids,) = HOSTS[name](), prompts(LENGTH)
    found = find_rotary(host, host.base_model, host.config.num_hidden_layers)
    places, first = torch.arange(LENGTH), torch.tensor([LENGTH])
    for layer, rotary in zip(record(host, ids), found, strict=True):
        assert not torch.allclose(layer.key, layer.plain_key)
        torch.testing.assert_close(rotary.unrotate(layer.key, places), layer.plain_key, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(rotary.rotate(layer.plain_key, places), layer.key, rtol=1e-4, atol=1e-5)
        mean = rotary.mean_rotation(first, AHEAD)[0].double()
        torch.testing.assert_close(mean, layer.rotation, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_it_finds_a_model_that_turns_the_other_way(monkeypatch):
    usual = modeling_llama.apply_rotary_pos_emb
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", lambda q, k, c, s: usual(q, k, c, -s))
    host, (ids,) = make_host("llama").double(), prompts(LENGTH)
    for layer, rotary in zip(record(host, ids), find_rotary(host, host.model, 2), strict=True):
        back = rotary.unrotate(layer.key, torch.arange(LENGTH))
        torch.testing.assert_close(back, layer.plain_key, rtol=1e-4, atol=1e-5)


@dataclass(frozen=True)
class Unrotated:
    """Keeps all tokens, and lists their keys before rotary positions."""

    every: int = 128
    keys: list = field(default_factory=list)

    name = "unrotated"
    rule = namm.Rule(threshold=-torch.inf)
    hop = context = width = 0

    def scores(self, view):
        self.keys.append(view.rotary.unrotate(view.key, view.recent.positions))
        return torch.zeros(view.key.shape[:3])


@torch.no_grad()
def test_frequencies_that_depend_on_the_length_are_those_of_the_text():
    host = make_host("llama", rope_parameters=DYNAMIC, max_position_embeddings=64).double()
    (ids,) = prompts(128)
    wanted = [layer.plain_key for layer in record(host, ids)]
    reset_rotary(host.model)  # of the longer text that the record also looked at
    for pieces in ([128], [100, 28]):
        policy = Unrotated()
        with namm.attach(host, policy) as attached:
            cache = attached.new_cache()
            cache.length = 128
            for part in ids[None].split(pieces, 1):
                host(part, past_key_values=cache)
        for keys, plain in zip(policy.keys, wanted, strict=True):
            torch.testing.assert_close(keys[0], plain, rtol=1e-4, atol=1e-5)


def test_a_model_without_rotary_positions_turns_nothing():
    host = make_host("gpt2")
    for rotary in find_rotary(host, host.transformer, 2):
        x = torch.rand(3, 8)
        assert rotary.known and torch.equal(rotary.unrotate(x, torch.arange(3)), x)
        assert torch.equal(rotary.mean_rotation(torch.tensor([5]), 7)[0], torch.eye(8))


@torch.no_grad()
def test_a_rotation_that_is_not_found_is_refused_where_it_is_needed(monkeypatch):
    usual = modeling_llama.apply_rotary_pos_emb
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", lambda q, k, c, s: usual(q, k, c.roll(1, -1), s))
    host, (ids,) = make_host(), prompts(48)
    assert find_rotary(host, host.model, 2) == [UNKNOWN] * 2
    small = namm.Namm(scorer="linear", features=namm.NO_PASS)
    for policy in (namm.make_policy("expected_attention", budget=0.5), small):
        with pytest.raises(MemxError, match="keys before rotary positions, and those of layer 0") as caught:
            namm.attach(host, policy).__enter__()
        assert caught.value.hint
    with namm.attach(host, namm.make_policy("keydiff", budget=0.5, every=48)) as attached:
        host(ids[None])
    assert attached.cache.sizes()[0].tokens == 24
    with pytest.raises(MemxError, match="rotation is not known"), namm.attach(host, Unrotated(48)):
        host(ids[None])
    assert no_rotation(8).known and not UNKNOWN.known
