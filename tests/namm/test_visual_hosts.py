"""Models of images and video under a policy: the plain model if all is kept, a smaller cache of images if not."""

import pytest
import torch
from memx import namm
from memx.errors import MemxError
from memx.namm.policies.base import Rule
from memx.namm.policies.heuristics import Full

from .hosts import make_host
from .visual_hosts import AXES, NAMES, visual_host, visual_prompt

KEEP_ALL = namm.Namm(rule=Rule(budget=1.0), every=16)  # in pieces, with all that a NAMM notes


def generated(model, inputs):
    output = model.generate(
        **inputs, max_new_tokens=5, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    return output.sequences, torch.stack(output.logits)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_model_with_pictures_is_the_plain_one_if_everything_is_kept(name):
    model, inputs = visual_host(name), visual_prompt(name)
    plain, wanted = model(**inputs).logits, generated(model, inputs)
    with namm.attach(model, Full()) as attached:
        assert torch.equal(model(**inputs).logits, plain)
        assert attached.cache.kept_share().eq(1).all()
        got = generated(model, inputs)
        assert torch.equal(got[0], wanted[0]) and torch.equal(got[1], wanted[1])
    with namm.attach(model, KEEP_ALL):
        torch.testing.assert_close(model(**inputs).logits, plain, rtol=1e-8, atol=1e-8)
        got = generated(model, inputs)
        assert torch.equal(got[0], wanted[0])
        torch.testing.assert_close(got[1], wanted[1], rtol=1e-8, atol=1e-8)
    assert torch.equal(model(**inputs).logits, plain)  # afterwards as before


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_policy_evicts_images_from_the_cache_and_the_pictures_matter(name):
    model, inputs = visual_host(name), visual_prompt(name)
    length = inputs["input_ids"].shape[1]
    policy = namm.make_policy("knorm", budget=0.5, every=16)
    with namm.attach(model, policy) as attached:
        evicted = model(**inputs).logits
        cache = attached.cache
        assert all(size.tokens < length * 0.8 for size in cache.sizes())
        kinds = namm.visual_tokens(model, inputs["input_ids"][0])
        pictures = sum(kinds.values()).bool()
        kept = cache.kept_share()
        assert kept.shape == (2, length) and 0 < kept[:, pictures].mean() < 1
    assert not torch.allclose(evicted, model(**inputs).logits)
    pixels = next(key for key in inputs if key.startswith("pixel"))
    assert not torch.allclose(model(**inputs | {pixels: 1 - inputs[pixels]}).logits, model(**inputs).logits)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_left_padding_changes_nothing(name):
    model, inputs = visual_host(name), visual_prompt(name)
    padded = dict(inputs)
    for key in ("input_ids", "mm_token_type_ids"):
        if key in inputs:
            padded[key] = torch.cat([torch.zeros(1, 3, dtype=inputs[key].dtype), inputs[key]], 1)
    padded["attention_mask"] = (padded["input_ids"] != 0).long()
    with namm.attach(model, KEEP_ALL) as attached:
        got = model(**padded).logits[:, 3:]
        assert attached.cache.seen == [inputs["input_ids"].shape[1]]
    torch.testing.assert_close(got, model(**padded).logits[:, 3:], rtol=1e-8, atol=1e-8)


@torch.no_grad()
def test_positions_of_several_axes_reach_every_piece():
    """Whether the axes of a picture's positions are those of the whole: without, keeping all would not be plain."""
    model, inputs = visual_host("qwen2_vl"), visual_prompt("qwen2_vl")
    decoder = model.get_decoder()
    asked = []

    def note(_, args, kwargs):
        asked.append(kwargs["position_ids"] if "position_ids" in kwargs else args[1])

    handle = decoder.rotary_emb.register_forward_pre_hook(note, with_kwargs=True)
    model(**inputs)
    whole = asked.pop()
    with namm.attach(model, KEEP_ALL):
        asked.clear()
        model(**inputs)
    handle.remove()
    assert len(asked) > 2 and torch.equal(torch.cat(asked, 2), whole)
    assert not torch.equal(whole[1], whole[2])  # height and width differ


@pytest.mark.parametrize("name", AXES)
def test_policies_that_turn_keys_back_are_refused_where_positions_have_several_axes(name):
    policy = namm.make_policy("expected_attention", budget=0.5, every=16)
    with pytest.raises(MemxError, match="keys before rotary positions"), namm.attach(visual_host(name), policy):
        pass


def test_positions_of_other_shapes_are_refused():
    model, inputs = visual_host("qwen2_vl"), visual_prompt("qwen2_vl")
    length = inputs["input_ids"].shape[1]
    packed = torch.arange(length).remainder(20).expand(4, 1, -1)
    with namm.attach(model, KEEP_ALL):
        with pytest.raises(MemxError, match="not positions of text"):
            model(**inputs, position_ids=torch.zeros(2, 1, length, dtype=torch.long))
        with pytest.raises(MemxError, match="not consecutive"):
            model(**inputs, position_ids=packed)


def test_tokens_of_pictures_are_told_apart_by_the_config():
    ids = torch.tensor([[1, 5, 6, 9]])
    kinds = namm.visual_tokens(visual_host("llava_next_video"), ids)
    assert kinds["image"].tolist() == [[False, True, False, False]]
    assert kinds["video"].tolist() == [[False, False, True, False]]
    assert set(namm.visual_tokens(visual_host("smolvlm"), ids)) == {"image"}
    with pytest.raises(MemxError, match="names no image or video token"):
        namm.visual_tokens(make_host("llama"), ids)
