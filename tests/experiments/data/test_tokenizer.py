"""Texts become tokens as ordinary text, whatever they spell, and come back as they were."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memx.errors import MemxError
from memx.experiments.data.batches import encode
from memx.experiments.data.corpus.encoder import encoder_of
from memx.experiments.data.facts.questions import Document
from memx.experiments.data.text import text_blocks
from memx.experiments.data.tokenizer import (
    encode_text,
    encode_texts,
    special_ids,
    special_texts,
    tokenizer_from_text,
    train_tokenizer,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TEXTS = ["The capital of Alpha is A town.", "Where is it? 1998 <|end|> café 日本"] * 4
OWN = train_tokenizer(TEXTS, 400)


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with a chat model's tokens, which begins every text with one."""
    from tokenizers import processors

    bpe = Tokenizer(
        models.BPE(vocab={char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(["<|begin|>", "<|im_start|>", "<|im_end|>"])
    start = bpe.token_to_id("<|begin|>")
    bpe.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", start)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|begin|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )


CHAT = chat_tokenizer()
ANY = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
SPELT = st.sampled_from(["<|end|>", "<|pad|>", "<|begin|>", "<|im_start|>", "<|im_end|>"])
TEXT = st.lists(st.one_of(ANY, SPELT), max_size=4).map("".join)


@pytest.mark.parametrize("tokenizer", [OWN, CHAT], ids=["own", "chat"])
@given(text=TEXT)
@settings(max_examples=40, derandomize=True, deadline=None, database=None)
def test_every_text_comes_back_and_holds_no_special_token(tokenizer, text):
    ids = encode_text(tokenizer, text, begin=False)
    assert special_ids(tokenizer).isdisjoint(ids)
    assert tokenizer.decode(ids) == text
    begin = tokenizer("")["input_ids"]
    assert encode_text(tokenizer, text) == [*begin, *ids]
    (encoded,) = encoder_of(tokenizer)([text])
    assert encoded.tolist() == [*begin, *ids, tokenizer.eos_token_id]


def test_a_restored_tokenizer_encodes_alike():
    again = tokenizer_from_text(OWN.backend_tokenizer.to_str())
    assert encode_texts(again, TEXTS) == encode_texts(OWN, TEXTS)


def test_texts_without_special_tokens_keep_their_ids():
    for text in ("Where is it? 1998", " café", "", "\n\ta  b"):
        assert encode_text(OWN, text) == OWN(text)["input_ids"]


def test_documents_questions_and_text_blocks_end_only_where_memx_ends_them():
    end = OWN.eos_token_id
    (tokens,) = encode([Document("A <|end|> is <|pad|>b.", 12)], OWN, answers_only=True)
    assert tokens.ids.count(end) == 1 and tokens.ids[-1] == end and OWN.pad_token_id not in tokens.ids
    assert OWN.decode(tokens.ids[tokens.counts_from : -1]) == " <|pad|>b."
    blocks = text_blocks(["one <|end|> two " * 20], OWN, block=16, most=4, seed=0)
    assert not (blocks == end).any()


def test_what_a_text_spells_is_listed():
    assert special_texts(CHAT, "<|im_start|>user\nhi<|im_end|>") == ["<|im_start|>", "<|im_end|>"]
    assert special_texts(CHAT, "hi") == []


def test_a_tokenizer_that_cannot_do_so_refuses_the_text():
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((char, -4.0) for char in "a</s>")]
    unigram = Tokenizer(models.Unigram(list(dict(pieces).items()), 0, False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=unigram, eos_token="</s>", unk_token="<unk>")
    assert encode_text(tokenizer, "aß") == [2, 0]  # an unknown character is no fault
    assert encoder_of(tokenizer)(["aß"])[0].tolist() == [2, 0, 1]
    for refuse in (lambda: encode_text(tokenizer, "aa</s>"), lambda: encoder_of(tokenizer)(["aa</s>"])):
        with pytest.raises(MemxError, match="cannot read </s> as ordinary text, in 'aa</s>'"):
            refuse()


def test_half_a_character_is_refused_by_name():
    with pytest.raises(MemxError, match=r"U\+DCFF, which is not a character, after 'caf'"):
        encode_texts(OWN, ["fine", "caf\udcff"])


@pytest.mark.parametrize("piece", ["ab", " "])
def test_a_word_without_an_end_is_learned_in_parts(piece):
    made = train_tokenizer([*TEXTS, piece * 100_000], 300)
    assert max(len(token) for token in made.get_vocab()) <= 4096
    assert made.decode(encode_text(made, piece * 5000)) == piece * 5000
