"""The stream of a corpus: what its rows hold, the same at any world size, from any saved place on."""

import copy
import json
from collections import Counter

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.config.scale import CorpusConfig
from memx.experiments.data.corpus import prepare
from memx.experiments.data.corpus.held_out import held_out_blocks
from memx.experiments.data.corpus.readers import json_lines as lines
from memx.experiments.data.corpus.readers.document import is_held_out, text_digest
from memx.experiments.data.corpus.stream import CorpusBatches, merge_positions
from memx.experiments.data.corpus.vocabulary import corpus_tokenizer
from tokenizers import Tokenizer

from .corpora import (
    KINDS,
    settings,
    stream_from_here,
    texts,
    tokenizer,
    write_kind,
    write_lines,
    write_text,
)

ROWS, LENGTH = 4, 24


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(lines, "PIECE", 30)
    monkeypatch.setattr(lines, "WIDEST", 400)
    monkeypatch.setattr(prepare, "_TOGETHER", 3)


def batches(config, *, seed=0, rank=0, world=1, rows=ROWS, length=LENGTH, notes=pytest.fail):
    return CorpusBatches(
        config, tokenizer(), rows=rows, sequence=length, seed=seed, rank=rank, world=world, notes=notes
    )


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def joined(parts):
    """The rows of a step from those of its ranks."""
    return type(parts[0])(*(torch.stack(fields, 1).flatten(0, 1) for fields in zip(*parts, strict=True)))


def documents_of(config, count, *, lane=0, **more):
    """The first texts of a lane, read back from its rows."""
    stream = batches(config, rows=config.lanes, **more).lanes[lane]
    found, ids = [], []
    while len(found) < count:
        row = stream.row(LENGTH)
        for token in row.tokens.tolist():
            if token == tokenizer().eos_token_id:
                found.append(tokenizer().decode(ids))
                ids = []
            else:
                ids.append(token)
    return found[:count]


@pytest.mark.parametrize("kind", KINDS)
def test_from_any_place_on_it_goes_on_the_same_at_any_world_size(kind, tmp_path, monkeypatch):
    stream_from_here(monkeypatch)
    config = settings(*write_kind(kind, tmp_path))
    straight = batches(config)
    steps, places = [], []
    for _ in range(75):
        places.append(copy.deepcopy(straight.position))
        steps.append(next(straight))
    epochs = {source[0] for lane in straight.position["at"].values() for source in lane["sources"]}
    assert max(epochs) >= 1 and len(json.dumps(straight.position)) < 3000

    saved = None
    for at, world in zip(range(0, 72, 5), [1, 2, 4] * 5, strict=False):
        ranks = [batches(config, rank=rank, world=world) for rank in range(world)]
        for rank in ranks:
            rank.seek(json.loads(json.dumps(places[at])))
        if saved is not None and at == saved[0]:
            assert merge_positions([rank.position for rank in ranks]) == saved[1]
        for step in range(at, at + 3):
            assert equal(joined([next(rank) for rank in ranks]), steps[step]), (at, step)
        merged = merge_positions([rank.position for rank in ranks])
        assert merged == places[at + 3]


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_share_out_the_rows_of_one_process(kind, tmp_path, monkeypatch):
    stream_from_here(monkeypatch)
    config = settings(*write_kind(kind, tmp_path), shuffle=0)
    alone = batches(config)
    worlds = {world: [batches(config, rank=rank, world=world) for rank in range(world)] for world in (2, 4)}
    for _ in range(25):
        whole = next(alone)
        for ranks in worlds.values():
            assert equal(joined([next(rank) for rank in ranks]), whole)


def test_rows_are_documents_end_to_end(tmp_path):
    config = settings(write_lines(tmp_path / "a.jsonl", texts("a", 20)), lanes=1, shuffle=0)
    stream = batches(config, rows=2)
    tokens, documents, labels = [], [], []
    for _ in range(6):
        batch = next(stream)
        assert all(field.shape == (2, LENGTH) and field.dtype == torch.int64 for field in batch)
        assert torch.equal(batch.positions, torch.arange(LENGTH).expand(2, -1))
        tokens += batch.tokens.flatten().tolist()
        labels += batch.labels.flatten().tolist()
        documents += batch.documents.tolist()
    end = tokenizer().eos_token_id
    expected = [id for text in texts("a", 20) for id in [*tokenizer()(text)["input_ids"], end]]
    assert tokens == expected[: len(tokens)]
    # each token's label is the next one, in the next row too, and none at a document's end
    assert labels == [-100 if id == end else expected[i + 1] for i, id in enumerate(tokens)]
    for at, row in enumerate(documents):
        ids = tokens[at * LENGTH : (at + 1) * LENGTH]
        assert row == [ids[:i].count(end) for i in range(LENGTH)]


def test_a_text_that_names_the_end_token_does_not_end(tmp_path):
    text = f"before {tokenizer().eos_token} after"
    config = settings(write_lines(tmp_path / "a.jsonl", [text]), lanes=1)
    row = next(batches(config, rows=1, length=60)).tokens[0].tolist()
    end = tokenizer().eos_token_id
    assert tokenizer().decode(row[: row.index(end)]) == text


def test_a_tokenizer_that_begins_texts_begins_each_document(tmp_path):
    """As Llama 3's does; what a saved one truncates or pads to plays no part."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    told = Tokenizer.from_str(tokenizer().backend_tokenizer.to_str())
    told.add_special_tokens(["<|begin|>"])
    begin = told.token_to_id("<|begin|>")
    told.post_processor = TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", begin)])
    told.enable_truncation(5)
    made = PreTrainedTokenizerFast(tokenizer_object=told, bos_token="<|begin|>", eos_token=tokenizer().eos_token)
    config = settings(write_lines(tmp_path / "a.jsonl", texts("a", 20)), lanes=1, shuffle=0)
    batch = next(CorpusBatches(config, made, rows=1, sequence=100, seed=0, notes=pytest.fail))
    expected = [id for text in texts("a", 20) for id in [begin, *tokenizer()(text)["input_ids"], made.eos_token_id]]
    assert batch.tokens[0].tolist() == expected[:100]
    with pytest.raises(MemxError, match="no end token"):
        CorpusBatches(config, PreTrainedTokenizerFast(tokenizer_object=told), rows=1, sequence=9, seed=0, notes=print)


def test_sources_may_be_names_or_more():
    sources = CorpusConfig(sources="a.txt").sources
    assert sources == CorpusConfig(sources=["a.txt"]).sources == CorpusConfig(sources={"path": "a.txt"}).sources
    assert CorpusConfig(sources=None).sources == ()
    assert [one.weight for one in CorpusConfig(sources=["a", {"path": "b", "weight": 2}]).sources] == [1, 2]


def test_an_epoch_shows_each_document_once_and_the_next_another_order(tmp_path):
    documents = texts("a", 24)
    config = settings(write_lines(tmp_path / "a.jsonl", documents), lanes=1, shuffle=8)
    found = documents_of(config, 72)
    epochs = [found[at : at + 24] for at in (0, 24, 48)]
    assert all(sorted(epoch) == sorted(documents) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs} | {tuple(documents)}) == 4
    assert found[:24] != documents_of(config, 24, seed=1)
    assert documents_of(config.model_copy(update={"shuffle": 0}), 48) == documents * 2


def test_sources_are_mixed_by_weight(tmp_path):
    sources = [
        {"path": write_lines(tmp_path / f"{name}.jsonl", texts(name, 30, most=2)), "weight": weight}
        for name, weight in (("a", 3.0), ("b", 1.0), ("c", 0.5))
    ]
    counts = Counter(text[0] for text in documents_of(settings(*sources, lanes=1), 1800))
    for name, share in (("a", 3 / 4.5), ("b", 1 / 4.5), ("c", 0.5 / 4.5)):
        assert abs(counts[name] / 1800 - share) < 0.04, counts


@pytest.mark.parametrize("kind", ["line file", "tables", "prepared"])
def test_held_out_documents_are_never_trained_on(kind, tmp_path):
    config = settings(*write_kind(kind, tmp_path), held_out=0.3, lanes=2)
    trained = {text for lane in range(2) for text in documents_of(config, 120, lane=lane)}
    assert trained and not any(is_held_out(text_digest(text), 0.3) for text in trained)
    notes = []
    blocks = held_out_blocks(config, tokenizer(), 16, 500, notes.append)
    ids = blocks.flatten().tolist()
    held = [tokenizer().decode(part) for part in split_at(ids, tokenizer().eos_token_id)]
    assert held and all(is_held_out(text_digest(text), 0.3) for text in held)
    count = 45 if kind == "tables" else 40
    assert count - 2 <= len(trained) + len(held) <= count  # the last ones may fill no row
    assert f"only {len(blocks)} rows of 16 tokens are held out, not 500" in notes[0] and len(notes) == 1
    few = held_out_blocks(config, tokenizer(), 16, 3, pytest.fail)
    assert few.shape == (3, 16) and few.dtype == torch.int64 and torch.equal(few, blocks[:3])


def split_at(ids, end):
    part = []
    for token in ids:
        if token == end:
            yield part
            part = []
        else:
            part.append(token)


def test_held_out_text_is_looked_for_in_the_first_documents_only(tmp_path, monkeypatch):
    from memx.experiments.data.corpus import held_out

    monkeypatch.setattr(held_out, "MOST_DOCUMENTS", 50)
    config = settings(write_lines(tmp_path / "a.jsonl", texts("a", 400)), held_out=0.02)
    notes = []
    assert len(held_out_blocks(config, tokenizer(), 16, 500, notes.append)) < 5
    assert "of the first 50 documents" in notes[0]
    none = held_out_blocks(settings(*config.sources), tokenizer(), 16, 5, notes.append)
    assert none.shape == (0, 16) and "corpus.held_out is 0" in notes[1]


def test_one_trained_tokenizer_for_one_corpus(tmp_path):
    config = settings(*write_kind("line files", tmp_path), "python-docs", lanes=8)
    one, two = corpus_tokenizer(config, 500), corpus_tokenizer(config, 500)
    assert one.get_vocab() == two.get_vocab() and len(one) == 500
    prepared = write_kind("prepared", tmp_path)
    assert corpus_tokenizer(settings(*prepared), 500).get_vocab() == tokenizer().get_vocab()
    named = settings(*config.sources, tokenizer=str(tmp_path / "tokenizer"))
    assert corpus_tokenizer(named, 500).get_vocab() == tokenizer().get_vocab()
    with pytest.raises(MemxError, match="hub cannot be reached") as told:
        corpus_tokenizer(settings(*config.sources, tokenizer="some/model"), 500)
    assert "hf download some/model" in told.value.hint
    for content in ("{", '{"version": "1.0"}', '["tokens"]'):
        (tmp_path / "tokenizer" / "tokenizer.json").write_text(content)
        with pytest.raises(MemxError, match=r"cannot load .*tokenizer|tokenizer\.json: (not JSON|it )"):
            corpus_tokenizer(named, 500)


def test_a_prepared_corpus_wants_its_own_tokenizer(tmp_path):
    config = settings(*write_kind("prepared", tmp_path), *write_kind("line file", tmp_path))
    other = corpus_tokenizer(settings(*write_kind("line file", tmp_path)), 300)
    with pytest.raises(MemxError, match="prepared with a different tokenizer") as told:
        CorpusBatches(config, other, rows=4, sequence=8, seed=0, notes=pytest.fail)
    assert "corpus.tokenizer=" in told.value.hint


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"world": 3, "rows": 6}, "corpus.lanes 4 is not a multiple of the 3", "corpus.lanes=6"),
        ({"world": 4, "rows": 6}, "training.batch 6 is not a multiple of the 4", "training.batch=8"),
    ],
)
def test_ranks_must_share_evenly(changes, message, hint, tmp_path):
    with pytest.raises(MemxError, match=message) as told:
        batches(settings(*write_kind("line file", tmp_path)), **changes)
    assert hint in told.value.hint


def test_a_place_is_only_taken_up_where_it_was_saved(tmp_path):
    folder = tmp_path / "line files"
    config = settings(*write_kind("line files", tmp_path))
    stream = batches(config)
    next(stream)
    place = json.loads(json.dumps(stream.position))
    for other, message in (
        (batches(config, seed=1), "was saved with seed 0, not 1"),
        (batches(settings(*config.sources, lanes=2)), "was saved with lanes 4, not 2"),
        (batches(settings(*config.sources, "python-docs")), "with 1 sources, not 2"),
    ):
        with pytest.raises(MemxError, match=message):
            other.seek(place)
    half = batches(config, world=2, rank=1)
    with pytest.raises(MemxError, match="has no data stream 0"):
        batches(config).seek({**place, "at": half.position["at"]})
    write_lines(folder / "part3.jsonl", texts("other", 3))
    with pytest.raises(MemxError, match=r"part3\.jsonl changed size") as told:
        batches(config).seek(place)
    assert "--force" in told.value.hint
    (folder / "part3.jsonl").rename(folder / "part9.jsonl")
    with pytest.raises(MemxError, match=r"part3\.jsonl was removed"):
        batches(config).seek(place)


def test_a_corpus_smaller_than_its_lanes_says_so(tmp_path):
    config = settings(write_text(tmp_path / "a.txt", ["short"]))
    stream = batches(config)
    with pytest.raises(MemxError, match=r"no document for data stream [1-3] of 4") as told:
        for _ in range(10):
            next(stream)
    assert "corpus.lanes=1" in told.value.hint
