"""kvpress's presses side by side against each of them by itself; where kvpress is not installed nothing of it runs."""

from importlib.util import find_spec

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.config.eviction.policy_eval import EAGER
from memx.experiments.data.long_context.example import Example
from memx.experiments.eviction.answers import Prompt, answer, write
from memx.experiments.eviction.kvpress_presses import check_host, measure_presses
from memx.experiments.eviction.measurements import CacheSize
from memx.results.namm.rows import PRESSES
from transformers import DynamicCache

from ...namm.hosts import make_host

needs_kvpress = pytest.mark.skipif(find_spec("kvpress") is None, reason="kvpress is not installed")


class Letters:
    """A tokenizer to write with."""

    pad_token_id = 0

    def batch_decode(self, ids, skip_special_tokens=True):
        return [" ".join(str(one) for one in row.tolist()) for row in ids]


def draw(context=150, seed=1):
    ids = torch.randint(3, 96, (context + 9,), generator=torch.Generator().manual_seed(seed))
    example = Example("made", "context", "question", ("answer",), "string_match_all", max_new_tokens=4)
    return Prompt(example, ids[:context], ids[context:], 3)


def test_hosts_with_windows_are_refused():
    check_host(make_host("llama"))
    with pytest.raises(MemxError, match="sliding-window attention") as caught:
        check_host(make_host("mistral"))
    assert "--third-party" in caught.value.hint


@torch.no_grad()
def test_a_cache_of_transformers_answers_at_the_position_it_is_told():
    host, prompt = make_host(), draw()
    cache = DynamicCache()
    host(prompt.context[None].expand(2, -1), past_key_values=cache)
    both = torch.cat([prompt.context, prompt.rest])[None]
    logits, wanted = host(both).logits[0, -4:-1], prompt.rest[-3:]
    likelihood = logits.log_softmax(-1).gather(-1, wanted[:, None]).mean()
    told = write(host, prompt, _copy(cache), Letters())
    usual = host.generate(both[:, :-3], max_new_tokens=4, do_sample=False)[0, -4:]
    assert told == [" ".join(map(str, usual.tolist()))] * 2
    found = answer(host, prompt, cache)
    assert found.log_likelihood.tolist() == pytest.approx([float(likelihood)] * 2, abs=1e-4)
    assert found.exact.tolist() == [bool((logits.argmax(-1) == wanted).all())] * 2


def _copy(cache):
    other = DynamicCache()
    for number, layer in enumerate(cache.layers):
        other.update(layer.keys, layer.values, number)
    return other


@needs_kvpress
@pytest.mark.filterwarnings("ignore")  # its imports warn
@torch.no_grad()
def test_presses_side_by_side_do_as_each_does_alone():
    import kvpress

    host, prompt = make_host(), draw()
    presses = [name for name in PRESSES if name != "RandomPress"]  # which draws anew each time
    sizes = [(0.5, CacheSize(0.5)), (0.3, CacheSize(None, "own", "namm"))]
    found = measure_presses(host, prompt, presses, sizes, Letters())
    assert [(one.variant, one.at) for one in found] == [(f"kvpress {name}", at) for _, at in sizes for name in presses]
    for one, (name, share) in zip(found, [(name, share) for share, _ in sizes for name in presses], strict=True):
        cache = DynamicCache()
        usual = host.config._attn_implementation
        host.set_attn_implementation("eager" if name in EAGER else usual)
        with getattr(kvpress, name)(compression_ratio=1 - share)(host):
            host(prompt.context[None], past_key_values=cache)
        host.set_attn_implementation(usual)
        kept = cache.layers[0].keys.shape[2]
        assert kept == int(150 * share) and one.cache.kept == pytest.approx(kept / 150)
        assert one.cache.kv_bytes == sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        assert [one.text] == write(host, prompt, _copy(cache), Letters())
        told = answer(host, prompt, cache)
        assert one.log_likelihood == pytest.approx(float(told.log_likelihood[0]), abs=1e-4), name
        assert one.exact == bool(told.exact[0])
