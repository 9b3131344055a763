"""Declared features against their equations over whole attention matrices, however the text comes."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from memx import namm
from memx.errors import MemxError
from memx.namm import FEATURES, NO_PASS, HeadTable, Namm, Rule
from memx.namm.policies.features.registry import FeatureSet
from memx.namm.policies.features.spectrum import age_features, ema, spectrogram
from memx.namm.policies.panel import PolicyBatch, PolicySlots

from .. import features_reference as reference
from ..hosts import left_padded, make_host, prompts

LENGTH = 80
SMALL: dict = dict(scorer="mlp", hidden=(8, 8), features=NO_PASS)
ALL = (*NO_PASS, "age", "received", "later_max", "log_spectrum", "published")


@dataclass(frozen=True)
class Reader:
    """Keeps all tokens, and lists what its features read of each layer when it runs."""

    features: FeatureSet = field(default_factory=lambda: FeatureSet(ALL))
    every: int = LENGTH
    read: list = field(default_factory=list)

    name = "reader"
    rule = Rule(threshold=-torch.inf)
    hop, context = 16, 32
    width = property(lambda self: self.features.width)

    def observe(self, block):
        return self.features.observe(block)

    def summary_size(self, width):
        return self.features.summary_size(width)

    def summarise(self, block, summary):
        return self.features.summarise(block, summary)

    def scores(self, view):
        self.read.append(self.features.read(view))
        return torch.zeros(view.key.shape[:3])


@pytest.fixture(scope="module", params=["llama", "qwen", "gpt2"])
def host(request):
    return make_host(request.param).double()


@torch.no_grad()
def read(host, *calls, padded=None):
    """What is read of each layer [B, H, T, inputs] after forward passes over these pieces of one text."""
    reader = Reader()
    with namm.attach(host, reader) as attached:
        cache = attached.new_cache()
        for ids in calls:
            host(ids, past_key_values=cache, attention_mask=padded)
    return reader.read


def expected(layer):
    """By the equations: {name: [H, T, inputs]}."""
    weights, count = layer.weights(), layer.key.shape[1]
    nine = reference.nine_inputs(layer)
    parts = {"log_age": nine[..., :2]} | {name: nine[..., n : n + 1] for n, name in enumerate(NO_PASS[1:], 2)}
    parts["age"] = torch.arange(count, 0, -1.0).expand(len(layer.key), -1)[..., None]
    parts["received"] = reference.received(weights)[..., None]
    parts["later_max"] = reference.later_max(weights)[..., None]
    spectrum = ema(spectrogram(weights.mean(1)[None]))[0]
    ages = age_features(torch.arange(count - 1, -1, -1)).expand(len(layer.key), -1, -1)
    parts["log_spectrum"] = (1e-6 + spectrum).log()
    parts["published"] = torch.cat([ages, spectrum], -1)
    return torch.cat([parts[name].double() for name in ALL], -1)


def test_features_are_those_of_their_equations(host):
    (ids,) = prompts(LENGTH)
    found = read(host, ids[None])
    for layer, inputs in zip(reference.record(host, ids), found, strict=True):
        torch.testing.assert_close(inputs[0].double(), expected(layer), rtol=1e-4, atol=1e-4)


def test_a_text_in_pieces_and_token_by_token_reads_the_same(host):
    (ids,) = prompts(LENGTH)
    whole = read(host, ids[None])
    for lengths in ([23, 40, 17], [60, *[1] * 20]):
        for once, apart in zip(whole, read(host, *ids[None].split(lengths, 1)), strict=True):
            torch.testing.assert_close(once, apart, rtol=1e-4, atol=1e-5)


def test_a_left_padded_sequence_reads_what_it_reads_alone(host):
    rows = prompts(LENGTH, LENGTH)
    ids, mask = left_padded([rows[0], torch.cat([rows[1], rows[1][:20]])])
    if host.config.model_type == "gpt2":
        pytest.skip("learned positions count padding, unless they are told")
    for together, alone in zip(read(host, ids, padded=mask)[:1], read(host, rows[0][None])[:1], strict=True):
        torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-4)


def test_forked_candidates_read_what_one_that_runs_alone_reads(host):
    """After the fact, and then on: summaries go with their sequences."""
    ids, more = prompts(LENGTH, LENGTH, seed=2)
    parameters = torch.randn(161, generator=torch.Generator().manual_seed(0)) * 0.3
    one = Namm(parameters, rule=Rule(budget=0.5), every=LENGTH, **SMALL)
    other = Namm(-parameters, rule=Rule(budget=0.5), every=LENGTH, **SMALL)
    slots = PolicySlots((one, namm.make_policy("expected_attention", budget=0.5)))
    both = PolicyBatch(slots, (one, other))
    with torch.no_grad():
        with namm.attach(host, slots) as attached:
            host(ids[None])
        cache = attached.cache.fork(both, 2, continue_with=both)
        with namm.attach(host, both):
            together = host(more[None].expand(2, -1), past_key_values=cache).logits
        for number, policy in enumerate((one, other)):
            with namm.attach(host, policy):
                alone = host(torch.cat([ids, more])[None]).logits[:, LENGTH:]
            torch.testing.assert_close(together[number], alone[0])


def test_what_features_cost():
    """Those of the default set keep nothing beside a key, and read no attention matrix."""
    cheap = FeatureSet(NO_PASS)
    assert (cheap.inputs, cheap.width, cheap.context, cheap.rotary) == (9, 0, 32, True)
    assert not any(FEATURES[name].attention_pass for name in NO_PASS)
    assert FeatureSet(("log_spectrum", "published")).width == 17  # noted once
    assert FeatureSet(("age", "first_four")).hop == 0
    assert Namm(**SMALL).parameters.shape == (161,)


@pytest.mark.parametrize(
    ("names", "message"),
    [((), "at least one feature"), (("age", "age"), "named twice"), (("keydif",), "unknown feature 'keydif'")],
)
def test_names_that_are_none(names, message):
    with pytest.raises(MemxError, match=message) as caught:
        Namm(features=names)
    assert caught.value.hint


# -- scorers over them


def test_a_population_scores_as_its_members():
    """Of every kind of scorer, with a head table and without."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 3, 11, 9, generator=generator)
    tables = (None, HeadTable(4, 3), HeadTable(4, 3, bias=False, embedding=2), HeadTable(4, 3, embedding=5))
    for kind in (dict(scorer="mlp", hidden=(8, 8)), dict(scorer="linear"), dict(scorer="bam")):
        for table in tables:
            one = Namm(features=NO_PASS, table=table, **kind)
            population = torch.randn(3, one.parameter_count, generator=generator) * 0.3
            together = one.score(population, tokens, layer=2)
            own = one.score(population, tokens.expand(3, *tokens.shape), layer=2)
            assert together.shape == (3, 2, 3, 11)
            for member, scores, again in zip(population, together, own, strict=True):
                alone = one.score(member, tokens, layer=2)
                torch.testing.assert_close(scores, alone, rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(again, alone, rtol=1e-4, atol=1e-5)


def test_a_head_table_adds_a_bias_and_inputs_of_its_own():
    tokens, generator = torch.rand(2, 3, 5, 9), torch.Generator().manual_seed(0)
    one = Namm(features=NO_PASS, scorer="linear", table=HeadTable(4, 3, embedding=2))
    parameters = torch.randn(one.parameter_count, generator=generator)
    weight, offset, numbers = parameters[:11], parameters[11], parameters[12:]
    bias, embedding = numbers[:12].view(4, 3), numbers[12:].view(4, 3, 2)
    for layer in range(4):
        wanted = tokens @ weight[:9] + (embedding[layer] @ weight[9:] + offset + bias[layer])[:, None]
        torch.testing.assert_close(one.score(parameters, tokens, layer=layer), wanted)
    for heads, layer in ((2, 0), (3, 4)):
        with pytest.raises(MemxError, match=r"numbers for 4 layers of 3 key-value heads, and layer \d of this model"):
            one.score(parameters, tokens[:, :heads], layer=layer)


def test_a_head_table_of_another_model_is_refused(host):
    one = Namm(scorer="linear", features=("age",), table=HeadTable(5, 2), every=32)
    for policy in (one, PolicySlots((one,)), PolicyBatch(PolicySlots((one,)), (one,))):
        with pytest.raises(MemxError, match="numbers for 5 layers, and this model has 2"):
            namm.attach(host, policy).__enter__()


def test_an_mlp_is_gelu_by_the_error_function():
    one, tokens = Namm(torch.linspace(-1, 1, 161), **SMALL), torch.rand(1, 2, 3, 9)
    assert one.activation == "gelu" and Namm(scorer="mlp").activation == "relu"
    first, second, last = one.parameters.split([80, 72, 9])
    x = tokens
    for layer, width in ((first, 8), (second, 8)):
        x = torch.nn.functional.gelu(x @ layer[:-width].view(-1, width) + layer[-width:], approximate="none")
    torch.testing.assert_close(one.score(one.parameters, tokens), (x @ last[:8, None] + last[8])[..., 0])


def test_calibration_standardises_what_a_scorer_reads(host):
    (ids,) = prompts(LENGTH)
    mean, variance = namm.calibrate(host, [ids], every=LENGTH, features=NO_PASS)
    inputs = torch.stack([one[..., :9] for one in read(host, ids[None])])  # ALL begins with the same nine
    torch.testing.assert_close(mean, inputs.mean((0, 1, 2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(variance, inputs.var((0, 1, 2, 3), unbiased=False), rtol=1e-3, atol=1e-4)
