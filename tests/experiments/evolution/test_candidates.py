"""Candidates in one batch against each alone, read anew; the base against the plain model."""

from dataclasses import replace

import pytest
import torch
from memx import namm
from memx.errors import MemxError
from memx.experiments.data.long_context.example import Example
from memx.experiments.eviction.answers import Prompt, question_first, tokenise
from memx.experiments.evolution.candidates import CandidateEvaluator, held_share
from memx.namm.evolution.population import ObserveOnly
from memx.namm.policies.base import Rule
from memx.namm.policies.heuristics import Full
from memx.namm.policies.network import Namm
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

EXAMPLE = Example("made", "context", "question", ("answer",), "log_likelihood")


@pytest.fixture(scope="module")
def host():
    """A host in float64, so that no choice hangs on its rounding."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=96)
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(0, weight.shape[-1] ** -0.5)
    return model.double()


def draw(context, rest=9, answer=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 96, (context + rest,), generator=generator)
    return Prompt(EXAMPLE, ids[:context], ids[context:], answer)


def candidates(count=3):
    return 0.3 * torch.randn(count, 4172, generator=torch.Generator().manual_seed(2))


def likelihood(logits, prompt):
    wanted = prompt.rest[-prompt.answer :]
    return logits[0, -prompt.answer - 1 : -1].log_softmax(-1).gather(-1, wanted[:, None]).mean()


@torch.no_grad()
@pytest.mark.parametrize("rule", [Rule(), Rule(budget=0.4)], ids=str)
def test_online_candidates_are_attached_namms(host, rule):
    prompt, one = draw(200), Namm(rule=rule, every=64)
    for remember in (True, False):
        scores = CandidateEvaluator(host, one, mode="online", remember=remember).evaluate(prompt, candidates())
        for number, parameters in enumerate(candidates()):
            with namm.attach(host, replace(one, parameters=parameters)) as attached:
                host(prompt.context[None])
                kept = held_share(attached.cache)
                logits = host(prompt.rest[None], past_key_values=attached.cache).logits
            logits = torch.cat([torch.zeros(1, 1, 96), logits], 1)[:, 1:]
            assert float(scores.log_likelihood[number]) == pytest.approx(float(likelihood(logits, prompt)), abs=1e-4)
            assert float(scores.kept[number]) == pytest.approx(float(kept[0]))


@torch.no_grad()
def test_post_hoc_candidates_choose_once_from_the_whole_context(host):
    prompt, one = draw(160), Namm(rule=Rule(budget=0.25), every=64)
    evaluator = CandidateEvaluator(host, one)
    together = evaluator.evaluate(prompt, candidates())
    for number, parameters in enumerate(candidates()):
        alone = CandidateEvaluator(host, one).evaluate(prompt, parameters[None])
        assert float(together.log_likelihood[number]) == pytest.approx(float(alone.log_likelihood[0]), abs=1e-4)
        with namm.attach(host, ObserveOnly()) as attached:
            host(prompt.context[None])
        own = attached.cache.fork(replace(one, parameters=parameters), continue_with=(never := Full()))
        with namm.attach(host, never):
            logits = host(prompt.rest[None], past_key_values=own).logits
        assert float(together.log_likelihood[number]) == pytest.approx(float(likelihood(logits, prompt)), abs=1e-4)
    assert together.kept.tolist() == pytest.approx([0.25] * 3)
    assert set(evaluator.seconds) == {"context", "choice", "answer"} and min(evaluator.seconds.values()) > 0


@torch.no_grad()
@pytest.mark.parametrize("mode", ["post_hoc", "online"])
def test_the_base_is_the_plain_model_and_zero_parameters_are_as_good(host, mode):
    evaluator = CandidateEvaluator(host, Namm(every=64), mode=mode)
    for prompt in (draw(150), draw(40), draw(3, seed=4)):
        wanted = likelihood(host(torch.cat([prompt.context, prompt.rest])[None]).logits, prompt)
        assert evaluator.base(prompt) == pytest.approx(float(wanted), abs=1e-4)
        scores = evaluator.evaluate(prompt, torch.zeros(2, 4172))
        assert scores.log_likelihood.tolist() == pytest.approx([float(wanted)] * 2, abs=1e-4)
        assert scores.kept.tolist() == [1, 1]


def test_texts_become_context_question_and_answer():
    class Words:
        bos_token_id = eos_token_id = pad_token_id = unk_token_id = None
        all_special_ids = ()

        def __call__(self, texts, **_):
            return {"input_ids": [[len(word) for word in text.split()] for text in texts]}

    example = Example("made", "a bb ccc", " dddd e", ("ff ggg", "other"), "log_likelihood")
    prompt = tokenise(example, Words())
    assert prompt.context.tolist() == [1, 2, 3] and prompt.rest.tolist() == [4, 1, 2, 3] and prompt.answer == 2
    with pytest.raises(MemxError, match="empty answer"):
        tokenise(replace(example, answers=("",)), Words())
    asked = question_first(replace(prompt, rest=torch.tensor([4, 5, 6, 2, 3])))
    assert asked.context.tolist() == [1, 2, 3, 4, 5] and asked.rest.tolist() == [6, 2, 3] and asked.answer == 2
    bare = question_first(replace(prompt, rest=prompt.rest[-2:]))  # no question: the context's last token is left
    assert bare.context.tolist() == [1, 2] and bare.rest.tolist() == [3, 2, 3]


def test_answers_are_greedy_whatever_a_checkpoint_asks_for(host):
    class Tokenizer:
        pad_token_id = 0

        def batch_decode(self, rows, **_):
            return [" ".join(map(str, row)) for row in rows.tolist()]

    zeros, prompt = Namm(torch.zeros(4172), every=64), draw(100)
    prompt = replace(prompt, example=replace(EXAMPLE, max_new_tokens=12, metric="qa_f1_score"))
    wanted = CandidateEvaluator(host, zeros).write(prompt, candidates(), Tokenizer()).texts
    usual = host.generation_config
    asked = dict(do_sample=True, temperature=5.0, top_k=50, num_beams=3, repetition_penalty=1.9, no_repeat_ngram_size=1)
    host.generation_config = GenerationConfig(**asked, eos_token_id=usual.eos_token_id)
    try:
        assert CandidateEvaluator(host, zeros).write(prompt, candidates(), Tokenizer()).texts == wanted
    finally:
        host.generation_config = usual


@torch.no_grad()
@pytest.mark.parametrize("budget", [None, 0.2])
def test_masks_on_a_shared_context_are_evictions_from_copies(host, budget):
    rule = Rule(budget=0.4, allocation="global", first=4)
    prompt, one = draw(160), Namm(rule=rule, every=64)
    copies, masks = (CandidateEvaluator(host, one, masks=masks) for masks in (False, True))
    expected = copies.evaluate(prompt, candidates(), budget)
    for _ in range(2):  # what is remembered of a context does not change
        found = masks.evaluate(prompt, candidates(), budget)
        assert found.log_likelihood.tolist() == pytest.approx(expected.log_likelihood.tolist(), abs=1e-6)
        assert (
            found.kept.tolist() == pytest.approx(expected.kept.tolist()) == [pytest.approx(budget or 0.4, abs=0.01)] * 3
        )
    assert masks.base(prompt) == pytest.approx(copies.base(prompt))


@torch.no_grad()
@pytest.mark.parametrize("window", [False, True])
def test_contexts_in_half_precision_round_keys_and_values_alone(host, window):
    """What scorers read is that of before, so that the same tokens are kept."""
    rule = Rule(budget=0.4, allocation="global", first=4)
    prompt, one = draw(160), Namm(rule=rule, every=64)
    if window:
        torch.manual_seed(0)
        sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
        host = MistralForCausalLM(
            MistralConfig(**sizes, num_key_value_heads=2, vocab_size=96, sliding_window=70)
        ).eval()
    whole = CandidateEvaluator(host, one, masks=True)
    half, forgets = (
        CandidateEvaluator(host, one, masks=True, remember=remember, context_dtype=torch.float16)
        for remember in (True, False)
    )
    expected = whole.evaluate(prompt, candidates(), 0.2)
    found = [half.evaluate(prompt, candidates(), 0.2) for _ in range(2)]
    assert torch.equal(found[0].log_likelihood, found[1].log_likelihood)  # the first time as later
    assert found[0].kept.tolist() == expected.kept.tolist()
    error = (found[0].log_likelihood - expected.log_likelihood).abs().max()
    assert 0 < error < 5e-3
    assert torch.equal(forgets.evaluate(prompt, candidates(), 0.2).log_likelihood, found[0].log_likelihood)
    assert half.base(prompt) == forgets.base(prompt) == pytest.approx(whole.base(prompt), abs=5e-3)
    ((_, cache),) = half._shared.values()
    assert {layer.state.keys.dtype for layer in cache.layers} == {torch.float16}
    assert not forgets._shared and not forgets._inputs
