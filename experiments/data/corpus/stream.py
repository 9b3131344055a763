"""A corpus -> an endless stream of packed batches, the same rows for any number of processes, and its exact position.

R rows of a step over all processes, S tokens a row. Row r of the run, counted from its first step on, is the next row
of lane r mod lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ....errors import MemxError
from ...config.scale import CorpusConfig
from ..batches import Batch
from .encoder import encoder_of
from .lane import Lane
from .readers.document import CorruptRecords
from .readers.prepared import PreparedTexts
from .readers.sources import notes_on, open_sources

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_CHANGED = "resume with the settings that the run was started with, or use --force to start over"


class CorpusBatches:
    """Batches of the rows r of each step with r mod world = rank, [R / world, S] each.

    `position` and `seek` save and restore the place; a position that `merge_positions` made of those of all ranks is
    taken up at any world size. The stream depends on nothing but (config, tokenizer, rows, sequence, seed, position).
    """

    def __init__(
        self,
        config: CorpusConfig,
        tokenizer: PreTrainedTokenizerFast,
        *,
        rows: int,
        sequence: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        notes: Callable[[str], None],
    ) -> None:
        """Open the sources; no document is read yet.

        Raises MemxError for a source that cannot be read or was prepared with another tokenizer, and where ranks
        cannot share lanes or rows evenly.
        """
        _check_shares(config.lanes, rows, world)
        self.config, self.rows, self.sequence, self.seed = config, rows, sequence, seed
        self.rank, self.world = rank, world
        self.sources = open_sources(config, CorruptRecords(config.damaged, notes))
        for note in notes_on(self.sources) if rank == 0 else []:
            notes(note)
        encoder = encoder_of(tokenizer)
        for source in self.sources:
            if isinstance(source, PreparedTexts) and source.manifest.tokenizer != encoder.digest:
                raise MemxError(
                    f"{source.name} was prepared with a different tokenizer than this run's",
                    hint=f"use --set corpus.tokenizer={source.name}/tokenizer, or prepare it with the run's tokenizer",
                )
        mine = range(rank, config.lanes, world)
        self.lanes = {number: Lane(config, self.sources, encoder, seed, number) for number in mine}
        self.row = 0

    def __iter__(self) -> CorpusBatches:
        return self

    def __next__(self) -> Batch:
        # lanes and rows are multiples of world, so row r and its lane r % lanes are of the same rank in every step
        numbers = range(self.row + self.rank, self.row + self.rows, self.world)
        rows = [self.lanes[number % self.config.lanes].row(self.sequence) for number in numbers]
        self.row += self.rows
        tokens, documents, labels = (torch.stack([torch.from_numpy(row[i]) for row in rows]) for i in range(3))
        return Batch(tokens, torch.arange(self.sequence).expand(len(rows), -1).contiguous(), documents, labels)

    @property
    def position(self) -> dict[str, Any]:
        """Where this rank's lanes stand, as JSON takes it: a few hundred bytes for each."""
        return {
            "row": self.row,
            "seed": self.seed,
            "lanes": self.config.lanes,
            "sizes": [source.sizes for source in self.sources],
            "at": {str(number): lane.position for number, lane in self.lanes.items()},
        }

    def seek(self, position: dict[str, Any]) -> None:
        """Go to a saved position that has this rank's lanes, and maybe more.

        Raises MemxError if it is of another number of lanes or another seed, or a file is not what it was.
        """
        for what, here in (("lanes", self.config.lanes), ("seed", self.seed)):
            if position[what] != here:
                raise MemxError(f"the checkpoint was saved with {what} {position[what]}, not {here}", hint=_CHANGED)
        if position["row"] % self.world:
            raise MemxError(
                f"{position['row']:,} rows were read, not a multiple of the {self.world} processes",
                hint="resume with the number of processes that the run was started with",
            )
        if len(position["sizes"]) != len(self.sources):
            raise MemxError(
                f"the checkpoint was saved with {len(position['sizes'])} sources, not {len(self.sources)}",
                hint=_CHANGED,
            )
        for source, sizes in zip(self.sources, position["sizes"], strict=True):
            _check_sizes(source.name, sizes, source.sizes)
        if missing := [number for number in self.lanes if str(number) not in position["at"]]:
            raise MemxError(
                f"the saved corpus position has no data stream {missing[0]}", hint="merge the positions of all ranks"
            )
        self.row = position["row"]
        for number, lane in self.lanes.items():
            lane.seek(position["at"][str(number)])


def merge_positions(positions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One position of those that all ranks hold after the same step."""
    first = positions[0]
    assert all(one["row"] == first["row"] for one in positions), "ranks are at different steps"
    at = {number: lane for one in positions for number, lane in one["at"].items()}
    return {**first, "at": dict(sorted(at.items(), key=lambda item: int(item[0])))}


def _check_shares(lanes: int, rows: int, world: int) -> None:
    if rows % world:
        raise MemxError(
            f"training.batch {rows} is not a multiple of the {world} processes",
            hint=f"use --set training.batch={-(-rows // world) * world}",
        )
    if lanes % world:
        raise MemxError(
            f"corpus.lanes {lanes} is not a multiple of the {world} processes",
            hint=f"use --set corpus.lanes={-(-lanes // world) * world}; to resume a run, keep its number of lanes",
        )


def _check_sizes(source: str, before: dict[str, int], now: dict[str, int]) -> None:
    """Raise MemxError naming the file that was added, removed or changed since a position was saved."""
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            change = "was removed" if name not in now else "was added" if name not in before else "changed size"
            raise MemxError(
                f"{source}: {name} {change} since the checkpoint, so the run cannot continue at its position",
                hint="restore the files, or use --force to start over",
            )
