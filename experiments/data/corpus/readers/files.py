"""A .txt, .jsonl or .parquet file, a folder or a pattern of them -> a source of documents that lanes share out."""

from __future__ import annotations

import hashlib
import random
import zlib
from collections.abc import Callable, Iterator
from glob import has_magic
from pathlib import Path
from typing import Any, NamedTuple

from .....errors import MemxError
from ....config.scale import CorpusSource
from ...records.compressed import COMPRESSED
from .document import CorruptRecords, Document, Share
from .json_lines import align_line, align_piece, read_json_lines, read_pieces
from .parquet import count_rows, read_rows

_Read = Callable[[Path, str, int, int | None, str, CorruptRecords], Iterator[tuple[Document, int]]]
_NOTED = 1000  # files whose sizes are noted one by one
_SHOWN = 5  # files that are left out, by name


class _Kind(NamedTuple):
    """How files of a kind are read, and where in them a document begins; align None: they are counted in rows."""

    read: _Read
    align: Callable[[Path, int], int] | None


_LINES, _PIECES, _ROWS = _Kind(read_json_lines, align_line), _Kind(read_pieces, align_piece), _Kind(read_rows, None)
KINDS = {".jsonl": _LINES, ".txt": _PIECES, ".parquet": _ROWS}
KINDS |= {f"{suffix}{packed}": _LINES for suffix in (".jsonl", ".json") for packed in COMPRESSED}
KINDS |= {f".txt{packed}": _PIECES for packed in COMPRESSED}


class TextFile(NamedTuple):
    """A file, its name within the source and its size in bytes."""

    path: Path
    name: str
    size: int


class _Part(NamedTuple):
    """What of a file a lane reads: bytes, or rows of a parquet file; stop None: to the end."""

    file: TextFile
    first: int
    stop: int | None


def suffix_of(path: Path) -> str | None:
    """The suffix by which a file is read, or None."""
    return next((suffix for suffix in KINDS if path.name.lower().endswith(suffix)), None)


def find_files(name: str) -> tuple[list[TextFile], list[str]]:
    """The files that a path, a folder (with all folders in it) or a pattern names, in the order of their names.

    Returns them and the names of files with other endings, which are not read. Raises MemxError if no file can be read.
    """
    path = Path(name).expanduser()
    if has_magic(name) and not path.exists():
        root, found = Path(path.anchor), list(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    elif path.is_dir():
        root = path
        found = [one for one in path.rglob("*") if not any(part[0] == "." for part in one.relative_to(path).parts)]
    else:
        root, found = path.parent, [path]
    try:
        found = [one for one in found if one.is_file()]
        files = [one for one in found if suffix_of(one)]
        others = sorted(str(one.relative_to(root)) for one in found if not suffix_of(one))
        if not files:
            only = f", only {_listing(others)}" if others else ""
            raise MemxError(f"{name}: no readable file{only}", hint=f"give files that end in {', '.join(KINDS)}")
        named = [TextFile(one, str(one.relative_to(root)), one.stat().st_size) for one in files]
    except OSError as error:
        raise MemxError(
            f"cannot read {error.filename or name}: {error.strerror}", hint="check the path and its permissions"
        ) from None
    return sorted(named, key=lambda file: file.name), others


class FileTexts:
    """A source of local files.

    With as many files as lanes or more, lane i owns every lanes-th file from i on; with fewer, the i-th part of each.
    notes: which files of a folder are not read.
    """

    def __init__(self, source: CorpusSource, damage: CorruptRecords) -> None:
        self.name, self.field, self.damage = source.path, source.field, damage
        self.files, others = find_files(source.path)
        self.notes = [f"{self.name}: left out {_listing(others)}: other endings are not read"] if others else []
        self.sizes = _noted(self.files)
        self._rows: dict[str, int] = {}

    def read(self, share: Share, epoch: int, place: Any = None) -> FileDocuments:
        """The share's documents of an epoch, its files in an order drawn by (seed, epoch)."""
        parts = self._parts(share)
        if share.seed is not None:
            random.Random(f"{share.seed} {epoch} {share.lane} {self.name}").shuffle(parts)
        return FileDocuments(parts, self._open, self.damage, place)

    def _parts(self, share: Share) -> list[_Part]:
        lane, lanes = share.lane, share.lanes
        if len(self.files) >= lanes:
            return [_Part(file, 0, None) for file in self.files[lane::lanes]]
        for file in self.files:
            if file.path.suffix.lower() in COMPRESSED:
                raise MemxError(
                    f"{self.name} has {len(self.files)} files for corpus.lanes {lanes}; {file.name} cannot be split",
                    hint=f"use --set corpus.lanes={len(self.files)}, or decompress it",
                )
        sizes = [self._size(file) for file in self.files]
        return [
            _Part(file, size * lane // lanes, size * (lane + 1) // lanes)
            for file, size in zip(self.files, sizes, strict=True)
        ]

    def _size(self, file: TextFile) -> int:
        if KINDS[str(suffix_of(file.path))].align is not None:
            return file.size
        if file.name not in self._rows:
            self._rows[file.name] = count_rows(file.path, str(file.path), self.damage)
        return self._rows[file.name]

    def _open(self, part: _Part, at: int | None) -> Iterator[tuple[Document, int]]:
        path = part.file.path
        read, align = KINDS[str(suffix_of(path))]
        stop = part.stop if part.stop is None or align is None else align(path, part.stop)
        begin = at if at is not None else part.first if align is None else align(path, part.first)
        return read(path, str(path), begin, stop, self.field, self.damage)


class FileDocuments:
    """Documents of parts of files, one after the other. place: {part: its number, at: byte or row}."""

    def __init__(
        self,
        parts: list[_Part],
        open_part: Callable[[_Part, int | None], Iterator[tuple[Document, int]]],
        damage: CorruptRecords,
        place: Any,
    ) -> None:
        self.parts, self.damage = parts, damage
        self.part: int = place["part"] if place else 0
        self.at: int | None = place["at"] if place else None
        self._open_part = open_part
        self._found: Iterator[tuple[Document, int]] | None = None

    @property
    def place(self) -> dict[str, int | None]:
        """Where the next document is looked for."""
        return {"part": self.part, "at": self.at}

    def __iter__(self) -> FileDocuments:
        return self

    def __next__(self) -> Document:
        while self.part < len(self.parts):
            try:
                if self._found is None:
                    self._found = self._open_part(self.parts[self.part], self.at)
                document, self.at = next(self._found)
                return document
            except StopIteration:
                pass
            except (OSError, EOFError, zlib.error) as error:
                reason = getattr(error, "strerror", None) or str(error)
                name = str(self.parts[self.part].file.path)
                self.damage.report(name, -1, f"the rest of the file cannot be read ({reason})")
            self.part, self.at, self._found = self.part + 1, None, None
        raise StopIteration


def _listing(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"{len(names):,} file{'s' if len(names) > 1 else ''} ({shown})"


def _noted(files: list[TextFile]) -> dict[str, int]:
    """Name -> size; of very many files one number for all."""
    if len(files) <= _NOTED:
        return {file.name: file.size for file in files}
    listing = "\n".join(f"{file.name} {file.size}" for file in files).encode()
    return {f"one of {len(files):,} files": int.from_bytes(hashlib.sha256(listing).digest()[:6], "big")}
