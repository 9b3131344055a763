"""KVzip's scores against attention that is written out whole, for hosts with full and windowed attention."""

import pytest
import torch
from memx.experiments.eviction.answers import read
from memx.experiments.eviction.kvzip import kvzip_scores, repetition
from memx.experiments.evolution.candidates import Keep
from memx.namm import NO_PASS, Namm

from ...namm.features_reference import record
from ...namm.hosts import make_host, prompts


class Tokenizer:
    """As much of a tokenizer as is asked: each letter is a token."""

    bos_token_id, eos_token_id, pad_token_id, unk_token_id, all_special_ids = 1, 2, 0, None, ()

    def __call__(self, texts, **_):
        return {"input_ids": [[3 + ord(letter) % 90 for letter in text] for text in texts]}


@pytest.mark.parametrize("name", ["llama", "gemma"])
def test_scores_are_the_greatest_attention_while_the_context_is_repeated(name):
    host = make_host(name).double()
    (context,) = prompts(45)
    context[0] = Tokenizer.bos_token_id
    again = repetition(Tokenizer(), context)
    assert torch.equal(again[-44:], context[1:])
    layers = record(host, torch.cat([context, again]))
    expected = torch.stack([layer.weights()[:, :, 45:, :45].amax((1, 2)) for layer in layers])
    for piece in (7, 512):
        found = kvzip_scores(host, Tokenizer(), context, piece=piece)
        torch.testing.assert_close(found.double(), expected, rtol=1e-9, atol=1e-12)
    small = Namm(scorer="mlp", hidden=(8, 8), features=NO_PASS)
    with torch.no_grad():
        cache = read(host, context, Keep(namm=small))
    going_on = {"after_context": lambda policy: cache.fork(Keep(namm=small), continue_with=policy)}
    for piece in (7, 512):  # the cache stays as it is
        found = kvzip_scores(host, Tokenizer(), context, piece=piece, **going_on)
        torch.testing.assert_close(found.double(), expected, rtol=1e-9, atol=1e-12)
