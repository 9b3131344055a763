"""A range of bytes of a .jsonl or .txt file, plain or compressed -> documents, each with the offset after it.

Nothing larger than a line or a piece is ever held.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .....json_text import BadJson, parse_json
from ...records.compressed import open_bytes
from .document import CorruptRecords, Document, text_digest

PIECE = 8_000  # characters, at least, of a document cut from a .txt file at an empty line
WIDEST = 64_000  # bytes of such a document, at most, where there are no empty lines
LONGEST_LINE = 2**25  # bytes of a line of .jsonl; a longer one is damage
_BUFFER = 2**18
_BOM = b"\xef\xbb\xbf"


def line_of(path: Path, at: int) -> str:
    """`line N` of the byte `at`, counted from the file's beginning."""
    count = 1
    with open_bytes(path) as file:
        while at > 0 and (part := file.read(min(at, 2**20))):
            count += part.count(b"\n")
            at -= len(part)
    return f"line {count:,}"


def read_json_lines(
    path: Path, name: str, first: int, stop: int | None, field: str, damage: CorruptRecords
) -> Iterator[tuple[Document, int]]:
    """Documents of the lines of bytes first..stop (None: to the end); `first` is where a line begins."""
    with open_bytes(path) as file:
        file.seek(first)
        at = first
        while stop is None or at < stop:
            begin, line = at, file.readline(LONGEST_LINE)
            if not line:
                return
            at += len(line)
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                at += _rest_of_line(file)
                text, wrong = "", f"a line longer than {LONGEST_LINE:,} bytes"
            else:
                text, wrong = _text_of(line.removeprefix(_BOM) if begin == 0 else line, field)
            if wrong:
                damage.report(name, begin, wrong, lambda begin=begin: line_of(path, begin))
            elif text.strip():
                yield Document(text, text_digest(text)), at


def align_line(path: Path, at: int) -> int:
    """The offset of the first line that begins at or after a byte."""
    if at == 0:
        return 0
    with open_bytes(path) as file:
        file.seek(at - 1)
        return at - 1 + _rest_of_line(file)


def read_pieces(
    path: Path, name: str, first: int, stop: int | None, field: str, damage: CorruptRecords
) -> Iterator[tuple[Document, int]]:
    """Documents cut at empty lines from bytes first..stop (None: to the end), each of PIECE characters or more.

    Where no empty line comes, one is cut at WIDEST bytes. `field` plays no part.
    """
    with open_bytes(path) as file:
        file.seek(first)
        at = first
        while stop is None or at < stop:
            begin, piece = at, _next_piece(file, WIDEST if stop is None else min(WIDEST, stop - at))
            if not piece:
                return
            at += len(piece)
            try:
                text = piece.removeprefix(_BOM if begin == 0 else b"").decode().replace("\r\n", "\n")
            except UnicodeDecodeError as error:
                wrong = begin + error.start
                damage.report(name, begin, "not UTF-8", lambda wrong=wrong: line_of(path, wrong))
                continue
            if text.strip():
                yield Document(text, text_digest(text)), at


def align_piece(path: Path, at: int) -> int:
    """The offset after the first empty line past a byte; after a line or a character if none comes in WIDEST bytes."""
    if at == 0:
        return 0
    with open_bytes(path) as file:
        file.seek(at - 1)
        end = at - 1 + len(file.readline(WIDEST))
        last = end
        while last - at < WIDEST:
            line = file.readline(WIDEST)
            last += len(line)
            if not line or not line.strip():
                return last
        file.seek(end)
        return end + len(_rest_of_character(file))


def _next_piece(file: BinaryIO, most: int) -> bytes:
    lines: list[bytes] = []
    room, characters = most, 0
    while room and (line := file.readline(room)):
        lines.append(line)
        room -= len(line)
        characters += len(line.decode("utf-8", "replace"))
        if characters >= PIECE and not line.strip():
            break
    if lines and not room and not lines[-1].endswith(b"\n"):
        lines.append(_rest_of_character(file))
    return b"".join(lines)


def _rest_of_character(file: BinaryIO) -> bytes:
    """The bytes that go on with a UTF-8 character, at most three; the file stands after them."""
    ahead = file.read(3)
    rest = len(ahead) - len(ahead.lstrip(bytes(range(0x80, 0xC0))))
    file.seek(rest - len(ahead), 1)
    return ahead[:rest]


def _rest_of_line(file: BinaryIO) -> int:
    """Read to the end of a line, of any length, and return how many bytes that were."""
    count = 0
    while part := file.readline(_BUFFER):
        count += len(part)
        if part.endswith(b"\n"):
            break
    return count


def _text_of(line: bytes, field: str) -> tuple[str, str]:
    """The text of a JSON line (none in an empty line), and what is wrong with it if anything is."""
    if not line.strip():
        return "", ""
    try:
        row = parse_json(line, finite=False)  # other fields than the text may be NaN
    except BadJson as error:
        return "", error.reason
    if not isinstance(row, dict):
        return "", "not a JSON object"
    text = row.get(field)
    return (text, "") if isinstance(text, str) else ("", f"no text in the field {field!r}")
