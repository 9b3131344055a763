"""Every decoder of transformers under a policy that keeps all: the plain model, or refused before the first token."""

import pytest
import torch
import transformers
from memx import namm
from memx.errors import MemxError
from memx.experiments.base_models.load import check_attachable
from memx.namm.policies.base import Rule
from packaging.version import Version
from transformers import DynamicCache
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from .architectures import ORIGINAL, WINDOW, CannotBeMade, config_classes, tiny_config, tiny_model
from .hosts import left_padded, make_host, prompts

KEEP_ALL = namm.Namm(rule=Rule(budget=1.0), every=16)
LENGTHS = (15, WINDOW + 9, 150)  # shorter than an interval, longer than a window, longer than all
FEW = ["olmo3", "gpt2", "gpt_oss", "moshi"]
# the guide says so of these
NAMED = """llama mistral qwen2 qwen3 qwen3_moe gemma gemma3_text gpt2 opt gpt_neox phi phi3 mixtral granite olmo2
    smollm3 starcoder2 cohere""".split()
REFUSED = [
    "gemma2",
    "llama4_text",
    "falcon",
    "bloom",
    "stablelm",
    "mamba",
    "gpt_oss",
    "deepseek_v3",
    "roberta",
    "moshi",
]
ROPE = {
    "linear": dict(factor=4.0),
    "dynamic": dict(factor=4.0),
    "yarn": dict(factor=4.0, original_max_position_embeddings=ORIGINAL),
    "longrope": dict(
        factor=4.0, original_max_position_embeddings=ORIGINAL, short_factor=[1.0] * 4, long_factor=[1.5, 2, 4, 8]
    ),
    "llama3": dict(
        factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=ORIGINAL
    ),
    "proportional": dict(partial_rotary_factor=0.5),
}  # fmt: skip


def same_as_plain(model, lengths=LENGTHS) -> bool | str:
    """Whether a model that keeps all is the plain one, in one piece and in several; or why it is refused."""
    for length in lengths:
        ids = prompts(length)[0][None]
        wanted, in_pieces = model(ids, use_cache=False).logits, pieces(model, ids, model)
        try:
            with namm.attach(model, KEEP_ALL):
                refused = None
        except MemxError as error:
            refused = str(error)
        if refused:
            assert "\n" not in refused and len(refused) < 200
            return refused
        with namm.attach(model, KEEP_ALL) as attached:  # nothing may be refused from here on
            got = model(ids).logits
            assert attached.cache.seen == [length]
            close(got, wanted)
            close(pieces(model, ids, attached), in_pieces)
    return True


def pieces(model, ids, maker):
    """The logits of pieces, one token at a time at the end; maker: the model alone, or what makes its caches."""
    cache = maker.new_cache() if hasattr(maker, "new_cache") else DynamicCache(config=model.config.get_text_config())
    sizes = [ids.shape[1] - 3 - (ids.shape[1] - 3) // 3, (ids.shape[1] - 3) // 3, 1, 1, 1]
    try:
        return torch.cat([model(part, past_key_values=cache).logits for part in ids.split(sizes, 1)], 1)
    except (ValueError, TypeError, AttributeError, RuntimeError, AssertionError):
        if maker is model:
            return None  # takes no such cache itself; it is refused, as is checked after this
        raise


def close(got, wanted):
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def verdict(name) -> str:
    """accepted, refused: why, or skipped: why."""
    kind = config_classes()[name]
    try:
        model = tiny_model(kind)
        model(prompts(20)[0][None], use_cache=False)
    except CannotBeMade as error:
        return f"skipped: {error}"
    except Exception as error:  # the plain model itself, with such sizes
        return f"skipped: does not run by itself: {' '.join(str(error).split())[:100]}"
    try:
        check_attachable(model.config)
        early = None
    except MemxError as error:
        early = str(error)
    result = same_as_plain(model)
    if result is True:
        assert early is None, early
        return "accepted"
    return f"refused: {result}"


@pytest.mark.parametrize("name", FEW)
def test_a_model_is_the_plain_one_when_everything_is_kept_or_refused_before_the_first_token(name):
    found = verdict(name)
    assert found.startswith("refused" if name in REFUSED else "accepted"), found


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(config_classes()) - set(FEW)))
def test_every_model_is_the_plain_one_when_everything_is_kept_or_refused_before_the_first_token(name):
    found = verdict(name)
    print(f"{name}: {found}")
    assert name not in NAMED or found == "accepted", found
    assert name not in REFUSED or found.startswith("refused"), found
    if found.startswith("skipped"):
        pytest.skip(found)


@pytest.mark.parametrize("name", ["gpt_oss", "deepseek_v3", "doge"])
def test_attention_of_another_kind_is_found_before_weights_are_fetched(name):
    with pytest.raises(MemxError, match="does not support"):
        check_attachable(tiny_config(config_classes()[name]))


def test_every_rope_type_that_transformers_knows_has_a_test():
    assert set(ROPE_INIT_FUNCTIONS) <= {*ROPE, "default"}


def with_rope(kind):
    """A Llama with a type of rotary scaling, and how many positions it was made for: beyond these factors change."""
    rope = {"rope_type": kind, "rope_theta": 10_000.0, **ROPE[kind]}
    most = ORIGINAL if kind in ("dynamic", "linear") else 4 * ORIGINAL
    return make_host("llama", rope_parameters=rope, max_position_embeddings=most).double()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotary_factors_that_depend_on_length_are_those_of_the_whole_text(kind):
    assert same_as_plain(with_rope(kind), [ORIGINAL - 9, 150]) is True
    ids, settings = prompts(ORIGINAL - 3)[0][None], dict(max_new_tokens=6, do_sample=False)
    wanted = with_rope(kind).generate(ids, **settings)
    with namm.attach(model := with_rope(kind), KEEP_ALL):
        assert torch.equal(model.generate(ids, **settings), wanted)  # the threshold is passed while decoding


@torch.no_grad()
def test_dynamic_factors_remember_longer_texts_as_the_plain_model_does():
    plain, model = with_rope("dynamic"), with_rope("dynamic")
    for length in (150, ORIGINAL + 30, 40, ORIGINAL + 30):
        ids = prompts(length)[0][None]
        wanted = plain(ids, use_cache=False).logits
        with namm.attach(model, KEEP_ALL):
            close(model(ids).logits, wanted)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("kind", [*ROPE])
def test_rotary_factors_of_every_kind_are_those_of_the_whole_text(kind):
    if kind not in ROPE_INIT_FUNCTIONS:
        pytest.skip(f"this transformers has no rope type {kind}")
    for length in (ORIGINAL - 9, ORIGINAL + 1, 150, ORIGINAL + 30, 40):
        assert same_as_plain(with_rope(kind), [length]) is True
    rows = prompts(150, ORIGINAL - 10)
    ids, mask = left_padded(rows)
    places = (mask.cumsum(1) - 1).clamp_min(0)
    wanted = with_rope(kind)(ids, attention_mask=mask, position_ids=places, use_cache=False).logits
    with namm.attach(model := with_rope(kind), KEEP_ALL):
        got = model(ids, attention_mask=mask, position_ids=places).logits
    close(got[mask == 1], wanted[mask == 1])
    for start in (ORIGINAL - 5, ORIGINAL + 5):
        ids = prompts(start)[0][None]
        for more in ({}, dict(num_beams=2), *([dict(prefill_chunk_size=20)] if chunks_prompts() else [])):
            settings = dict(max_new_tokens=12, do_sample=False, **more)
            wanted = with_rope(kind).generate(ids, **settings)
            with namm.attach(model := with_rope(kind), KEEP_ALL):
                assert torch.equal(model.generate(ids, **settings), wanted), more


def chunks_prompts() -> bool:
    return Version(transformers.__version__) >= Version("5.17")


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", ["phi3", "phimoe"])
def test_longrope_models_switch_their_factors_where_the_plain_ones_do(name):
    rope = {"rope_type": "longrope", "rope_theta": 10_000.0, "short_factor": [1.0] * 4, "long_factor": [1.5, 2, 4, 8]}
    rope |= {"original_max_position_embeddings": ORIGINAL, "short_mscale": 1.1, "long_mscale": 1.3, "factor": 8.0}
    more = {} if name == "phimoe" else dict(original_max_position_embeddings=ORIGINAL)
    made = lambda: tiny_model(config_classes()[name], rope_parameters=dict(rope), sliding_window=None, **more)  # noqa: E731
    assert same_as_plain(made(), [ORIGINAL - 9, ORIGINAL + 1, 150]) is True
    ids = prompts(ORIGINAL - 5)[0][None]
    settings = dict(max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
    wanted = made().generate(ids, **settings)
    with namm.attach(model := made(), KEEP_ALL):
        assert torch.equal(model.generate(ids, **settings), wanted)


@torch.no_grad()
def test_the_length_of_a_text_that_comes_in_parts_can_be_set():
    model, ids = with_rope("dynamic"), prompts(150)[0][None]
    wanted = model(ids, use_cache=False).logits
    with namm.attach(model, KEEP_ALL) as attached:
        cache = attached.new_cache()
        cache.length = 150
        got = [model(part, past_key_values=cache).logits for part in ids.split(50, 1)]
        cache.reset()  # of the next text nothing is known
        again = model(ids[:, :40], past_key_values=cache).logits
    close(torch.cat(got, 1), wanted)
    close(again, model(ids[:, :40], use_cache=False).logits)


def test_a_model_too_short_for_a_trial_is_refused_in_one_line():
    short = transformers.GPT2Config(vocab_size=50, n_positions=16, n_embd=8, n_layer=1, n_head=1)
    model, message = transformers.GPT2LMHeadModel(short).eval(), "GPT2LMHeadModel does not run with an eviction policy"
    with pytest.raises(MemxError, match=message), namm.attach(model, KEEP_ALL):
        pass
