"""Files of bytes, plain or compressed with gzip or Zstandard; one that is cut off is an error, not an early end."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from ....errors import MemxError

COMPRESSED = (".gz", ".zst")
_BUFFER = 2**18
_INPUT = 2**12  # compressed bytes at once: their content can be 30,000 times as large


def open_bytes(path: Path) -> BinaryIO:
    """Open a file for reading, decompressed if its name ends in .gz or .zst.

    Args:
        path: The file.

    Returns:
        A file that can be sought. Reading raises OSError or EOFError where compressed data is damaged or cut off.

    Raises:
        MemxError: The package that reads .zst is not installed.
        OSError: The file cannot be opened.
    """
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return cast(BinaryIO, gzip.open(path))
    if suffix == ".zst":
        return cast(BinaryIO, io.BufferedReader(_Zstandard(path), _BUFFER))
    return path.open("rb", buffering=_BUFFER)


class _Zstandard(io.RawIOBase):
    """The content of a .zst file of one or more frames.

    `zstandard`'s own reader ends in silence where a file is cut off; this one raises EOFError.
    """

    def __init__(self, path: Path) -> None:
        try:
            import zstandard
        except ImportError:
            raise MemxError("reading .zst files needs the package zstandard", hint="pip install 'memx[data]'") from None
        self._error = zstandard.ZstdError
        self._open_frame = zstandard.ZstdDecompressor().decompressobj
        self._file: IO[bytes] = path.open("rb")
        self._begin()

    def _begin(self) -> None:
        self._file.seek(0)
        self._frame: Any = None  # None between two frames
        self._input = b""
        self._ready = memoryview(b"")
        self._at = 0

    def readable(self) -> bool:
        """Whether bytes can be read."""
        return True

    def seekable(self) -> bool:
        """Whether `seek` works."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; returns how many bytes it got, 0 at the end of the last frame."""
        while not self._ready:
            if not self._decompress():
                return 0
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._ready))
        target[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        self._at += count
        return count

    def _decompress(self) -> bool:
        data = self._input or self._file.read(_INPUT)
        self._input = b""
        if not data:
            if self._frame is not None:
                raise EOFError("the compressed data is cut off")
            return False
        if self._frame is None:
            self._frame = self._open_frame()
        try:
            self._ready = memoryview(self._frame.decompress(data))
        except self._error as error:
            raise OSError(f"the compressed data is damaged: {' '.join(str(error).split())}") from None
        if self._frame.eof:
            self._input, self._frame = self._frame.unused_data, None
        return True

    def tell(self) -> int:
        """The place in the decompressed bytes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place of the decompressed bytes by reading up to it; back means from the beginning again."""
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the size of compressed data is not known")
        target = max(offset + (self._at if whence == io.SEEK_CUR else 0), 0)
        if target < self._at:
            self._begin()
        while self._at < target and self.read(min(target - self._at, _BUFFER)):
            pass
        return self._at

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._file.close()
        super().close()
