"""Prepared corpora: the same documents, drawn in any order; the same bytes after a kill; damage told by shard."""

import json
import os
import shutil
import signal
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from memx.errors import MemxError
from memx.experiments.config.scale import CorpusSource
from memx.experiments.data.corpus import prepare as preparing
from memx.experiments.data.corpus import shards
from memx.experiments.data.corpus.encoder import Encoder, encoder_of
from memx.experiments.data.corpus.prepare import PrepareConfig, prepare
from memx.experiments.data.corpus.readers import json_lines as lines
from memx.experiments.data.corpus.readers.document import CorruptRecords, Share, text_digest
from memx.experiments.data.corpus.readers.prepared import (
    Manifest,
    Permutation,
    PreparedSource,
    PreparedTexts,
    Settings,
    Shard,
    read_manifest,
)
from memx.experiments.data.corpus.shards import check_shards, check_tokenizer
from memx.experiments.runtime.signals import Interrupted
from transformers import AutoTokenizer  # here, so that forks have it

from ....kills import kill_at_each_write
from ....ranks import end_worlds
from .corpora import no_damage, stream_from_here, texts, tokenizer, write_kind, write_lines


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(preparing, "_TOGETHER", 4)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer().save_pretrained(folder)
    return str(folder)


def order(out, saved, *sources, **more):
    return PrepareConfig(
        tuple(CorpusSource(path=str(one)) for one in sources), out, saved, **{"shard_tokens": 300, **more}
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["line files", "text file", "tables", "zipped", "who/few"])
def test_a_prepared_corpus_holds_every_document(kind, tmp_path, saved, monkeypatch):
    from memx.experiments.data.corpus.readers.sources import open_source

    stream_from_here(monkeypatch)
    monkeypatch.setattr(lines, "PIECE", 30)
    (source,) = write_kind(kind, tmp_path)
    heard = []
    manifest = prepare(order(tmp_path / "out", saved, source), pytest.fail, heard.append)
    raw = [one.content for one in open_source(CorpusSource(path=str(source)), no_damage()).read(Share(0, 1, None), 0)]
    folder = PreparedTexts(tmp_path / "out", no_damage())
    found = list(folder.read(Share(0, 1, None), 0))
    encoder = encoder_of(tokenizer())
    assert [one.content.tolist() for one in found] == [one.tolist() for one in encoder(raw)]
    assert [one.digest for one in found] == [text_digest(text) for text in raw]
    assert manifest.documents == len(raw) and manifest.tokens == sum(len(one.content) for one in found)
    assert (manifest.dtype, len(manifest.shards) > 1, manifest.left_out) == ("uint16", True, 0)
    assert AutoTokenizer.from_pretrained(tmp_path / "out" / "tokenizer").get_vocab() == tokenizer().get_vocab()
    assert heard[-1].tokens == manifest.tokens and not (tmp_path / "out" / "unfinished.json").exists()
    assert all(shard.tokens < 300 + 4 * 120 for shard in manifest.shards)
    assert [wrong for _, wrong in check_shards(tmp_path / "out")] == [""] * len(manifest.shards)


@pytest.mark.parametrize("count", [1, 2, 3, 17, 64, 65, 1000])
def test_a_permutation_is_one(count):
    orders = [[Permutation(count, key)[i] for i in range(count)] for key in ("a", "b")]
    assert all(sorted(found) == list(range(count)) for found in orders)
    assert count < 17 or len({*map(tuple, orders), tuple(range(count))}) == 3


def test_lanes_share_out_a_prepared_corpus_anew_in_each_epoch(tmp_path, saved):
    prepare(order(tmp_path / "out", saved, write_lines(tmp_path / "a.jsonl", texts("a", 50))), print)
    source = PreparedTexts(tmp_path / "out", no_damage())

    def read(lanes, epoch, seed=0):
        return [[one.digest for one in source.read(Share(lane, lanes, seed), epoch)] for lane in range(lanes)]

    digests = sorted(map(text_digest, texts("a", 50)))
    for lanes in (1, 3):
        orders = [read(lanes, epoch) for epoch in range(3)]
        assert all(sorted(sum(parts, start=[])) == digests for parts in orders)  # noqa: RUF017
        assert orders[0] != orders[1] != orders[2] and read(lanes, 0, seed=1) != orders[0]
    documents = source.read(Share(1, 3, 0), 2)
    first = [next(documents).digest for _ in range(5)]
    assert first + [one.digest for one in source.read(Share(1, 3, 0), 2, documents.place)] == read(3, 2)[1]


def test_ids_that_need_more_than_16_bits(tmp_path):
    encoder = encoder_of(tokenizer())
    told = json.loads(encoder.arguments[0])
    assert encoder.dtype == "uint16"
    told["added_tokens"].append({**told["added_tokens"][-1], "id": 70_000, "content": "<|far|>"})
    far = Encoder(json.dumps(told), (), 1)
    assert far.dtype == "uint16"  # tokenizers gives the next id
    assert Encoder(encoder.arguments[0], (70_000,), 1).dtype == "uint32"
    assert far.digest != encoder.digest == Encoder(*encoder.arguments).digest


def kill_at(at, *, out, saved, source):
    """Prepare, and die as the shard `at` gets its name, or just after."""
    preparing._TOGETHER = 4
    finish = shards.ShardWriter.finish
    count = 0

    def die(self):
        nonlocal count
        count += 1
        if count == int(at) and at == int(at):
            os.kill(os.getpid(), signal.SIGKILL)
        shard = finish(self)
        if count == int(at):
            os.kill(os.getpid(), signal.SIGKILL)
        return shard

    shards.ShardWriter.finish = die
    prepare(order(Path(out), saved, source, resume=True), print)


@pytest.mark.slow
def test_a_killed_one_goes_on_to_the_same_bytes(tmp_path, saved):
    source = write_lines(tmp_path / "a.jsonl", [*texts("a", 60), "", *texts("b", 40)])
    straight = tmp_path / "straight"
    prepare(order(straight, saved, source), print)
    assert len(files_of(straight)) > 10
    out = tmp_path / "killed"
    for at in (1, 2.5, 2):  # in each try
        (ended,) = end_worlds(kill_at, [1], {"at": at, "out": str(out), "saved": saved, "source": source})[1]
        assert ended.code == -signal.SIGKILL, ended
        with pytest.raises(MemxError, match="exists") as told:
            prepare(order(out, saved, source), print)
        assert "--resume" in told.value.hint
        with pytest.raises(MemxError, match="is not fully prepared"):
            PreparedTexts(out, no_damage()) if (out / "manifest.json").exists() else next(check_shards(out))
    assert prepare(order(out, saved, source, resume=True), print).documents == 100
    assert files_of(out) == files_of(straight)
    notes = []
    prepare(order(out, saved, source, resume=True), notes.append)
    assert notes == [f"{out} is already complete"] and files_of(out) == files_of(straight)


def test_one_that_was_killed_as_it_ended_is_ended(tmp_path, saved, monkeypatch):
    source = write_lines(tmp_path / "a.jsonl", [*texts("a", 30)])
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda self, **more: (_ for _ in ()).throw(RuntimeError))
        with pytest.raises(RuntimeError):
            prepare(order(out, saved, source), print)
    assert (out / "manifest.json").exists() and (out / "unfinished.json").exists()
    before = files_of(out)
    prepare(order(out, saved, source, resume=True), print)
    after = files_of(out)
    assert before.pop("unfinished.json") and before == after


def test_a_signal_stops_it_between_batches(tmp_path, saved):
    source = write_lines(tmp_path / "a.jsonl", texts("a", 60))
    prepare(order(tmp_path / "straight", saved, source), print)
    out = tmp_path / "out"

    def interrupt(written):
        if written.shards == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="2 finished shards are in"):
        prepare(order(out, saved, source), print, interrupt)
    assert not list(out.glob(".shard*")) and not (out / "manifest.json").exists()
    prepare(order(out, saved, source, resume=True), print)
    assert files_of(out) == files_of(tmp_path / "straight")


def test_what_is_resumed_must_be_what_was_begun(tmp_path, saved):
    source, other = (write_lines(tmp_path / f"{name}.jsonl", texts(name, 30)) for name in "ab")
    out = tmp_path / "out"
    prepare(order(out, saved, source), print)
    for changed, message in (
        (order(out, saved, source, shard_tokens=7, resume=True), "--shard-tokens 300, not 7"),
        (order(out, None, source, resume=True), "--tokenizer "),
        (order(out, saved, other, resume=True), r"a different .*a\.jsonl"),
        (order(out, saved, source, other, resume=True), "1 sources, not 2"),
    ):
        with pytest.raises(MemxError, match=message) as told:
            prepare(changed, print)
        assert "--force" in told.value.hint
    write_lines(tmp_path / "a.jsonl", texts("a", 31))
    with pytest.raises(MemxError, match=r"a different .*a\.jsonl"):
        prepare(order(out, saved, source, resume=True), print)
    assert prepare(order(out, saved, source, force=True), print).documents == 31


def test_folders_that_are_not_its_own_are_left_alone(tmp_path, saved):
    source = write_lines(tmp_path / "a.jsonl", texts("a", 30))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "shard-00000.bin").write_text("mine")
    for force in (False, True):
        with pytest.raises(MemxError, match="contains other files"):
            prepare(order(tmp_path / "mine", saved, source, force=force), print)
    with pytest.raises(MemxError, match="is a file"):
        prepare(order(Path(source), saved, source), print)
    assert (tmp_path / "mine" / "shard-00000.bin").read_text() == "mine"


def test_a_mistake_leaves_nothing_behind(tmp_path, saved):
    source = write_lines(tmp_path / "a.jsonl", texts("a", 30))
    empty = write_lines(tmp_path / "b.jsonl", [" "] * 9)
    prepare(order(tmp_path / "done", saved, source), print)
    for mistaken, message in (
        (order(tmp_path / "out", saved, tmp_path / "no.jsonl"), "no file"),
        (order(tmp_path / "out", "who/what", source), "hub cannot be reached"),
        (order(tmp_path / "out", saved, tmp_path / "done"), "already prepared"),
        (order(tmp_path / "out", None, empty), "no text to train a tokenizer on"),
    ):
        with pytest.raises(MemxError, match=message):
            prepare(mistaken, print)
        assert not (tmp_path / "out").exists()
    with pytest.raises(MemxError, match="no text in the field"):
        prepare(order(tmp_path / "out", saved, empty), print)
    assert not [name for name in files_of(tmp_path / "out") if name != ".lock"]


def test_damage_is_counted_and_may_be_skipped_on_the_way(tmp_path, saved):
    path = tmp_path / "a.jsonl"
    write_lines(path, texts("a", 40))
    path.write_text(path.read_text("utf-8") + "no\n" + json.dumps({"text": "last"}) + "\nno\n", "utf-8")
    out = tmp_path / "out"
    with pytest.raises(MemxError, match="line 41: not JSON") as told:
        prepare(order(out, saved, path), print)
    assert "--damaged skip --resume" in told.value.hint and list(out.glob("shard-*.bin"))
    notes = []
    manifest = prepare(order(out, saved, path, damaged="skip", resume=True), notes.append)
    assert (manifest.left_out, manifest.documents, len(notes)) == (2, 41, 2)


def test_a_damaged_shard_is_named(tmp_path, saved):
    out = tmp_path / "out"
    manifest = prepare(order(out, saved, write_lines(tmp_path / "a.jsonl", texts("a", 60))), print)
    first, second, third = (out / f"{shard.name}.bin" for shard in manifest.shards[:3])
    ids = np.fromfile(first, np.uint16)
    ids[5] += 1
    first.write_bytes(ids.tobytes())
    second.write_bytes(second.read_bytes()[:-2])
    third.with_suffix(".idx").unlink()
    wrong = [said for _, said in check_shards(out)]
    assert "shard-00000.bin has a wrong checksum" in wrong[0] and not any(wrong[3:])
    assert "shard-00001.bin has" in wrong[1] and "shard-00002.idx is missing" in wrong[2]
    with pytest.raises(MemxError, match=r"shard-00001: shard-00001\.bin has .* bytes, not"):
        PreparedTexts(out, no_damage())
    notes = []
    found = list(PreparedTexts(out, CorruptRecords("skip", notes.append)).read(Share(0, 1, None), 0))
    assert len(found) == sum(shard.documents for i, shard in enumerate(manifest.shards) if i not in (1, 2))
    assert [name in note for name, note in zip(("shard-00001", "shard-00002"), notes, strict=True)] == [True, True]


def test_an_index_that_points_nowhere(tmp_path, saved):
    out = tmp_path / "out"
    prepare(order(out, saved, write_lines(tmp_path / "a.jsonl", texts("a", 30))), print)
    path = out / "shard-00001.idx"
    index = np.fromfile(path, np.uint64)
    index[2] = 10**9
    path.write_bytes(index.tobytes())
    with pytest.raises(MemxError, match="shard-00001: the index of document 0 is invalid"):
        list(PreparedTexts(out, no_damage()).read(Share(0, 1, 0), 0))


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 2}'])
def test_a_manifest_that_is_none(content, tmp_path):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(MemxError, match="not a manifest of version 1"):
        PreparedTexts(tmp_path, no_damage())


def prepared_through_kills(folder: str, saved: str, every: int) -> tuple[int, int]:
    """Prepare, killed before each write, then go on; and again over another finished folder with --force."""
    preparing._TOGETHER = 4
    source = write_lines(Path(folder) / "a.jsonl", texts("a", 12))
    straight, other, out = (Path(folder) / name for name in ("straight", "other", "out"))
    prepare(order(straight, saved, source, shard_tokens=150), print)
    prepare(order(other, saved, source, shard_tokens=40), print)

    def look_and_go_on(number: int) -> None:
        begun = out.is_dir() and {"manifest.json", "unfinished.json"} & {one.name for one in out.iterdir()}
        with pytest.raises(MemxError, match="already exists") if begun else nullcontext():
            prepare(order(out, saved, source, shard_tokens=150), print)
        prepare(order(out, saved, source, shard_tokens=150, resume=True), print)
        assert seen_files(out) == seen_files(straight), number
        shutil.rmtree(out)

    def look_and_force(number: int) -> None:
        try:  # an unfinished new one goes on, else the old one is back
            prepare(order(out, saved, source, shard_tokens=150, resume=True), print)
            assert seen_files(out) == seen_files(straight), number
        except MemxError as error:
            assert "--shard-tokens 40, not 150" in error.message and seen_files(out) == seen_files(other), number
            prepare(order(out, saved, source, shard_tokens=150, force=True), print)
            assert seen_files(out) == seen_files(straight), number
        shutil.rmtree(out)
        shutil.copytree(other, out)

    begun = partial(prepare, order(out, saved, source, shard_tokens=150), print)
    fresh = kill_at_each_write(out, begun, look_and_go_on, every=every)
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(other, out)
    forced = partial(prepare, order(out, saved, source, shard_tokens=150, force=True), print)
    return fresh, kill_at_each_write(out, forced, look_and_force, every=every)


def seen_files(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_of(folder).items() if name != ".lock"}


@pytest.mark.parametrize("every", [25, pytest.param(1, marks=pytest.mark.slow)])
def test_no_kill_at_any_write_leaves_what_cannot_be_continued_or_loses_what_was_finished(tmp_path, saved, every):
    given = {"folder": str(tmp_path), "saved": saved, "every": every}
    (ended,) = end_worlds(prepared_through_kills, [1], given, seconds=300)[1]
    assert ended.code == 0 and not ended.error, ended.error
    fresh, forced = ended.result
    assert fresh > 15 // every and forced > 15 // every


def test_a_second_one_is_refused_and_a_finished_folder_kept(tmp_path, saved):
    source = write_lines(tmp_path / "a.jsonl", texts("a", 20))
    out, heard = tmp_path / "out", []

    def second(written):
        for more in ({}, {"resume": True}, {"force": True}):
            with pytest.raises(MemxError, match=r"already exists|another process is writing") as told:
                prepare(order(out, saved, source, **more), print)
            heard.append(told.value.message)

    prepare(order(out, saved, source), print, second)
    assert sum("another process" in message for message in heard) == 2 * len(heard) / 3 and heard
    before = files_of(out)
    with pytest.raises(MemxError, match="no file"):
        prepare(order(out, saved, tmp_path / "no.jsonl", force=True), print)
    assert files_of(out) == before


def test_a_full_disk_while_the_tokenizer_is_saved_leaves_nothing(tmp_path, saved, monkeypatch):
    source = write_lines(tmp_path / "a.jsonl", texts("a", 20))
    prepare(order(tmp_path / "old", saved, source), print)
    before = files_of(tmp_path / "old")

    def full(self, folder, **more):
        Path(folder).mkdir()
        (Path(folder) / "half").write_text("{")
        raise Exception("No space left on device (os error 28)")  # as tokenizers does

    monkeypatch.setattr(type(AutoTokenizer.from_pretrained(saved)), "save_pretrained", full)
    for folder, more in (("new", {}), ("old", {"force": True})):
        with pytest.raises(MemxError, match=r"cannot write .*No space left"):
            prepare(order(tmp_path / folder, saved, source, **more), print)
    assert not (tmp_path / "new").exists() and files_of(tmp_path / "old") == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told | {"tokens": told["tokens"] + 1}, "tokens, but its shards"),
        (lambda told: told | {"shards": [told["shards"][0] | {"name": "../x"}]}, "shards.0.name"),
        (lambda told: told | {"shards": [told["shards"][0] | {"tokens": -1}]}, "shards.0.tokens must be at least 0"),
    ],
)
def test_a_manifest_of_what_cannot_be(change, message, tmp_path, saved):
    out = tmp_path / "out"
    prepare(order(out, saved, write_lines(tmp_path / "a.jsonl", texts("a", 9))), print)
    told = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(change(told)))
    with pytest.raises(MemxError, match="not a manifest of version 1") as refused:
        list(check_shards(out))
    assert message in refused.value.message


def test_a_manifest_of_more_than_a_trillion_tokens_and_bytes(tmp_path):
    many = 3 * 10**13
    one = PreparedSource(path="texts", field="text", split="train", subset=None, sizes={"a.jsonl": 4 * many})
    settings = Settings(sources=(one,), tokenizer=None, vocabulary=300, shard_tokens=many)
    shard = Shard(name="shard-00000", tokens=many, documents=many, sha256="", index_sha256="")
    rest = {"tokens": many, "documents": many, "left_out": 2 * many}
    manifest = Manifest(dtype="uint32", tokenizer="", settings=settings, shards=(shard,), **rest)
    (tmp_path / "manifest.json").write_text(manifest.model_dump_json())
    assert read_manifest(tmp_path) == manifest


def test_the_tokenizer_is_checked_too(tmp_path, saved):
    out = tmp_path / "out"
    prepare(order(out, saved, write_lines(tmp_path / "a.jsonl", texts("a", 9))), print)
    assert check_tokenizer(out) == ""
    other = json.loads((out / "tokenizer" / "tokenizer.json").read_text())
    other["added_tokens"][-1]["content"] = "<|other|>"
    (out / "tokenizer" / "tokenizer.json").write_text(json.dumps(other))
    assert check_tokenizer(out)
    (out / "tokenizer" / "tokenizer.json").write_text("{")
    assert check_tokenizer(out)


@pytest.mark.slow
def test_several_processes_write_the_same_bytes(tmp_path, saved):
    source = write_lines(tmp_path / "a.jsonl", texts("a", 300))
    for jobs in (1, 3):
        prepare(order(tmp_path / str(jobs), saved, source, jobs=jobs), print)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "3")
