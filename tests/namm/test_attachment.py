"""Every architecture under a policy: the plain model when all is kept, the same choices however the prompt comes."""

import copy

import pytest
import torch
import transformers
from memx import namm
from memx.errors import MemxError
from memx.namm.evolution.population import ObserveOnly
from memx.namm.policies.base import Rule
from memx.namm.policies.heuristics import Full
from memx.namm.policies.network import Namm
from packaging.version import Version
from transformers import DynamicCache, StaticCache

from .hosts import ARCHITECTURES, left_padded, make_host, prompts

EVERY = 64


def evolved(budget=0.5, every=EVERY, seed=3, **settings) -> Namm:
    """A NAMM with parameters that choose."""
    parameters = 0.3 * torch.randn(4172, generator=torch.Generator().manual_seed(seed))
    return Namm(parameters, rule=Rule(budget=budget, **settings), every=every)


@pytest.fixture(params=ARCHITECTURES)
def host(request):
    return make_host(request.param)


@pytest.fixture
def exact(host):
    """The host in float64, so that no choice hangs on rounding."""
    return host.double()


@torch.no_grad()
def test_a_name_is_no_policy():
    match = "needs a policy, not its name 'universal'"
    with pytest.raises(MemxError, match=match) as caught, namm.attach(make_host(), "universal"):
        pass
    assert 'memx.namm.load("universal")' in caught.value.hint


def test_a_namm_is_printed_without_its_numbers():
    printed = repr(Namm(torch.randn(4172), rule=Rule(budget=0.25)))
    assert "tensor" not in printed and "budget=0.25" in printed


def test_zero_parameters_are_the_plain_model_under_the_same_chunking(host):
    ids = prompts(150)[0][None]
    cache, parts = DynamicCache(config=host.config), []
    for part in ids.split(EVERY, 1):
        parts.append(host(part, past_key_values=cache).logits)
    with namm.attach(host, Namm(every=EVERY)) as attached:
        logits = host(ids).logits
    torch.testing.assert_close(logits, torch.cat(parts, 1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits, host(ids).logits, rtol=1e-4, atol=1e-4)
    assert attached.cache.seen == [150]
    for layer, window in zip(attached.cache.layers, attached.windows, strict=True):
        # what no later query sees is gone: at 128 tokens all but the last 39, then 22 more came
        assert layer.keys.shape[2] == (150 if window is None else window - 1 + 22)


@torch.no_grad()
def test_generate_is_the_plain_model_s_when_everything_is_kept(host):
    ids, mask = left_padded(prompts(120, 75))
    # in pieces transformers 5.2 itself does not generate what it does in one
    pieces = [{"prefill_chunk_size": 50}] if Version(transformers.__version__) >= Version("5.17") else []
    for kwargs in ({}, {"num_beams": 3}, *pieces):
        rows = slice(0, 1) if "prefill_chunk_size" in kwargs else slice(0, 2)
        given = dict(attention_mask=mask[rows], max_new_tokens=12, do_sample=False)
        wanted = host.generate(ids[rows], **given, num_beams=kwargs.get("num_beams", 1))
        with namm.attach(host, Namm(every=EVERY)) as attached:
            got = host.generate(ids[rows], **given, **kwargs)
        assert torch.equal(got, wanted), kwargs
        assert attached.cache is not None


class Streamed:
    """What `generate` hands on, token by token."""

    def __init__(self):
        self.parts, self.ended = [], False

    def put(self, tokens):
        self.parts.append(tokens.flatten())

    def end(self):
        self.ended = True


@torch.no_grad()
def test_sampled_and_streamed_tokens_are_the_plain_model_s_when_everything_is_kept(exact):
    ids = prompts(90)[0][None]
    given = dict(max_new_tokens=8, do_sample=True, temperature=0.8, top_k=20)
    torch.manual_seed(3)
    wanted = exact.generate(ids, **given)
    torch.manual_seed(3)
    streamer = Streamed()
    with namm.attach(exact, Namm(every=EVERY)):
        got = exact.generate(ids, **given, streamer=streamer)
    assert torch.equal(got, wanted) and streamer.ended
    assert torch.equal(torch.cat(streamer.parts)[None], wanted)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[32] * 4 + [22], [1] * 150, [100, 50], [7, 64, 64, 15]], ids=lambda x: str(x[0]))
def test_chunks_of_any_length_keep_the_same_and_see_the_same_features(exact, lengths):
    ids = prompts(150)[0][None]
    with namm.attach(exact, evolved()) as attached:
        logits = exact(ids).logits
        whole, cache = attached.cache, attached.new_cache()
        parts = [exact(part, past_key_values=cache).logits for part in ids.split(lengths, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), logits, rtol=1e-4, atol=1e-4)
    for one, other in zip(whole.layers, cache.layers, strict=True):
        assert torch.equal(one.state.positions, other.state.positions)
        seen = min(
            one.state.policy_state.shape[2], other.state.policy_state.shape[2]
        )  # the last tokens may still wait for a whole hop
        torch.testing.assert_close(
            one.state.policy_state[:, :, :seen], other.state.policy_state[:, :, :seen], rtol=1e-5, atol=1e-5
        )


@torch.no_grad()
@pytest.mark.parametrize("grouping", ["layer_max", "per_head"])
def test_a_sample_keeps_the_same_alone_and_in_a_left_padded_batch(exact, grouping):
    rows = prompts(150, 131, 64, 5)
    ids, mask = left_padded(rows)
    policy = evolved(None, grouping=grouping)
    with namm.attach(exact, policy) as attached:
        logits = exact(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp_min(0)).logits
        together = attached.cache
        for number, row in enumerate(rows):
            alone = exact(row[None]).logits[0]
            torch.testing.assert_close(logits[number, -len(row) :], alone, rtol=1e-4, atol=1e-4)
            assert torch.equal(attached.cache.holds(), together.holds(number))
    dropped = 1 - torch.cat([together.holds(n).flatten() for n in range(3)]).mean()
    assert 0.02 < dropped < 0.98  # there was a choice


@torch.no_grad()
def test_generated_tokens_are_forgotten_as_prompts_are(exact):
    rows = prompts(100, 60)
    ids, mask = left_padded(rows)
    with namm.attach(exact, evolved()) as attached:
        both = exact.generate(ids, attention_mask=mask, max_new_tokens=100, do_sample=False)
        together = attached.cache
        for number, row in enumerate(rows):
            alone = exact.generate(row[None], max_new_tokens=100, do_sample=False)
            assert torch.equal(alone[0], both[number, -alone.shape[1] :])
            assert torch.equal(attached.cache.holds(), together.holds(number))
    assert together.seen == [199, 159]  # the last token is not fed back
    for layer, window in zip(together.layers, attached.windows, strict=True):
        if window is None:
            counts = layer.state.counts
            assert counts == [[192 // 2 + 7] * len(counts[0]), [128 // 2 + 31] * len(counts[0])]


@torch.no_grad()
def test_beam_search_moves_everything_with_its_sequence(exact):
    ids = prompts(70)[0][None]
    settings = dict(max_new_tokens=60, num_beams=3, do_sample=False)
    with namm.attach(exact, evolved()) as attached:
        best = exact.generate(ids, return_dict_in_generate=True, output_scores=True, **settings)
        assert len(attached.cache.seen) == 3
        # the best beam's score is what its tokens get when they are fed alone
        fed = exact(best.sequences[:, :70]).logits[:, -1:]
        cache, total = attached.cache, 0.0
        for token in best.sequences[0, 70:]:
            total += fed[0, -1].log_softmax(-1)[token]
            fed = exact(token[None, None], past_key_values=cache).logits
    assert float(total / 60) == pytest.approx(float(best.sequences_scores[0]), abs=2e-4)


@torch.no_grad()
def test_pipelines_run_inside(tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, pipeline

    host = make_host()
    words = {f"w{i}": i for i in range(96)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w3")), pad_token="w0", padding_side="left"
    )
    from tokenizers.pre_tokenizers import WhitespaceSplit

    tokenizer.backend_tokenizer.pre_tokenizer = WhitespaceSplit()
    texts = [" ".join(f"w{i}" for i in row.tolist()) for row in prompts(100, 70)]
    write = pipeline("text-generation", model=host, tokenizer=tokenizer, batch_size=2)
    settings = dict(max_new_tokens=10, do_sample=False)
    wanted = write(texts, **settings)
    with namm.attach(host, Namm(every=EVERY)) as attached:
        assert write(texts, **settings) == wanted
    assert attached.cache.seen == [109, 79]


def test_the_model_is_as_before_afterwards():
    host = make_host()
    usual, decoder = host.config._attn_implementation, namm.attachment.find_decoder(host)
    ids = prompts(70)[0][None]
    wanted = host(ids).logits
    with pytest.raises(ZeroDivisionError), namm.attach(host, evolved()):
        host(ids)
        raise ZeroDivisionError
    assert host.config._attn_implementation == usual and "forward" not in vars(decoder)
    assert torch.equal(host(ids).logits, wanted)
    with namm.attach(host, evolved()), pytest.raises(MemxError, match="already"), namm.attach(host, evolved()):
        pass


@torch.no_grad()
def test_other_outputs_of_a_forward_pass_are_the_plain_ones():
    host, (ids,) = make_host(), prompts(100)
    ids, mask = left_padded([ids, ids[:80]])
    labels = ids.masked_fill(mask == 0, -100)
    labels[1, 20] = -100  # the plain model predicts a row's first token from padding, whose state means nothing
    plain = host(ids, attention_mask=mask, labels=labels, output_hidden_states=True, logits_to_keep=0)
    with namm.attach(host, Namm(every=EVERY)):
        given = dict(attention_mask=mask, labels=labels)
        same = host(ids, output_hidden_states=True, **given)
        embedded = host(inputs_embeds=host.get_input_embeddings()(ids), **given)
        last = host(ids, attention_mask=mask, logits_to_keep=3).logits
        pair = host(ids, attention_mask=mask, return_dict=False)
    torch.testing.assert_close(same.loss, plain.loss)
    torch.testing.assert_close(embedded.loss, plain.loss)
    assert isinstance(pair, tuple)
    torch.testing.assert_close(last, plain.logits[:, -3:], rtol=1e-4, atol=1e-4)
    for one, other in zip(same.hidden_states, plain.hidden_states, strict=True):
        torch.testing.assert_close(one[mask == 1], other[mask == 1], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_cache_that_the_user_made_becomes_the_evicting_one():
    host, (ids,) = make_host().double(), prompts(200)
    with namm.attach(host, evolved()) as attached:
        host(ids[None, :199])
        wanted, cache = host(ids[None, 199:], past_key_values=attached.cache).logits, DynamicCache(config=host.config)
        host(ids[None, :199], past_key_values=cache)
        assert cache.get_seq_length() == 199 and cache is attached.cache
        assert torch.equal(host(ids[None, 199:], past_key_values=cache).logits, wanted)
        # a conversation: generate goes on with what it is given
        cache = DynamicCache(config=host.config)
        host(ids[None, :150], past_key_values=cache)
        more = host.generate(ids[None], past_key_values=cache, max_new_tokens=5, do_sample=False)
        again = host.generate(more, past_key_values=cache, max_new_tokens=5, do_sample=False)
        assert torch.equal(again, host.generate(ids[None], max_new_tokens=10, do_sample=False))
    for columns in (1, 3):
        with pytest.raises(MemxError, match="without its eviction policy"):
            host(ids[None, :columns], past_key_values=cache)


@torch.no_grad()
def test_a_beginning_may_be_copied_for_several_continuations():
    host, (ids,) = make_host().double(), prompts(200)
    with namm.attach(host, evolved()) as attached:
        host(ids[None, :150])
        one, other = copy.deepcopy(attached.cache), copy.deepcopy(attached.cache)
        first = host(ids[None, 150:], past_key_values=one).logits
        assert other.get_seq_length() == 150 and attached.cache is one
        assert torch.equal(host(ids[None, 150:], past_key_values=other).logits, first)
        torch.testing.assert_close(first, host(ids[None]).logits[:, 150:], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_cache_left_in_the_middle_of_a_forward_pass_goes_no_further():
    host, (ids,) = make_host(), prompts(60)

    def interrupt(*_):
        raise KeyboardInterrupt

    with namm.attach(host, evolved()) as attached:
        cache = attached.new_cache()
        host(ids[None, :30], past_key_values=cache)
        hook = host.model.layers[1].mlp.register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            host(ids[None, 30:], past_key_values=cache)
        hook.remove()
        with pytest.raises(MemxError, match="forward pass was interrupted"):
            host(ids[None, 30:], past_key_values=cache)


def test_a_forward_that_hooks_have_replaced_is_put_back():
    host, (ids,) = make_host(), prompts(20)
    plain = host.model.forward
    calls = []

    def hooked(*args, **kwargs):
        calls.append(1)
        return plain(*args, **kwargs)

    host.model.forward = hooked
    with namm.attach(host, Namm()):
        tried = len(calls)
        host(ids[None])
    host(ids[None])
    assert len(calls) == tried + 2 and host.model.forward is hooked


@torch.no_grad()
def test_watching_policies_that_never_run_keep_sequences_apart():
    host, rows = make_host(), prompts(50, 41)
    ids, mask = left_padded(rows)
    with namm.attach(host, ObserveOnly()) as attached:
        host(ids, attention_mask=mask)
        cache = attached.cache
        for _ in range(30):
            host(torch.full((2, 1), 7), past_key_values=cache)
        for number, row in enumerate(rows):
            host(torch.cat([row, torch.full((30,), 7)])[None])
            for one, other in zip(attached.cache.layers, cache.layers, strict=True):
                slots = one.state.policy_state.shape[2] // 16 * 16
                start = other.keys.shape[2] - len(row) - 30
                together = other.state.padded().policy_state[number, :, start : start + slots]
                torch.testing.assert_close(one.state.policy_state[0, :, :slots], together, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_full_policy_holds_no_more_of_a_window_than_it_must():
    host, (ids,) = make_host("mistral"), prompts(400)
    with namm.attach(host, Full()) as attached:
        host(ids[None])
    assert attached.cache.layers[0].keys.shape[2] == 400 - (384 - 40) - 1


@pytest.mark.parametrize("span", [(5, 2), (-5, 3), (0, None), (1,)])
def test_spans_that_are_none_are_refused(span):
    with (
        pytest.raises(MemxError, match=r"not a \(start, stop\) pair"),
        namm.attach(make_host(), Namm(), protect=[span]),
    ):
        pass


@torch.no_grad()
def test_what_is_not_supported_is_refused_in_one_line():
    host = make_host()
    ids = prompts(70)[0][None]
    full = host(ids).past_key_values
    with namm.attach(host, evolved()) as attached:
        cases = [
            ("filled without the policy", dict(past_key_values=full)),
            ("a StaticCache is not supported", dict(past_key_values=StaticCache(config=host.config, max_cache_len=99))),
            ("an offloaded cache is not", dict(past_key_values=DynamicCache(offloading=True))),
            ("use_cache=False with an evicting", dict(past_key_values=attached.new_cache(), use_cache=False)),
            ("not a padding mask", dict(attention_mask=torch.ones(1, 1, 70, 70))),
            ("only padding", dict(attention_mask=torch.zeros(1, 70))),
            ("not consecutive", dict(position_ids=(torch.arange(70) % 35)[None])),
            ("output_attentions is not supported", dict(output_attentions=True)),
            ("input is empty", dict(input_ids=ids[:, :0])),
        ]
        for message, kwargs in cases:
            with pytest.raises(MemxError, match=message):
                host(**{"input_ids": ids, **kwargs})
        host(ids)
        with pytest.raises(MemxError, match=r"assisted \(speculative\) decoding is not supported"):
            attached.cache.crop(-1)
        with pytest.raises(MemxError, match="has 1 sequences"):
            host(ids.repeat(2, 1), past_key_values=attached.cache)
        with pytest.raises(MemxError, match="mask changed"):
            host(ids[:, :1], past_key_values=attached.cache, attention_mask=torch.arange(71)[None] > 3)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("Bloom", {}, "does not use transformers' attention interface"),
        ("T5", {}, "interface|causal decoder"),
        ("Bert", {}, "not a causal decoder"),
        ("Gemma2", dict(attn_logit_softcapping=50.0), "logit softcapping"),
        ("Qwen3", dict(layer_types=["full_attention", "chunked_attention"]), "chunked_attention"),
    ],
)
def test_hosts_that_do_not_fit_are_refused(kind, changes, message):
    sizes = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=50)
    more = {"T5": dict(d_model=32, d_ff=32, num_layers=1, num_heads=2), "Bloom": dict(n_layer=1, n_head=2)}
    config = getattr(transformers, f"{kind}Config")(**sizes, **more.get(kind, {}), pad_token_id=0)
    for name, value in changes.items():
        setattr(config, name, value)
    with torch.device("meta"):
        model = getattr(transformers, f"{kind}Model")(config)
    with pytest.raises(MemxError, match=message), namm.attach(model, Namm()):
        pass


@torch.no_grad()
def test_opt_counts_tokens_even_if_nobody_tells_it_to():
    sizes = dict(hidden_size=32, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=96)
    model = transformers.OPTModel(transformers.OPTConfig(**sizes, word_embed_proj_dim=32)).eval()
    ids, mask = left_padded(prompts(100, 70))
    wanted = model(ids, attention_mask=mask).last_hidden_state
    with namm.attach(model, Namm(every=EVERY)):
        got = model(ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(got[mask == 1], wanted[mask == 1], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_without_a_cache_the_model_is_the_plain_one():
    host, (ids,) = make_host(), prompts(150)
    ids, mask = left_padded([ids, ids[:100]])
    wanted = host(ids, attention_mask=mask, use_cache=False).logits
    written = host.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False)
    with namm.attach(host, evolved(0.1)) as attached:
        output = host(ids, attention_mask=mask, use_cache=False)
        assert torch.equal(output.logits, wanted) and output.past_key_values is None and attached.cache is None
        again = host.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False, use_cache=False)
        assert torch.equal(again, written)
        host.config.use_cache = False  # as a Trainer leaves it; what a call says goes before
        assert torch.equal(host(ids, attention_mask=mask).logits, wanted) and attached.cache is None
        for said in ({"use_cache": True}, {"past_key_values": attached.new_cache()}):
            assert not torch.allclose(host(ids, attention_mask=mask, **said).logits, wanted, atol=1e-2)
        host.config.use_cache = True
        assert not torch.allclose(host(ids, attention_mask=mask).logits, wanted, atol=1e-2)


def test_gradients_and_their_checkpoints_are_refused():
    host, (ids,) = make_host(), prompts(70)
    with namm.attach(host, evolved()):
        for train in (False, True):
            loss = host.train(train)(ids[None], labels=ids[None]).loss
            with pytest.raises(MemxError, match="training is not supported"):
                loss.backward()
        for module in host.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = True  # enabling it has another name in each version of transformers
        for enabled in (False, True):
            with torch.set_grad_enabled(enabled), pytest.raises(MemxError, match="gradient checkpointing"):
                host(ids[None])
        for module in host.modules():
            module.gradient_checkpointing = False
        host(ids[None], labels=ids[None], use_cache=False).loss.backward()  # the plain model, which learns


@torch.no_grad()
@pytest.mark.parametrize(
    "what", ["layers", *(pytest.param(name, marks=pytest.mark.slow) for name in ("before", "inside"))]
)
def test_a_compiled_model_runs_as_usual_and_is_not_compiled_for_every_piece(what):
    ids, compiled = prompts(90)[0][None], []

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    def compile_forward():
        host.forward = torch.compile(host.forward, backend=backend)

    host = make_host()
    with namm.attach(host, evolved(every=16)) as attached:
        wanted, written = host(ids).logits, host.generate(ids, max_new_tokens=4, do_sample=False)
        counts = [layer.state.counts for layer in attached.cache.layers]
    if what == "before":
        compile_forward()
    elif what == "layers":
        for layer in host.model.layers:
            layer.compile(backend=backend)
    with namm.attach(host, evolved(every=16)) as attached:
        if what == "inside":
            compile_forward()
        assert torch.equal(host(ids).logits, wanted)
        assert torch.equal(host.generate(ids, max_new_tokens=4, do_sample=False), written)
        assert [layer.state.counts for layer in attached.cache.layers] == counts
    assert len(compiled) < 5  # what is outside the decoder


@torch.no_grad()
def test_generation_that_takes_tokens_back_or_makes_its_own_cache_is_refused():
    host, (ids,) = make_host(), prompts(40)
    settings = dict(max_new_tokens=6, do_sample=False)
    with namm.attach(host, evolved(every=16)):
        for message, more in (
            ("assisted", dict(assistant_model=make_host(seed=1))),
            ("assisted", dict(prompt_lookup_num_tokens=3)),
            ("StaticCache is not supported", dict(cache_implementation="static")),
            ("offloaded cache is not supported", dict(cache_implementation="offloaded")),
        ):
            with pytest.raises(MemxError, match=message):
                host.generate(ids[None].repeat(1, 2), **settings, **more)


def test_intervals_that_are_no_multiple_of_the_hop_are_refused():
    with pytest.raises(MemxError, match="must be a positive multiple of 16"):
        Namm(every=100)
