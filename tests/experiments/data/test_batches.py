"""Tokens and packed batches: round trips, the loss mask, no attention across documents, a position that restores."""

import pytest
import torch
from memx import MemoryLlamaConfig, MemoryLlamaForCausalLM
from memx.experiments.data.batches import PackedBatches, Tokens, block_mask, encode, pack
from memx.experiments.data.facts.biographies import biographies
from memx.experiments.data.facts.questions import documents_of, question_sets, split_entities
from memx.experiments.data.facts.record import Fact
from memx.experiments.data.facts.tables import countries
from memx.experiments.data.tokenizer import train_tokenizer
from memx.experiments.training.loss import answer_loss

FACTS = biographies(80) + countries()[:300] + [Fact("São Tomé", "currency note", "½ €  dobra"), Fact("x", "y", ".mm")]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer((d.text for fact in FACTS for d in documents_of(fact, 0)), 600)


def stream(tokenizer, **changes):
    settings = dict(batch=32, sequence=64, seed=0, split_seed=0)
    return PackedBatches(FACTS, tokenizer, **{**settings, **changes})


def test_every_text_round_trips(tokenizer):
    texts = [d.text for fact in FACTS for d in documents_of(fact, 0)] + ["日本\tΩ 😀", " a  b ", "1234.5"]
    for text in texts:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_tokenizer_is_the_same_for_the_same_texts(tokenizer):
    again = train_tokenizer((d.text for fact in FACTS for d in documents_of(fact, 0)), 600)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)


def test_a_prompt_and_its_answer_are_tokenised_as_the_document(tokenizer):
    split = split_entities(FACTS, 0.0, 0)
    for question in question_sets(split)["seen"]:
        whole = tokenizer(f"{question.prompt} {question.answer}")["input_ids"]
        parts = tokenizer(question.prompt)["input_ids"] + tokenizer(" " + question.answer)["input_ids"]
        assert whole == parts


def test_the_loss_counts_exactly_the_answer(tokenizer):
    for fact in FACTS[::7]:
        for document, tokens in zip(
            documents_of(fact, 0), encode(documents_of(fact, 0), tokenizer, answers_only=True), strict=True
        ):
            counted = tokens.ids[tokens.counts_from :]
            assert tokenizer.decode(counted[:-1]) == document.text[document.answer_start :]
            assert counted[-1] == tokenizer.eos_token_id


def test_every_document_is_packed_once_and_whole():
    documents = [Tokens(list(range(2, 2 + n)), 1) for n in (5, 30, 12, 64, 7, 33, 40, 3)]
    batch = pack(documents, 64)
    found = []
    for tokens, positions, numbers in zip(batch.tokens, batch.positions, batch.documents, strict=True):
        for number in range(int(numbers.max()) + 1):
            place = numbers == number
            assert positions[place].tolist() == list(range(int(place.sum())))
            found.append(tokens[place].tolist())
    assert sorted(found) == sorted(document.ids for document in documents)
    assert (batch.labels[batch.documents < 0] == -100).all()


def test_labels_are_the_next_token_of_the_same_document():
    batch = pack([Tokens([5, 6, 7, 1], 2), Tokens([8, 9, 1], 1)], 8)
    assert batch.tokens[0].tolist() == [5, 6, 7, 1, 8, 9, 1, 0]
    assert batch.labels[0].tolist() == [-100, 7, 1, -100, 9, 1, -100, -100]


def test_packed_documents_do_not_see_each_other(tokenizer):
    torch.manual_seed(0)
    model = MemoryLlamaForCausalLM(
        MemoryLlamaConfig(
            memory_layers=[1], memory_slots=64, memory_heads=2, memory_top_k=4, vocab_size=len(tokenizer),
            hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=64, bos_token_id=None, pad_token_id=0, eos_token_id=1,
        )
    ).double()  # fmt: skip
    documents = encode(documents_of(FACTS[0], 0) + documents_of(FACTS[-2], 0), tokenizer, answers_only=True)
    with torch.no_grad():
        packed = float(answer_loss(model, pack(documents, 64)))
        alone = sum(float(answer_loss(model, pack([document], 64))) for document in documents)
    assert packed == pytest.approx(alone, rel=1e-6)  # Llama norms and the loss are fp32


def test_block_mask_by_hand():
    mask = block_mask(torch.tensor([[0, 0, 1, -1]]))[0, 0]
    assert mask.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_a_pass_shows_every_fact_once_and_all_phrasings_in_turn(tokenizer):
    batches = stream(tokenizer, batch=len(FACTS))
    shown = [set(), set()]
    for epoch in range(2):
        next(batches)
        shown[epoch] = {tuple(batches._document(i, epoch).ids) for i in range(len(FACTS))}
    assert batches.position == {"epoch": 1, "cursor": len(FACTS)}
    assert not shown[0] & shown[1]


def test_the_stream_continues_exactly_from_a_saved_position(tokenizer):
    batches = stream(tokenizer)
    for _ in range(30):
        next(batches)
    position = batches.position
    expected = [next(batches) for _ in range(30)]
    again = stream(tokenizer)
    again.seek(position)
    for batch in expected:
        assert all(torch.equal(a, b) for a, b in zip(batch, next(again), strict=True))


def test_seeds_shuffle_differently(tokenizer):
    first, second = next(stream(tokenizer)), next(stream(tokenizer, seed=1))
    assert first.tokens.shape != second.tokens.shape or not torch.equal(first.tokens, second.tokens)


@pytest.mark.parametrize("position", [
    {"epoch": 0, "cursor": -1}, {"epoch": 0, "cursor": 10**6}, {"epoch": -1, "cursor": 0}, {"epoch": 0, "cursor": True},
    {"epoch": "0", "cursor": 0}, {"epoch": 0, "cursor": 1.0},
])  # fmt: skip
def test_a_position_outside_the_facts_is_refused(tokenizer, position):
    with pytest.raises(ValueError, match="no position in"):
        stream(tokenizer).seek(position)
