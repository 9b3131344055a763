"""Whether facts fit in a model is measured exactly, and before training."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memx import MemoryLlamaConfig, MemoryLlamaForCausalLM
from memx.errors import MemxError
from memx.experiments.data.batches import PackedBatches
from memx.experiments.data.fact_tokens import check_lengths, possibly_long, train_on_facts
from memx.experiments.data.facts.biographies import biographies
from memx.experiments.data.facts.load import TABLES
from memx.experiments.data.facts.questions import FactSplit, documents_of, question_sets
from memx.experiments.data.facts.record import Fact
from memx.experiments.data.tokenizer import encode_texts, train_tokenizer
from memx.experiments.training.loss import answer_loss


def longest(split, tokenizer):
    texts = [document.text for fact in split.trained for document in documents_of(fact, split.seed)]
    asked = [f"{q.prompt} {q.answer}" for questions in question_sets(split).values() for q in questions]
    return [max(len(one.ids) + 1 for one in encode_texts(tokenizer, found)) for found in (texts, asked)]


def test_the_longest_in_tokens_is_found_among_longer_ones_in_bytes():
    words = [Fact("the mountain of the north " * 5 + str(i), "r", "x") for i in range(210)]
    digits = Fact("1234567890" * 7, "code", "y")
    split = FactSplit([*words, digits], [], 0)
    tokenizer = train_on_facts(split, 600)
    whole = longest(split, tokenizer)[0]
    assert check_lengths(split, tokenizer, 128) is None
    with pytest.raises(MemxError) as error:
        check_lengths(split, tokenizer, whole - 1)
    assert f"a document on '{digits.subject[:40]}…' (code) is {whole} tokens long" in error.value.message
    assert f"above data.sequence {whole - 1}" in error.value.message
    fits = -(-whole // 16) * 16
    assert f"--set data.sequence={fits} --set model.context={fits}" in error.value.hint
    assert check_lengths(split, tokenizer, fits, fits) is None


def test_a_question_on_an_entity_that_is_never_trained_is_measured_too():
    split = FactSplit([Fact("a", "r", "b")], [Fact("c " * 40, "r", "d")], 0)
    with pytest.raises(MemxError, match=r"a question with its answer on 'c c .*above model.context 48"):
        check_lengths(split, train_on_facts(split, 300), 32, 48)


def test_a_tokenizer_that_lengthens_texts_is_measured_in_full():
    from tokenizers import normalizers

    split = FactSplit([Fact("ﷺ", "r", "x")], [], 0)
    tokenizer = train_on_facts(split, 300)
    sequence = longest(split, tokenizer)[0]
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    with pytest.raises(MemxError, match="tokens long"):
        check_lengths(split, tokenizer, sequence)


def test_an_endless_word_is_no_endless_training():
    tokenizer = train_tokenizer(["xy" * 20_000, " " * 20_000, "short words"], 300)
    assert tokenizer.decode(tokenizer("xyxy short")["input_ids"]) == "xyxy short"


@pytest.mark.slow
def test_built_in_facts_fit_as_dry_runs_take_for_granted():
    invented = FactSplit(biographies(3000, 0), [], 0)
    check_lengths(invented, train_on_facts(invented, 512), 64)
    everything = FactSplit([fact for table in TABLES.values() for fact in table()] + invented.trained, [], 0)
    check_lengths(everything, train_on_facts(everything, 1024), 64)


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=14)
FACT = st.builds(Fact, TEXT, st.sampled_from(["capital", "birth_year", "{r} of"]), TEXT)


def model_of(vocabulary):
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    return MemoryLlamaForCausalLM(MemoryLlamaConfig(**shape, vocab_size=vocabulary))


@given(facts=st.lists(FACT, min_size=1, max_size=4, unique=True))
@settings(max_examples=8, derandomize=True, deadline=None, database=None)
def test_any_facts_train_or_are_refused_by_name(facts):
    split = FactSplit(facts, [], 0)
    tokenizer = train_on_facts(split, 280)
    documents, asked = longest(split, tokenizer)
    suspects = possibly_long(split, 56)
    try:
        check_lengths(split, tokenizer, 56, 60)
    except MemxError as error:
        assert documents > 56 or asked > 60
        assert any(repr(fact.subject) in error.message for fact in suspects)
        return
    assert documents <= 56 and asked <= 60
    batches = PackedBatches(facts, tokenizer, batch=4, sequence=56, seed=0, split_seed=0)
    loss = answer_loss(model_of(len(tokenizer)), next(batches))
    loss.backward()
    assert torch.isfinite(loss)
