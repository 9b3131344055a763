"""Hosts whose layers lie on several devices, or are fetched from the CPU's memory or a disk for each pass."""

from dataclasses import replace

import pytest
import torch
from memx import namm
from memx.namm.cache.masked import MaskedCache, masked
from memx.namm.policies.heuristics import Full, make_policy
from memx.namm.policies.network import Namm
from memx.namm.policies.panel import PolicyBatch, PolicySlots

from .devices import Away, devices
from .hosts import left_padded, make_host, prompts
from .rules import BUDGET, EVERY, RULES, TABLE

hooks = pytest.importorskip("accelerate.hooks")
big_modeling = pytest.importorskip("accelerate.big_modeling")

TOKENS = 56
FIRST, SECOND = "xla:0", "xla:1"


def policy(name, rule="equal"):
    if name == "namm":
        numbers = 0.3 * torch.randn(4172 + TABLE.count, generator=torch.Generator().manual_seed(3))
        return Namm(numbers, rule=RULES[rule], every=EVERY, table=TABLE)
    return replace(make_policy(name, budget=BUDGET, every=EVERY, seed=3), rule=RULES[rule])


def spread(model):
    """Lay the first layer and what comes before it on one device, the rest on another, as accelerate does."""
    decoder = model.model
    first, second = decoder.layers
    for module, place in (
        (decoder.embed_tokens, FIRST),
        (decoder.rotary_emb, FIRST),
        (first, FIRST),
        (second, SECOND),
        (decoder.norm, SECOND),
        (model.lm_head, SECOND),
    ):
        _put(module, place)
    _hook(model, FIRST, io_same_device=True)
    return model


def _put(module, place):
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = torch.nn.Parameter(parameter.detach().to(place), requires_grad=False)
        for name, buffer in part._buffers.items():
            part._buffers[name] = buffer.to(place)
    _hook(module, place)


def _hook(module, place, **options):
    hook = hooks.AlignDevicesHook(execution_device=torch.device(place), skip_keys="past_key_values", **options)
    hooks.add_hook_to_module(module, hook)


def here(tensor):
    return tensor.inner if isinstance(tensor, Away) else tensor


def held(cache):
    return [[kept.tolist() for s in range(len(cache.seen)) for kept in one.state.held(s)] for one in cache.layers]


def compare(work, kind="llama"):
    """What work(model, place) -> (cache, tensors) gives on one device and on two, where each layer's lie on its own."""
    with torch.no_grad():
        cache, wanted = work(make_host(kind).double(), "cpu")
        kept = held(cache)
        with devices():
            cache, got = work(spread(make_host(kind).double()), FIRST)
            assert held(cache) == kept
        for layer, place in zip(cache.layers, (FIRST, SECOND), strict=True):
            for name in ("keys", "values", "positions", "policy_state", "recent", "lse", "summary"):
                tensor = getattr(layer.state, name)
                assert tensor is None or str(tensor.device) == place, (name, tensor.device)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(here(one), other, rtol=1e-12, atol=1e-12)


def read_in_pieces(policy):
    def work(model, place):
        ids = prompts(TOKENS)[0][None].to(place)
        with namm.attach(model, policy) as attached:
            cache = attached.new_cache()
            pieces = [ids[:, :30], ids[:, 30:31], ids[:, 31:45], ids[:, 45:]]
            return cache, [model(piece, past_key_values=cache).logits for piece in pieces]

    return work


def read_padded(policy):
    def work(model, place):
        ids, mask = (tensor.to(place) for tensor in left_padded(prompts(40, TOKENS)))
        with namm.attach(model, policy) as attached:
            output = model(ids, attention_mask=mask, output_hidden_states=True)
        states = [one[mask.bool().to(one.device)] for one in (output.logits, *output.hidden_states)]
        return attached.cache, states

    return work


@pytest.mark.parametrize("name", ["random", "streamingllm", "h2o", "expected_attention", "namm"])
def test_every_policy_runs_on_the_device_of_each_layer(name):
    """Its networks and tables as well, wherever they were made."""
    compare(read_in_pieces(policy(name)))


@pytest.mark.parametrize("kind", ["llama", "gemma"])
@pytest.mark.parametrize("rule", ["global", "table"])
def test_layers_on_several_devices_share_a_budget(rule, kind):
    """Heads of several lengths and windows, which compare positions."""
    compare(read_in_pieces(policy("tova", rule)), kind)


@pytest.mark.parametrize("rule", ["equal", "layer_max"])
def test_padded_batches_come_back_from_each_device(rule):
    compare(read_padded(policy("knorm", rule)))


@pytest.mark.parametrize("rule", ["equal", "global"])
def test_choices_after_reading_are_made_and_masked_on_each_device(rule):
    found = [policy(name, rule) for name in ("knorm", "h2o")]
    slots = PolicySlots((*found,))

    def work(model, place):
        context, rest = (ids[None].to(place) for ids in prompts(TOKENS, 9))
        with namm.attach(model, slots) as attached:
            cache = attached.new_cache()
            model(context, past_key_values=cache)
            fork = cache.fork(PolicyBatch(slots, (*found,)), 2, continue_with=Full())
            choices = cache.choices(PolicyBatch(slots, (*found,)), 2)
        with namm.attach(model, fork.policy):
            after = model(rest.expand(2, -1), past_key_values=fork).logits
        hidden = MaskedCache(cache, choices)
        positions = (torch.arange(9) + TOKENS)[None].to(place)
        with masked(model, hidden):
            same = model(rest.expand(2, -1), past_key_values=hidden, position_ids=positions).logits
        return fork, [after, same, hidden.kept_share()]

    compare(work)


def test_calibration_and_head_shares_take_every_layer():
    contexts = prompts(TOKENS, 40)

    def work(model, place):
        moments = namm.calibrate(model, contexts, every=EVERY)
        shares = namm.measure_shares(model, policy("knorm"), contexts, (0.25,))
        with namm.attach(model, Full()) as attached:
            model(contexts[0][None].to(place))
        return attached.cache, [*moments, torch.tensor(shares.tables)]

    compare(work)


@pytest.mark.parametrize("where", ["cpu", "disk"])
@pytest.mark.parametrize("name", ["knorm", "expected_attention"])
def test_weights_that_are_fetched_for_each_pass_change_nothing(where, name, tmp_path):
    (ids,) = prompts(TOKENS)

    def read(model):
        with torch.no_grad(), namm.attach(model, policy(name, "global")) as attached:
            logits = model(ids[None]).logits
            cache = attached.cache
            tokens = model.generate(ids[None], max_new_tokens=12, do_sample=False, attention_mask=ids[None] > 0)
        return logits, tokens, held(cache)

    fetched = make_host().double()
    if where == "cpu":
        big_modeling.cpu_offload(fetched, execution_device="cpu")
    else:
        big_modeling.disk_offload(fetched, tmp_path, execution_device="cpu")
    assert fetched.device.type == "meta"
    (logits, tokens, kept), (wanted, also, all_kept) = read(fetched), read(make_host().double())
    assert torch.equal(tokens, also) and kept == all_kept
    torch.testing.assert_close(logits, wanted)
    measured = [
        namm.measure_shares(model, policy("knorm"), [ids], (0.25,)) for model in (fetched, make_host().double())
    ]
    assert measured[0].tables == measured[1].tables
