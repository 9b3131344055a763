"""memx's evaluation of presses against kvpress's own pipeline, text by text; skipped where kvpress is not installed."""

import random

import pytest
import torch
from memx.experiments.data.long_context.example import Example
from memx.experiments.eviction.answers import tokenise
from memx.experiments.eviction.kvpress_presses import make_press, measure_presses
from memx.experiments.eviction.measurements import CacheSize
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, pipeline

from ...namm.hosts import make_host
from .test_kvpress import needs_kvpress

pytestmark = [needs_kvpress, pytest.mark.filterwarnings("ignore")]  # its imports warn
PRESSES = ("KnormPress", "SnapKVPress", "ExpectedAttentionPress")
# without a template the pipeline puts a first token and a line break of its own between the texts; this adds nothing
NOTHING_ADDED = "{{ messages[0]['content'] }}"


def letters():
    """A tokenizer of 90 characters, each of them a token."""
    words = {"#": 0, **{chr(code): code - 29 for code in range(32, 123) if chr(code) != "#"}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="#"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="#", pad_token="#", chat_template=NOTHING_ADDED
    )


def drawn(seed):
    """A context of 200 characters, with a question and the beginning of an answer."""
    text = "".join(random.Random(seed).choices("abcdefghijklmnopqrstuvwxy", k=240))
    prefix = " " + text[220:230]
    question = " " + text[200:220] + prefix
    return Example("made", text[:200], question, ("z",), "string_match_all", max_new_tokens=8, stop=(), prefix=prefix)


@torch.no_grad()
@pytest.mark.parametrize("share", [0.5, 0.3])
def test_every_text_is_what_the_pipeline_writes(share):
    import kvpress  # noqa: F401  registers the pipeline

    host, tokenizer = make_host(), letters()
    pipe = pipeline("kv-press-text-generation", model=host, tokenizer=tokenizer)
    for seed in range(3):
        example = drawn(seed)
        prompt = tokenise(example, tokenizer)
        found = measure_presses(host, prompt, PRESSES, [(share, CacheSize(share))], tokenizer)
        asked = dict(question=example.question.removesuffix(example.prefix), answer_prefix=example.prefix)
        for name, one in zip(PRESSES, found, strict=True):
            told = pipe(example.context, press=make_press(name, share), max_new_tokens=8, **asked)
            assert one.text == told["answer"], name
