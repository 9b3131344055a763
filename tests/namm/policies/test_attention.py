"""Queries of a layer that meet its keys, by themselves."""

import pytest
import torch
from memx.namm.policies.attention import Attention


def attention(query, key, exists):
    queries, keys = query.shape[2], key.shape[2]
    own = torch.arange(keys - queries, keys).expand(len(query), 1, -1)
    positions = torch.arange(keys).expand(len(query), key.shape[1], -1)
    return Attention(query, key, torch.empty(0), own, positions, exists, 0.5, None)


@pytest.mark.parametrize("some_exist", [False, True])
def test_copies_that_share_their_memory_have_the_log_sum_exp_of_their_own_copies(some_exist):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 3, 8, generator=generator, dtype=torch.float64)
    key = torch.randn(1, 2, 9, 8, generator=generator, dtype=torch.float64)
    exists = torch.arange(9).expand(1, 2, 9) >= 2 if some_exist else None
    shared = [None if one is None else one.expand(5, *one.shape[1:]) for one in (query, key, exists)]
    apart = [None if one is None else one.clone() for one in shared]
    found = attention(*shared).log_sum_exp()
    assert found.shape == (5, 4, 3)
    torch.testing.assert_close(found, attention(*apart).log_sum_exp())


def test_sequences_that_share_queries_alone_are_told_apart():
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 3, 8, generator=generator, dtype=torch.float64).expand(2, -1, -1, -1)
    key = torch.randn(2, 2, 9, 8, generator=generator, dtype=torch.float64)
    found = attention(query, key, None).log_sum_exp()
    for b in range(2):
        torch.testing.assert_close(found[b], attention(query[:1], key[b : b + 1], None).log_sum_exp()[0])


def test_sequences_with_other_tokens_in_the_same_memory_are_told_apart():
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 3, 8, generator=generator, dtype=torch.float64).expand(2, -1, -1, -1)
    key = torch.randn(1, 2, 9, 8, generator=generator, dtype=torch.float64).expand(2, -1, -1, -1)
    exists = torch.arange(9).expand(2, 2, 9) >= torch.tensor([0, 4])[:, None, None]
    found = attention(query, key, exists).log_sum_exp()
    assert (found[0] - found[1]).abs().min() > 0
