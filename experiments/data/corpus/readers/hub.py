"""A data set of the Hugging Face hub, streamed by `datasets` -> a source of documents that lanes share out."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

from .....errors import MemxError
from .....hub import gated, mute_hub
from ....config.scale import CorpusSource
from .document import CorruptRecords, Document, Share, text_digest

if TYPE_CHECKING:
    from datasets import IterableDataset

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+", re.ASCII)


class HubTexts:
    """A streamed data set. Lane i owns its i-th share of the shards, or every lanes-th row where there are too few.

    Its order stays that of the data set in every epoch; the shuffle buffer alone changes it.
    """

    def __init__(self, source: CorpusSource, damage: CorruptRecords) -> None:
        self.name, self.field, self.damage = source.path, source.field, damage
        self.data = _load(source)
        self.sizes = {f"{source.path} ({source.split}), in shards": self.data.num_shards}

    def read(self, share: Share, epoch: int, place: Any = None) -> HubDocuments:
        """The share's documents, from a place on."""
        data = copy.deepcopy(self.data)  # an iteration keeps its state in the object
        first, stride = share.lane, share.lanes
        if self.data.num_shards >= share.lanes:
            data, first, stride = data.shard(num_shards=share.lanes, index=share.lane), 0, 1
        if place:
            data.load_state_dict(place["state"])
        return HubDocuments(data, first, stride, place["row"] if place else 0, self)


class HubDocuments:
    """Rows first, first + stride, ... of a data set. place: the data set's own state, and the rows given."""

    def __init__(self, data: IterableDataset, first: int, stride: int, row: int, source: HubTexts) -> None:
        self.data, self.first, self.stride, self.row, self.source = data, first, stride, row, source
        self._rows = iter(data)

    @property
    def place(self) -> dict[str, Any]:
        """Where the next document is looked for."""
        return {"state": self.data.state_dict(), "row": self.row}

    def __iter__(self) -> HubDocuments:
        return self

    def __next__(self) -> Document:
        for row in self._rows:
            number, self.row = self.row, self.row + 1
            if number % self.stride != self.first % self.stride:
                continue
            text = row.get(self.source.field)
            try:
                if isinstance(text, str) and not text.strip():
                    continue
                if isinstance(text, str):
                    return Document(text, text_digest(text))
                reason = f"no text in the field {self.source.field!r} (fields: {', '.join(row)[:200]})"
            except UnicodeEncodeError:
                reason = "invalid Unicode (a lone surrogate)"
            self.source.damage.report(self.source.name, number, reason, lambda number=number: f"row {number + 1:,}")
        raise StopIteration


def _load(source: CorpusSource) -> IterableDataset:
    """Open the stream. Raises MemxError with what to do if it cannot be had."""
    try:
        import datasets
    except ImportError:
        raise MemxError(
            f"streaming {source.path} from the hub needs the package datasets", hint="pip install 'memx[data]'"
        ) from None
    name = source.path
    try:
        with mute_hub():
            data: Any = datasets.load_dataset(name, name=source.subset, split=source.split, streaming=True)
        return data
    except Exception as error:  # datasets and its hub raise many kinds, of no common base
        raise _cannot_stream(name, error) from None


def _cannot_stream(name: str, error: Exception) -> MemxError:
    said = " ".join(str(error).split())
    if "gated" in said.lower():
        return gated(f"data set {name}", f"datasets/{name}")
    if isinstance(error, ConnectionError) or "reach" in said.lower() or "offline" in said.lower():
        folder = name.rpartition("/")[2]
        command = f"hf download {name} --repo-type dataset --local-dir {folder}"
        return MemxError(
            f"no file or folder {name}, and the Hugging Face hub cannot be reached",
            hint=f"on a machine with internet, run: {command}; then use the folder {folder} as the source",
        )
    return MemxError(
        f"cannot stream {name}: {said[:200]}",
        hint='set its subset, split or field: {"path": "…", "subset": "…", "split": "…", "field": "…"}',
    )
