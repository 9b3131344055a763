"""The n-gram memory: its hash and gate by hand, its reductions, and one text in pieces, padded, batched and beamed."""

import copy

import pytest
import torch
from memx import MemoryLlamaConfig, MemoryLlamaForCausalLM
from memx.errors import MemxError
from memx.memory_layers.engram.hashing import NgramHash, draw_multipliers
from memx.memory_layers.engram.layer import EngramLayer
from memx.memory_layers.engram.primes import table_primes, table_rows
from memx.memory_layers.engram.tokens import NgramTokens
from memx.memory_layers.engram.windows import last_tokens
from memx.memory_layers.llama import draw_weights, keep_on_host, tables_of
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, StaticCache
from transformers.cache_utils import DynamicCache

VOCABULARY = 40
GENERATOR = torch.Generator().manual_seed(0)
TEXT = torch.randint(2, VOCABULARY, (3, 12), generator=GENERATOR)


def tiny(**changes) -> MemoryLlamaForCausalLM:
    settings = dict(
        memory_kind="engram",
        memory_layers=[0, 2],
        memory_slots=100,
        memory_heads=2,
        memory_value_width=3,
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    model = MemoryLlamaForCausalLM(MemoryLlamaConfig(**{**settings, **changes})).double().eval()
    draw_weights(model, seed=0)
    with torch.no_grad():  # no convolution, and no output, is all zeros
        for name, parameter in model.named_parameters():
            if "taps" in name or "engram.value" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    return model


def seen(model, run) -> list[torch.Tensor]:
    """The slots of each lookup of every layer while `run()` runs."""
    found: list[torch.Tensor] = []
    for block in model.model.layers:
        if hasattr(block, "engram"):
            block.engram.observe = found.append
    with torch.no_grad():
        run()
    for block in model.model.layers:
        if hasattr(block, "engram"):
            block.engram.observe = None
    return found


def by_hand(tokens, orders, primes, multipliers, pad):
    """Rows of each token by Python's own integers."""
    rows = []
    for t in range(len(tokens)):
        found, offset = [], 0
        for order, of_order in zip(orders, primes, strict=True):
            mix = 0
            for back in range(order):
                token = int(tokens[t - back]) if t >= back else pad
                mix ^= token * multipliers[back]
            for prime in of_order:
                found.append(offset + mix % prime)
                offset += prime
        rows.append(found)
    return torch.tensor(rows)


def test_rows_are_those_of_the_hash_by_hand():
    primes = table_primes(100, 2, 2, 1)[0]
    multipliers = draw_multipliers(3, VOCABULARY, seed=3, layer=5)
    windows = last_tokens(TEXT, torch.arange(12)[None], 3, pad=7)
    rows = NgramHash((2, 3), primes, multipliers)(windows)
    for text, found in zip(TEXT, rows, strict=True):
        assert torch.equal(found, by_hand(text, (2, 3), primes, multipliers, 7))


def test_primes_differ_and_hold_the_wanted_rows():
    primes = [p for layer in table_primes(1000, 8, 2, 3) for order in layer for p in order]
    assert len(set(primes)) == 48 and min(primes) * 16 >= 1000 and max(primes) < 400
    assert all(p % d for p in primes for d in range(2, p) if d * d <= p)
    assert table_rows(1000, 8, 2, 3) == sum(primes)


@pytest.mark.parametrize("vocabulary", [1, 2, 128_256, 2**31])
def test_multipliers_are_odd_differ_by_layer_and_never_overflow(vocabulary):
    drawn = [draw_multipliers(3, vocabulary, seed=0, layer=layer) for layer in range(4)]
    assert len({m for layer in drawn for m in layer}) == 12
    assert all(m % 2 and m * (vocabulary - 1) < 2**63 for layer in drawn for m in layer)


@pytest.mark.parametrize("signed_root", [False, True])
@pytest.mark.parametrize("convolution", [False, True])
def test_the_output_is_the_equation(signed_root, convolution):
    layer = EngramLayer(
        8, 60, vocabulary=40, heads=2, row_width=3, signed_root=signed_root, convolution=convolution
    ).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, generator=GENERATOR)
    hidden = torch.randn(3, 12, 8, dtype=torch.float64, generator=GENERATOR)
    positions = torch.arange(12)[None]
    found = layer(hidden, NgramTokens(last_tokens(TEXT, positions, 3, 0), positions))

    def rms(x, norm):
        return x / (x.square().mean() + 1e-6).sqrt() * norm.weight

    for text, states, output in zip(TEXT, hidden, found, strict=True):
        slots = by_hand(text, (2, 3), layer.hash.primes, layer.hash.multipliers, 0)
        values = []
        for h, rows in zip(states, slots, strict=True):
            e = torch.cat([layer.table.weight[row] for row in rows])
            dot = rms(h, layer.hidden_norm) @ rms(layer.key.weight @ e, layer.key_norm) / 8**0.5
            dot = dot.sign() * dot.abs().sqrt() if signed_root else dot
            values.append(dot.sigmoid() * (layer.value.weight @ e))
        for t, v in enumerate(values):
            if convolution:
                line = [rms(x, layer.convolution.norm) for x in values]
                taps = layer.convolution.taps
                v = v + F.silu(sum(taps[i] * line[t - 3 * i] for i in range(4) if t >= 3 * i))
            assert torch.allclose(output[t], v, rtol=0, atol=1e-12)


def test_gradients():
    layer = EngramLayer(4, 12, vocabulary=40, heads=1, row_width=2, convolution=True).double()
    torch.nn.init.normal_(layer.convolution.taps, generator=GENERATOR)
    hidden = torch.randn(1, 12, 4, dtype=torch.float64, generator=GENERATOR, requires_grad=True)
    positions = torch.arange(12)[None]
    tokens = NgramTokens(last_tokens(TEXT[:1], positions, 3, 0), positions)
    weights = [parameter.detach().clone().requires_grad_() for parameter in layer.parameters()]
    names = [name for name, _ in layer.named_parameters()]

    def output(hidden, *weights):
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (hidden, tokens))

    assert torch.autograd.gradcheck(output, (hidden, *weights))


def test_one_head_of_single_tokens_with_an_identity_hash_is_an_embedding():
    layer = EngramLayer(4, 41, vocabulary=40, heads=1, ngrams=(1,), row_width=4, multipliers=(1,)).double()
    read = []
    layer.value.register_forward_pre_hook(lambda module, given: read.append(given[0]))
    layer(torch.ones(3, 12, 4, dtype=torch.float64), NgramTokens(TEXT[..., None], torch.arange(12)[None]))
    assert torch.equal(read[0], F.embedding(TEXT, layer.table.weight))


@pytest.mark.parametrize("convolution", [False, True])
def test_rows_and_outputs_depend_on_no_later_token(convolution):
    model = tiny(memory_convolution=convolution)
    changed = TEXT.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % VOCABULARY
    first, second = (seen(model, lambda t=t: model(t)) for t in (TEXT, changed))
    for a, b in zip(first, second, strict=True):
        a, b = a.view(3, 12, -1), b.view(3, 12, -1)
        assert torch.equal(a[:, :7], b[:, :7]) and not torch.equal(a[:, 7], b[:, 7])
    with torch.no_grad():
        assert torch.allclose(model(TEXT).logits[:, :7], model(changed).logits[:, :7], rtol=0, atol=1e-12)


@pytest.mark.parametrize("convolution", [False, True])
@pytest.mark.parametrize("cuts", [[5, 12], [1, 2, 3, 12], list(range(1, 13))], ids=str)
def test_pieces_with_a_cache_are_the_whole(cuts, convolution):
    model = tiny(memory_convolution=convolution)
    whole = seen(model, lambda: model(TEXT))
    cache, outputs = DynamicCache(config=model.config), []

    def run():
        for start, stop in zip([0, *cuts], cuts, strict=False):
            outputs.append(model(TEXT[:, start:stop], past_key_values=cache, use_cache=True).logits)

    pieces = seen(model, run)
    for layer, slots in enumerate(whole):
        joined = torch.cat([piece.view(3, -1, piece.shape[1]) for piece in pieces[layer::2]], 1)
        assert torch.equal(joined, slots.view(3, 12, -1))
    with torch.no_grad():
        assert torch.allclose(torch.cat(outputs, 1), model(TEXT).logits, rtol=0, atol=1e-11)


@pytest.mark.parametrize("convolution", [False, True])
@pytest.mark.parametrize("side", ["left", "right", "both", "inside"])
def test_padding_changes_nothing(side, convolution):
    model, texts = tiny(memory_convolution=convolution), [TEXT[0, :9], TEXT[1, :12], TEXT[2, :5]]
    ids, mask = torch.zeros(3, 14, dtype=torch.long), torch.zeros(3, 14, dtype=torch.long)
    for row, text in enumerate(texts):
        free = 14 - len(text)
        first = {"left": free, "right": 0, "both": free // 2, "inside": 0}[side]
        places = torch.arange(len(text)) + first
        if side == "inside":
            places[3:] += free
        ids[row, places], mask[row, places] = text, 1
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    rows = seen(model, lambda: model(ids, attention_mask=mask, position_ids=positions))
    with torch.no_grad():
        logits = model(ids, attention_mask=mask, position_ids=positions).logits
    for row, text in enumerate(texts):
        alone = seen(model, lambda text=text: model(text[None]))
        there = mask[row].bool()
        for padded, bare in zip(rows, alone, strict=True):
            assert torch.equal(padded.view(3, 14, -1)[row, there], bare)
        with torch.no_grad():
            assert torch.allclose(logits[row, there], model(text[None]).logits[0], rtol=0, atol=1e-11)


def test_documents_of_a_packed_row_do_not_see_each_other():
    model = tiny(memory_convolution=True)
    row = torch.cat([TEXT[0, :7], TEXT[1, :5]])[None]
    documents = torch.tensor([[0] * 7 + [1] * 5])
    mask = ((documents[:, :, None] == documents[:, None, :]) & torch.ones(12, 12, dtype=torch.bool).tril())[:, None]
    positions = torch.cat([torch.arange(7), torch.arange(5)])[None]
    packed = seen(model, lambda: model(row, attention_mask=mask, position_ids=positions))
    alone = [seen(model, lambda text=text: model(text)) for text in (row[:, :7], row[:, 7:])]
    for slots, first, second in zip(packed, *alone, strict=True):
        assert torch.equal(slots, torch.cat([first, second]))
    with torch.no_grad():
        logits = model(row, attention_mask=mask, position_ids=positions).logits
        parts = torch.cat([model(row[:, :7]).logits, model(row[:, 7:]).logits], 1)
    assert torch.allclose(logits, parts, rtol=0, atol=1e-11)


PROMPTS = torch.stack([torch.cat([torch.zeros(3, dtype=torch.long), TEXT[0, :5]]), TEXT[1, :8]])
MASK = (PROMPTS != 0).long()


@pytest.mark.parametrize("convolution", [False, True])
@pytest.mark.parametrize("beams", [1, 3])
def test_generation_with_a_cache_is_that_without(beams, convolution):
    model = tiny(memory_convolution=convolution)
    settings = dict(max_new_tokens=8, num_beams=beams, do_sample=False, attention_mask=MASK, num_return_sequences=beams)
    cached = model.generate(PROMPTS, use_cache=True, **settings)
    assert torch.equal(cached, model.generate(PROMPTS, use_cache=False, **settings))
    # and each text alone is as in its batch
    alone = model.generate(PROMPTS[:1, 3:], max_new_tokens=8, num_beams=beams, do_sample=False)
    assert torch.equal(alone[0], cached[0, 3:][: alone.shape[1]])


def test_a_static_cache():
    model = tiny()
    settings = dict(max_new_tokens=6, do_sample=False, attention_mask=MASK)
    expected = model.generate(PROMPTS, use_cache=False, **settings)
    cache = StaticCache(config=model.config, max_cache_len=20)
    assert torch.equal(model.generate(PROMPTS, past_key_values=cache, **settings), expected)


def test_a_cache_that_is_repeated_selected_copied_and_reordered():
    model = tiny(memory_convolution=True)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(TEXT[:, :8], past_key_values=cache, use_cache=True)
        twin = copy.deepcopy(cache)
        cache.batch_repeat_interleave(2)
        cache.reorder_cache(torch.tensor([5, 0, 2, 1, 3, 4]))
        cache.batch_select_indices(torch.tensor([0, 2]))
        order = [2, 1]
        found = model(TEXT[order, 8:], past_key_values=cache, use_cache=True).logits
        assert torch.allclose(found, model(TEXT[order]).logits[:, 8:], rtol=0, atol=1e-11)
        found = model(TEXT[:, 8:], past_key_values=twin, use_cache=True).logits
        assert torch.allclose(found, model(TEXT).logits[:, 8:], rtol=0, atol=1e-11)


def test_a_cropped_cache_goes_on_where_it_was_cut():
    model = tiny()
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(TEXT, past_key_values=cache, use_cache=True)
        cache.crop(-5)
        assert cache.get_seq_length() == 7
        found = model(TEXT[:, 7:], past_key_values=cache, use_cache=True).logits
        assert torch.allclose(found, model(TEXT).logits[:, 7:], rtol=0, atol=1e-11)
    cache = DynamicCache(config=model.config)
    model = tiny(memory_convolution=True)
    model(TEXT, past_key_values=cache, use_cache=True)
    with pytest.raises(MemxError, match="cannot be cropped"):
        cache.crop(-5)


def test_a_cache_of_another_model_and_embeddings_without_ids_are_refused():
    model, plain = tiny(), tiny(memory_layers=[])
    cache = DynamicCache(config=model.config)
    plain(TEXT, past_key_values=cache, use_cache=True)
    with pytest.raises(MemxError, match="12 tokens, and the n-gram memory has seen 0"):
        model(TEXT, past_key_values=cache, use_cache=True)
    with pytest.raises(MemxError, match="only embeddings"):
        model(inputs_embeds=model.get_input_embeddings()(TEXT))


@pytest.mark.parametrize(
    ("weights", "table"), [("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float32", "bfloat16")]
)
def test_weights_and_table_may_have_different_dtypes(weights, table):
    model = tiny(memory_convolution=True)
    with torch.no_grad():
        expected = model(TEXT).logits
        model.to(getattr(torch, weights))
        for one in tables_of(model):
            one.to(getattr(torch, table))
        found = model(TEXT).logits
    assert found.dtype == getattr(torch, weights)
    assert (found.double() - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_hidden_states_and_attentions_are_those_of_every_block():
    model = tiny()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(TEXT, output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == 4 and len(output.attentions) == 3


def test_a_silent_memory_changes_nothing_at_first():
    plain, silent = tiny(memory_layers=[]), tiny(memory_insertion="beside")
    torch.nn.init.zeros_(silent.model.layers[0].engram.value.weight)
    torch.nn.init.zeros_(silent.model.layers[2].engram.value.weight)
    with torch.no_grad():
        assert torch.equal(plain(TEXT).logits, silent(TEXT).logits)


def test_save_and_load_keep_every_bit_and_the_classes(tmp_path):
    model = tiny(memory_convolution=True, memory_ngrams=[1, 3])
    model.model.token_classes.ids[5] = 3
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(loaded(TEXT).logits, model(TEXT).logits)
    assert loaded.model.token_classes.ids[5] == 3


@pytest.mark.gpu
@pytest.mark.parametrize("on_host", [False, True])
def test_on_cuda_rows_and_outputs_are_those_of_the_cpu(on_host):
    model = tiny(memory_convolution=True)
    expected = seen(model, lambda: model(TEXT))
    with torch.no_grad():
        logits = model(TEXT).logits
    if on_host:
        keep_on_host(model)
    model.cuda()
    found = seen(model, lambda: model(TEXT.cuda()))
    assert all(torch.equal(a, b.cpu()) for a, b in zip(expected, found, strict=True))
    with torch.no_grad():
        torch.testing.assert_close(model(TEXT.cuda()).logits.cpu(), logits, rtol=0, atol=1e-10)
    settings = dict(max_new_tokens=6, do_sample=False, attention_mask=MASK.cuda())
    cached = model.generate(PROMPTS.cuda(), use_cache=True, **settings)
    assert torch.equal(cached, model.generate(PROMPTS.cuda(), use_cache=False, **settings))


def test_the_token_before_a_text_stays_that_of_the_trained_model(tmp_path):
    model = tiny()
    with torch.no_grad():
        expected = model(TEXT).logits
        model.config.pad_token_id = 5
        model.save_pretrained(tmp_path)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
        assert torch.equal(model(TEXT).logits, expected) and torch.equal(loaded(TEXT).logits, expected)


def test_the_vocabulary_cannot_be_resized():
    with pytest.raises(MemxError, match="cannot be resized"):
        tiny().resize_token_embeddings(60)
    tiny(memory_layers=[]).resize_token_embeddings(60)
