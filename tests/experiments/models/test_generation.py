"""Greedy decoding and likelihoods against an unbatched loop without a cache, in float64."""

import pytest
import torch
from memx.experiments.models.generation import (
    end_tokens,
    generate_texts,
    greedy_tokens,
    left_padded,
    log_likelihoods,
    next_token,
)

from ...namm.hosts import make_host, prompts

NEW = 12


class Numbers:
    """A tokenizer whose text is the token ids, 0 left out."""

    def batch_decode(self, rows, skip_special_tokens):
        return [" ".join(str(token) for token in row if token) for row in rows.tolist()]


@pytest.fixture(scope="module")
def host():
    return make_host().double()


@torch.no_grad()
def unbatched(host, prompt, ends):
    """New tokens of one prompt: everything is read anew for each."""
    ids = prompt.tolist()
    while len(ids) < len(prompt) + NEW and not (len(ids) > len(prompt) and ids[-1] in ends):
        ids.append(host(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item())
    return ids[len(prompt) :]


@torch.no_grad()
def ends_of(host, prompt):
    """A token that the prompt's continuation reaches in its middle."""
    return [unbatched(host, prompt, [])[NEW // 2]]


def test_prompts_of_several_lengths_end_on_their_own(host):
    rows = prompts(9, 30, 17)
    ends = ends_of(host, rows[1])
    host.generation_config.eos_token_id = ends
    try:
        texts = generate_texts(host, Numbers(), [row.tolist() for row in rows], NEW, pad=0)
        assert end_tokens(host) == ends
    finally:
        host.generation_config.eos_token_id = None
    expected = [unbatched(host, row, ends) for row in rows]
    assert texts == [" ".join(map(str, tokens)) for tokens in expected]
    assert len(expected[1]) < NEW


@torch.no_grad()
@pytest.mark.parametrize("told", [False, True])
def test_a_cache_goes_on_token_by_token(host, told):
    both = torch.stack(prompts(20, 20, seed=3))
    ends = ends_of(host, both[0])
    token, cache = next_token(host, both, start=0 if told else None)
    found = greedy_tokens(host, token, cache, NEW, ends=ends, fill=5, start=20 if told else None)
    for row, prompt in zip(found.tolist(), both, strict=True):
        expected = unbatched(host, prompt, ends)
        if expected[-1] in ends:
            expected[-1:] = [5] * (found.shape[1] - len(expected) + 1)
        assert row == expected


@torch.no_grad()
def test_without_a_filling_end_tokens_stay(host):
    (prompt,) = prompts(20)
    ends = ends_of(host, prompt)
    token, cache = next_token(host, prompt[None])
    assert greedy_tokens(host, token, cache, NEW, ends=ends)[0].tolist() == unbatched(host, prompt, ends)
    assert greedy_tokens(host, token, cache, 1, ends=ends).tolist() == token.tolist()


@torch.no_grad()
def test_likelihoods_are_those_of_one_token_after_another(host):
    rows = prompts(12, 15)
    ids, mask = left_padded([row.tolist() for row in rows], 0, host.device)
    places = (mask.cumsum(-1) - 1).clamp_min(0)
    logits = host(ids, attention_mask=mask, position_ids=places).logits[:, -6:-1]
    found = log_likelihoods(logits, ids[:, -5:])
    for row, values in zip(rows, found, strict=True):
        for back, value in zip(range(5, 0, -1), values, strict=True):
            expected = host(row[None, :-back]).logits[0, -1].log_softmax(-1)[row[-back]]
            assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert torch.allclose(log_likelihoods(logits.transpose(1, 2), ids[:, -5:], dim=1), found)
