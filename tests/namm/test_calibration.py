"""Calibration against the definition: full attention matrices in float64, the spectrum of each key by its own sum."""

import math

import pytest
import torch
from memx.errors import MemxError
from memx.namm import Namm, attach, calibrate
from memx.namm.calibration import Calibration
from memx.namm.policies.base import Attention, View

from .hosts import left_padded, make_host, prompts

EVERY = 48


@torch.no_grad()
def spectra(host, ids, every):
    """What a NAMM reads of every token that is there at every run, [n, 17], float64, from all rows of attention."""
    phases = torch.arange(17, dtype=torch.float64)[:, None] * torch.arange(32) / 32
    waves = torch.exp(-2j * math.pi * phases) * (0.5 - 0.5 * torch.cos(2 * math.pi * torch.arange(32) / 32))
    window = getattr(host.config, "sliding_window", None)
    found = []
    for attention in host(ids[None], output_attentions=True).attentions:
        groups = getattr(host.config, "num_key_value_heads", host.config.num_attention_heads)
        rows = attention[0].unflatten(0, (groups, -1)).mean(1)  # [H, N, N]
        rows = torch.cat([torch.zeros(groups, 16, len(ids), dtype=torch.float64), rows], 1)
        for end in range(every, len(ids) + 1, every):
            frames = torch.stack([(waves @ rows[:, at : at + 32].to(waves.dtype)).abs() for at in range(0, end, 16)])
            weights = (1 - 0.99**16) * 0.99 ** torch.arange(end - 16, -1, -16, dtype=torch.float64)
            average = torch.einsum("f,fhkt->htk", weights, frames)
            # the last run dropped what no later query would see
            first = 0 if window is None else max(0, end - every - (window - 1))
            found.append(average[:, first:end].flatten(0, 1))
    return torch.cat(found)


def expected(name, rows, every):
    host = make_host(name, attn_implementation="eager").double()
    seen = torch.cat([spectra(host, row, every) for row in rows if len(row) >= every])
    return seen.mean(0), seen.var(0, unbiased=False)


def agree(found, wanted):
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == torch.float32 and ours.shape == (17,)
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2"])
def test_mean_and_variance_are_those_of_the_definition(name):
    rows = prompts(EVERY, 100, 30, 144)
    agree(calibrate(make_host(name), iter(rows), every=EVERY), expected(name, rows, EVERY))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_batches_and_padding_change_nothing(name):
    rows, host = prompts(100, 144, 97, 30, 144), make_host(name)
    alone = calibrate(host, rows, every=EVERY)
    agree(alone, expected(name, rows, EVERY))
    ids, mask = left_padded(rows[:4])
    lengths = torch.tensor([len(row) for row in rows[:4]])
    right = torch.arange(144) < lengths[:, None]
    pushed = torch.zeros_like(ids).masked_scatter(right, torch.cat(rows[:4]))
    for padded, there in ((ids, mask), (pushed, right)):
        together = calibrate(host, [{"input_ids": padded, "attention_mask": there}, rows[4][None]], every=EVERY)
        for ours, theirs in zip(together, alone, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-9)


def test_it_is_the_normalisation_of_a_namm_that_keeps_everything():
    """The same numbers reach the scorer: normalised, they have mean 0 and variance 1."""
    host, (ids,) = make_host(), prompts(EVERY)
    mean, variance = calibrate(host, [ids], every=EVERY)
    with torch.no_grad(), attach(host, Namm(every=EVERY)) as attached:
        host(ids[None])
    states = torch.cat([layer.state.policy_state.flatten(0, 2) for layer in attached.cache.layers])
    normal = (states - mean) / variance.sqrt()
    torch.testing.assert_close(normal.mean(0), torch.zeros(17), rtol=0, atol=1e-3)
    torch.testing.assert_close(normal.var(0, unbiased=False), torch.ones(17), rtol=1e-3, atol=0)


def test_slots_without_a_token_do_not_count():
    state, exists = torch.rand(2, 3, 5, 17), torch.rand(2, 3, 5) < 0.5
    empty, policy = torch.empty(0), Calibration(EVERY)
    for there in (exists, None):
        recent = Attention(empty, state, empty, empty, torch.arange(5).expand(2, 3, 5), there, 1.0, None)
        assert policy.scores(View(0, recent, empty, state, torch.tensor([5, 5]), None)).shape == (2, 3, 5)
    mean, variance = policy.normalisation.result()
    seen = torch.cat([state[exists], state.flatten(0, 2)])
    torch.testing.assert_close(mean, seen.mean(0))
    torch.testing.assert_close(variance, seen.var(0, unbiased=False))


def test_nothing_is_evicted_and_the_host_is_left_as_it_was():
    host, (ids,) = make_host(attention_dropout=0.5), prompts(100)
    with torch.no_grad(), attach(host, Calibration(EVERY)) as attached:
        under = host(ids[None]).logits
    assert {layer.slots for layer in attached.cache.sizes()} == {100}
    torch.testing.assert_close(under, host(ids[None]).logits.detach(), rtol=1e-4, atol=1e-4)
    still = calibrate(host, [ids], every=EVERY)
    host.train()
    host.model.layers[0].eval()
    torch.manual_seed(0)
    for ours, theirs in zip(calibrate(host, [ids], every=EVERY), still, strict=True):
        assert torch.equal(ours, theirs), "dropout is off while it looks"
    assert host.training and host.model.layers[1].self_attn.training and not host.model.layers[0].training
    assert host.config._attn_implementation == "sdpa" and "forward" not in vars(host.model)


def test_prompts_that_are_too_short():
    host = make_host()
    ids, mask = left_padded(prompts(63, 20))
    wide = torch.nn.functional.pad(ids, (30, 0)), torch.nn.functional.pad(mask, (30, 0))
    batches = [prompts(12)[0], dict(zip(("input_ids", "attention_mask"), wide, strict=True))]
    with pytest.raises(
        MemxError, match=r"every prompt is shorter than .* interval of 64 tokens: the longest has 63"
    ) as caught:
        calibrate(host, batches, every=64)
    assert "longer prompts" in caught.value.hint
    with pytest.raises(MemxError, match="the longest has 0"):
        calibrate(host, [])
    with pytest.raises(MemxError, match="eviction interval must be a positive multiple of 16 tokens, got 40"):
        calibrate(host, batches, every=40)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([1, 2, 3], "input ids list are not prompts"),
        ({"ids": torch.zeros(1, 2)}, "input ids NoneType are not prompts"),
        (torch.zeros(1, 1, 4), r"input ids \[1, 1, 4\] are not prompts"),
        (torch.zeros(0, 4), "are not prompts"),
        (
            {"input_ids": torch.ones(2, 4), "attention_mask": torch.ones(2, 3)},
            r"mask \[2, 3\] does not match input ids \[2, 4\]",
        ),
    ],
)
def test_batches_of_something_else(batch, message):
    with pytest.raises(MemxError, match=message):
        calibrate(make_host(), [batch])


def test_attention_that_is_not_finite():
    host = make_host()
    with torch.no_grad():
        host.model.embed_tokens.weight[5] = torch.nan
    with pytest.raises(MemxError, match="not finite"):
        calibrate(host, [torch.full((16,), 5)], every=16)


def test_numbers_of_other_features_are_refused():
    mean, variance = calibrate(make_host("llama"), prompts(EVERY), every=EVERY)
    with pytest.raises(MemxError, match=r"mean has shape \[17\], and a NAMM .* needs \[2\]") as caught:
        Namm(mean=mean, variance=variance, scorer="linear", features=("key_norm", "value_norm"))
    assert "features=namm.features" in caught.value.hint
