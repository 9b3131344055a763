"""Token ids of documents -> the two files of a shard, written whole or not at all, and checked later."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....errors import MemxError
from ....files import cannot_write, sync_folder, write_atomically
from .encoder import encoder_of
from .readers.prepared import TOKENIZER, Shard, is_prepared, read_manifest, size_wrong


class Encoded(NamedTuple):
    """Documents one after the other: all ids, the number of each document's, and the digests of their texts."""

    ids: NDArray[np.integer]
    lengths: Sequence[int]
    digests: Sequence[int]


class ShardWriter:
    """Writes one shard. Nothing bears its name before `finish`."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.name = folder, f"shard-{number:05d}"
        self.tokens = self.documents = 0
        self._hash = hashlib.sha256()
        self._index: list[NDArray[np.uint64]] = []
        self._temporary = folder / f".{self.name}.bin"
        try:
            self._file = self._temporary.open("wb")
        except OSError as error:
            raise cannot_write(self._temporary, error) from None

    def add(self, encoded: Encoded) -> None:
        """Append documents. Raises MemxError when the disk is full."""
        data = encoded.ids.tobytes()
        try:
            self._file.write(data)
        except OSError as error:
            raise cannot_write(self._temporary, error) from None
        self._hash.update(data)
        starts = self.tokens + np.cumsum([0, *encoded.lengths])[:-1]
        self._index.append(np.stack([starts.astype(np.uint64), np.array(encoded.digests, np.uint64)], axis=1))
        self.tokens += len(encoded.ids)
        self.documents += len(encoded.lengths)

    def finish(self) -> Shard:
        """Make the shard last and give its files their names."""
        index = np.concatenate([*self._index, np.array([[self.tokens, 0]], np.uint64)])
        content = index.tobytes()
        write_atomically(self.folder / f"{self.name}.idx", content)
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.rename(self.folder / f"{self.name}.bin")
            sync_folder(self.folder)
        except OSError as error:
            raise cannot_write(self.folder / self.name, error) from None
        hashes = self._hash.hexdigest(), hashlib.sha256(content).hexdigest()
        return Shard(
            name=self.name,
            tokens=self.tokens,
            documents=self.documents,
            sha256=hashes[0],
            index_sha256=hashes[1],
        )

    def drop(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def check_shards(folder: Path) -> Iterator[tuple[Shard, str]]:
    """Each shard of a prepared folder and what is wrong with it, "" if nothing is: sizes, then hashes of all bytes.

    Raises MemxError if the folder is not prepared.
    """
    if not folder.is_dir() or not is_prepared(folder):
        raise MemxError(f"{folder} is not a prepared corpus", hint="give a folder written by `memx prepare`")
    manifest = read_manifest(folder)
    for shard in manifest.shards:
        wrong = size_wrong(folder, shard, manifest.dtype)
        for ending, expected in ((".bin", shard.sha256), (".idx", shard.index_sha256)):
            if not wrong and _sha256(folder / (shard.name + ending)) != expected:
                wrong = f"{shard.name}{ending} has a wrong checksum"
        yield shard, wrong


def check_tokenizer(folder: Path) -> str:
    """What is wrong with the tokenizer of a prepared folder, "" if nothing is."""
    from ...base_models.load import load_tokenizer

    try:
        digest = encoder_of(load_tokenizer(str(folder / TOKENIZER))).digest
    except MemxError as error:
        return error.message
    except Exception as error:  # each library raises its own for a damaged file
        return f"cannot be loaded: {str(error).splitlines()[0][:200] if str(error) else type(error).__name__}"
    return "" if digest == read_manifest(folder).tokenizer else "is not the one that the shards were made with"


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"
