"""kvpress's KVzipPress against memx's scores, and what it keeps; skipped where kvpress is not installed."""

import pytest
import torch
from memx.experiments.eviction.kvpress_kvzip import press_scores
from memx.experiments.eviction.kvzip import kvzip_scores
from memx.experiments.eviction.measurements import CacheSize
from memx.experiments.policy_eval.third_party import measure_third_party

from ...namm.hosts import make_host
from ..policy_eval.tiny_evaluation import config
from .test_kvpress import draw, needs_kvpress

pytestmark = [needs_kvpress, pytest.mark.filterwarnings("ignore")]  # its imports warn


class Letters:
    """A tokenizer of letters that ignores newlines: then memx's instruction and the press's are the same tokens."""

    bos_token_id, eos_token_id, pad_token_id, unk_token_id, all_special_ids, chat_template = None, 2, 0, None, (), None

    def __call__(self, texts, **_):
        return {"input_ids": [self._ids(text) for text in texts]}

    def encode(self, text, **_):
        return torch.tensor([self._ids(text)], dtype=torch.long)

    def _ids(self, text):
        return [3 + ord(letter) % 90 for letter in text if letter != "\n"]


@torch.no_grad()
def test_its_scores_are_memxs():
    host, prompt = make_host(), draw()
    found, own = press_scores(host, Letters(), prompt.context), kvzip_scores(host, Letters(), prompt.context)
    torch.testing.assert_close(found[..., 4:], own[..., 4:], rtol=1e-4, atol=1e-6)
    assert found[..., :4].min() > own.max()  # it always keeps these


@torch.no_grad()
def test_it_keeps_what_the_press_would_and_frees_the_rest():
    from kvpress import KVzipPress

    host, prompt = make_host(), draw(160)  # a multiple of 16: the tokens after one always stay
    asked = config(peers=True, policies=("kvzip",), budgets=(0.5, 0.2))
    found = measure_third_party(asked, host, Letters(), prompt, [], {})
    assert [(one.variant, one.at) for one in found] == [("kvpress KVzipPress", CacheSize(at)) for at in (0.5, 0.2)]
    scores = press_scores(host, Letters(), prompt.context)
    for one, share in zip(found, (0.5, 0.2), strict=True):
        press = KVzipPress(compression_ratio=1 - share)
        press.score_val = scores[:, None].clone()
        press.compress_post(host)
        dropped = torch.tensor([len(layer.self_attn.masked_key_indices[2]) for layer in host.model.layers])
        kept = 1 - dropped / scores[0].numel()
        assert one.cache.layers == pytest.approx(kept.tolist(), abs=1.01 / scores[0].numel())
        assert one.cache.kv_bytes == pytest.approx(share * scores.numel() * 2 * host.config.head_dim * 4, rel=0.01)
        for layer in host.model.layers:
            layer.self_attn.masked_key_indices = None
