"""The brute force of the small scorer's inputs against things that are known otherwise."""

import pytest
import torch
from transformers import PreTrainedModel

from .features_reference import NAMES, expected_attention, nine_inputs, record
from .hosts import make_host, prompts


@pytest.fixture(params=["llama", "gemma", "gpt2"], scope="module")
def host(request) -> PreTrainedModel:
    return make_host(request.param).double()


def test_recording_leaves_a_forward_pass_as_it_was(host):
    (ids,) = prompts(50)
    with torch.no_grad():
        before = host(input_ids=ids[None]).logits
        layers = record(host, ids)
        torch.testing.assert_close(host(input_ids=ids[None]).logits, before, rtol=0, atol=0)
    assert len(layers) == 2
    for layer in layers:
        assert nine_inputs(layer).shape == (layer.key.shape[0], 50, len(NAMES))
        assert nine_inputs(layer).isfinite().all()


def test_keys_are_the_caches(host):
    (ids,) = prompts(50)
    with torch.no_grad():
        cache = host(input_ids=ids[None]).past_key_values
    for own, layer in zip(cache.layers, record(host, ids), strict=True):
        keys = own.keys[0]
        torch.testing.assert_close(layer.key[:, -keys.shape[1] :], keys)


def test_the_mean_rotation_is_that_of_queries_to_come():
    """A plain query that repeats attends from 512 later positions, on average, as the rotated mean does."""
    host = make_host().double()
    (ids,) = prompts(20)
    layer = record(host, ids)[0]
    longer = record(host, torch.cat([ids, ids[-1:].expand(512)]))[0]
    # layer 0 sees the token alone: the same plain query at positions 20 to 531
    expected = longer.query[:, 20:].mean(1)
    torch.testing.assert_close((layer.rotation @ layer.plain_query[:, -1:].mT).mT[:, 0], expected)


def test_expected_attention_is_the_mean_of_normal_queries():
    host = make_host().double()
    layer = record(host, prompts(24)[0])[1]
    layer.rotation = torch.eye(layer.rotation.shape[0], dtype=torch.float64)
    found = expected_attention(layer)
    assert (found[:, :4] == 0).all()
    torch.testing.assert_close(found.sum(1), torch.ones(found.shape[0], dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    queries = layer.plain_query[:, 4:]  # [Hq, n, d]
    noise = torch.randn(len(queries), 30_000, queries.shape[1], generator=generator, dtype=torch.float64)
    centred = queries - queries.mean(1, keepdim=True)
    drawn = queries.mean(1, keepdim=True) + noise @ centred / queries.shape[1] ** 0.5
    keys = layer.key.repeat_interleave(2, 0)[:, 4:]
    mean = (layer.scale * drawn @ keys.mT).exp().mean(1)  # E[exp(scale q.k)]
    shares = (mean / mean.sum(-1, keepdim=True)).unflatten(0, (2, 2)).mean(1)
    torch.testing.assert_close(found[:, 4:], shares, rtol=0.2, atol=4e-3)
