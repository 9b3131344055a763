"""A folder that `memx prepare` wrote -> a source of documents, token ids mapped from disk and drawn in any order.

manifest.json says what there is. A shard is NAME.bin, the ids of its documents one after the other, and NAME.idx,
uint64 [documents + 1, 2]: the first id of each and its text's digest; the last row has the number of ids and 0.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, ValidationError

from .....errors import MemxError, plain_reason
from .....json_text import BadJson, parse_json
from .....strict_model import WrittenModel
from .document import CorruptRecords, Document, Share

MANIFEST, UNFINISHED, TOKENIZER, VERSION = "manifest.json", "unfinished.json", "tokenizer", 1
_MASK = 2**64 - 1


class Shard(WrittenModel):
    """One pair of files: their name without the ending, what they hold, and their hashes."""

    name: str = Field(pattern=r"^shard-\d{5,12}$")  # of files in the folder, and of no other
    tokens: NonNegativeInt
    documents: NonNegativeInt
    sha256: str
    index_sha256: str


class PreparedSource(WrittenModel):
    """What was prepared: the source as given, and its files with their sizes."""

    path: str
    field: str
    split: str
    subset: str | None
    sizes: dict[str, int]


class Settings(WrittenModel):
    """What the bytes of a prepared folder depend on; `shard_tokens` ends a shard."""

    sources: tuple[PreparedSource, ...]
    tokenizer: str | None
    vocabulary: int
    shard_tokens: int


class Manifest(WrittenModel):
    """manifest.json."""

    version: Literal[1] = VERSION
    dtype: Literal["uint16", "uint32"]
    tokenizer: str  # the digest of the one in the folder
    settings: Settings
    tokens: int
    documents: int
    left_out: int
    shards: tuple[Shard, ...]


def is_prepared(folder: Path) -> bool:
    """Whether a folder was written by `memx prepare`. Raises MemxError if that was not finished."""
    if (folder / UNFINISHED).is_file():
        raise MemxError(f"{folder} is not fully prepared", hint="run its `memx prepare` command again with --resume")
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Read and check manifest.json. Raises MemxError if it is none of this version."""
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate(parse_json(path.read_bytes()))
    except OSError as error:
        raise MemxError(
            f"cannot read {path}: {error.strerror}", hint="give a folder written by `memx prepare`"
        ) from None
    except BadJson as error:
        raise _not_a_manifest(path, error.reason) from None
    except ValidationError as error:
        first = error.errors()[0]
        raise _not_a_manifest(path, f"{'.'.join(map(str, first['loc']))} {plain_reason(first)}".strip()) from None
    for name in ("tokens", "documents"):
        if getattr(manifest, name) != (total := sum(getattr(shard, name) for shard in manifest.shards)):
            raise _not_a_manifest(path, f"it has {getattr(manifest, name):,} {name}, but its shards {total:,}")
    return manifest


def _not_a_manifest(path: Path, reason: str) -> MemxError:
    return MemxError(
        f"{path} is not a manifest of version {VERSION}: {reason}", hint="run `memx prepare` again with --force"
    )


def size_wrong(folder: Path, shard: Shard, dtype: str) -> str:
    """What is wrong with the sizes of a shard's files, or "" if nothing is."""
    expected = {".bin": shard.tokens * np.dtype(dtype).itemsize, ".idx": 16 * (shard.documents + 1)}
    for ending, size in expected.items():
        path = folder / (shard.name + ending)
        if not path.is_file():
            return f"{path.name} is missing"
        if path.stat().st_size != size:
            return f"{path.name} has {path.stat().st_size:,} bytes, not {size:,}"
    return ""


class PreparedTexts:
    """A source of token ids. Lane i has every lanes-th document from i on, of an order drawn anew for each epoch."""

    def __init__(self, folder: Path, damage: CorruptRecords) -> None:
        self.name, self.folder, self.damage = str(folder), folder, damage
        self.manifest = read_manifest(folder)
        self.shards: list[Shard] = []
        for shard in self.manifest.shards:
            if wrong := size_wrong(folder, shard, self.manifest.dtype):
                damage.report(str(folder / shard.name), 0, wrong)
            else:
                self.shards.append(shard)
        self.sizes = {shard.name: shard.tokens for shard in self.shards}
        self.ends = list(accumulate(shard.documents for shard in self.shards))
        self._maps: dict[int, tuple[NDArray[np.integer], NDArray[np.uint64]]] = {}

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def read(self, share: Share, epoch: int, place: Any = None) -> PreparedDocuments:
        """The share's documents of an epoch, from a place on."""
        order = None if share.seed is None else Permutation(len(self), f"{share.seed} {epoch}")
        return PreparedDocuments(self, share, order, place or 0)

    def document(self, number: int) -> Document | None:
        """A document by its number; None after a report if its shard's index makes no sense."""
        at = bisect_right(self.ends, number)
        shard = self.shards[at]
        ids, index = self._map(at)
        inside = number - self.ends[at] + shard.documents
        (first, digest), (stop, _) = index[inside].tolist(), index[inside + 1].tolist()
        if not first < stop <= len(ids):
            self.damage.report(str(self.folder / shard.name), inside, f"the index of document {inside:,} is invalid")
            return None
        return Document(ids[first:stop], digest)

    def _map(self, at: int) -> tuple[NDArray[np.integer], NDArray[np.uint64]]:
        if at not in self._maps:
            path = self.folder / self.shards[at].name
            ids = np.memmap(path.with_suffix(".bin"), self.manifest.dtype, mode="r")
            index = np.memmap(path.with_suffix(".idx"), np.uint64, mode="r").reshape(-1, 2)
            self._maps[at] = ids, index
        return self._maps[at]


class PreparedDocuments:
    """Documents lane, lane + lanes, ... of an order. place: how many of them are read."""

    def __init__(self, source: PreparedTexts, share: Share, order: Permutation | None, place: int) -> None:
        self.source, self.share, self.order, self.place = source, share, order, place

    def __iter__(self) -> PreparedDocuments:
        return self

    def __next__(self) -> Document:
        while (number := self.share.lane + self.place * self.share.lanes) < len(self.source):
            self.place += 1
            found = self.source.document(number if self.order is None else self.order[number])
            if found is not None:
                return found
        raise StopIteration


class Permutation:
    """A drawn order of 0..count-1 that is computed at each place, so that it needs no memory for any corpus.

    A Feistel network (Luby and Rackoff 1988) permutes the numbers of 2 * half bits; those that fall beyond the count
    are permuted again until they fall inside (cycle walking, Black and Rogaway 2002).
    """

    def __init__(self, count: int, key: str) -> None:
        self.count = count
        self.half = ((max(count, 2) - 1).bit_length() + 1) // 2  # 4**half < 4 * count: few steps of the walk
        draw = random.Random(key)
        self.keys = [draw.getrandbits(64) for _ in range(4)]

    def __getitem__(self, place: int) -> int:
        while True:
            place = self._mixed(place)
            if place < self.count:
                return place

    def _mixed(self, place: int) -> int:
        low = (1 << self.half) - 1
        left, right = place >> self.half, place & low
        # each round can be undone, whatever is drawn from its right half, so no two places share a number
        for key in self.keys:
            # multiplied and shifted as in the finaliser of splitmix64, which spreads every bit over all others
            drawn = ((right ^ key) * 0xBF58476D1CE4E5B9) & _MASK
            drawn = ((drawn ^ drawn >> 27) * 0x94D049BB133111EB) & _MASK
            left, right = right, left ^ (drawn >> 31 & low)
        return left << self.half | right
