"""Ways in which a disk, an editor or another program damages a file, by its kind; what comes of it is odd."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

_OTHERS: tuple[Any, ...] = (
    None, True, False, 0, -1, -5, 1.5, 1e308, float("nan"), float("inf"), 10**30, 10**400, "", "text", "[red]x[/red]",
    "\ud800", "\0", "$x$", "_x", "a/b", "../x", "x" * 5_000, [], {}, [1], [[]], {"a": 1}, [None], "1", "nan",
    "<end>", "a\nb",
)  # fmt: skip
_NOISE = (b"\xff", b"\x00", b"\xed\xa0\x80", b"\n", b"\r", b",", b'"', b"[", b"{", b"\xef\xbb\xbf", b"-", b"9" * 5_000)


def damage(path: str, random: Random) -> Callable[[bytes], bytes]:
    """A function from the bytes of a file to other bytes, drawn by what the file's name says that it is."""
    seed = random.random()
    ways: list[Callable[[bytes, Random], bytes]] = [_flip, _cut, _noise, _empty, _repeat]
    if path.endswith((".json", ".jsonl")):
        ways += [_json] * 9
    elif path.endswith((".csv", ".txt", ".yaml")):
        ways += [_cells] * 4
    elif path.endswith(".safetensors"):
        ways += [_header] * 6
    way = random.choice(ways)
    return lambda data: way(data, Random(seed))


def _flip(data: bytes, random: Random) -> bytes:
    """Some bits are other ones."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 64)) if data else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(data: bytes, random: Random) -> bytes:
    """The end is missing."""
    return data[: random.randrange(len(data) + 1)]


def _noise(data: bytes, random: Random) -> bytes:
    """Something stands where it does not belong."""
    place = random.randrange(len(data) + 1)
    return data[:place] + random.choice(_NOISE) + data[place:]


def _empty(data: bytes, random: Random) -> bytes:
    """Nothing is left, or only zeros, as after a power cut."""
    return random.choice((b"", b"\0" * len(data), b"\n"))


def _repeat(data: bytes, random: Random) -> bytes:
    """A part comes twice."""
    first, last = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return data[:last] + data[first:]


def _cells(data: bytes, random: Random) -> bytes:
    """A word is another one."""
    words = data.decode("utf-8", "surrogateescape").split(" ") if b"," not in data else data.decode().split(",")
    other = random.choice(_OTHERS)
    words[random.randrange(len(words))] = other if isinstance(other, str) else _dumped(other)
    joined = (" " if b"," not in data else ",").join(words)
    return joined.encode("utf-8", "surrogatepass")


def _json(data: bytes, random: Random) -> bytes:
    """A value is of another type, a key is gone, comes twice, or has another name; or all is nested too deep."""
    lines = data.decode().splitlines()
    whole = (len(lines) > 1 and not lines[0].startswith('{"')) or len(lines) < 2
    place = random.randrange(max(len(lines), 1))
    text = data.decode() if whole else lines[place]
    try:
        tree = json.loads(text)
    except ValueError:
        return _flip(data, random)
    deep = random.random()
    if deep < 0.05:
        text = random.choice(
            ("[" * 100_000, "[" * 600 + "]" * 600, '{"a":' * 1_200 + "1" + "}" * 1_200, text + text, text + ",")
        )
    elif deep < 0.12 and isinstance(tree, dict) and tree:
        key = random.choice(list(tree))
        text = text.rstrip().removesuffix("}") + f", {json.dumps(key)}: {_dumped(random.choice(_OTHERS))}}}"
    else:
        text = _dumped(_swapped(tree, random))
    if whole:
        return text.encode("utf-8", "surrogatepass")
    return ("\n".join([*lines[:place], text, *lines[place + 1 :]]) + "\n").encode("utf-8", "surrogatepass")


def _swapped(tree: Any, random: Random) -> Any:
    """The tree with one value changed."""
    if isinstance(tree, dict) and tree and random.random() < 0.9:
        key = random.choice(list(tree))
        draw = random.random()
        if draw < 0.1:
            return {name: value for name, value in tree.items() if name != key}
        if draw < 0.15:
            return {
                **tree,
                random.choice(("", "[red]", "$x$", "_x", "\ud800", "value", "step")): random.choice(_OTHERS),
            }
        return {**tree, key: _swapped(tree[key], random)}
    if isinstance(tree, list) and tree and random.random() < 0.7:
        place = random.randrange(len(tree))
        return [*tree[:place], _swapped(tree[place], random), *tree[place + 1 :]]
    return random.choice(_OTHERS)


def _dumped(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=_has_surrogate(value))
    except ValueError:  # Python writes no integers of so many digits
        return "1" + "0" * 5_000


def _has_surrogate(value: Any) -> bool:
    """Whether escapes are written, where bytes could not be."""
    return "\ud800" in repr(value)


def _header(data: bytes, random: Random) -> bytes:
    """The header of a file of tensors says something else than its bytes hold, or a number is not finite."""
    if len(data) < 8:
        return data
    (size,) = struct.unpack("<Q", data[:8])
    draw = random.random()
    if draw < 0.15:
        other = random.choice((0, 1, size - 1, size + 1, 2**63, 2**64 - 1, len(data), 10**9))
        return struct.pack("<Q", other) + data[8:]
    if draw < 0.4:  # numbers that are not finite, or huge
        count = (len(data) - 8 - size) // 4
        place = 8 + size + 4 * random.randrange(max(count, 1))
        return (
            data[:place]
            + random.choice((b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f"))
            + data[place + 4 :]
        )
    header = json.loads(data[8 : 8 + size])
    name = random.choice([key for key in header if key != "__metadata__"] or ["x"])
    tensor = header.get(name, {})
    change = random.randrange(5)
    if change == 0:
        tensor["dtype"] = random.choice(("F64", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "X", 5, None))
    elif change == 1:
        tensor["shape"] = random.choice(
            ([], [0], [10**12], [-1], "x", [*tensor.get("shape", []), 1], tensor.get("shape", [])[::-1])
        )
    elif change == 2:
        tensor["data_offsets"] = random.choice(([0, 0], [0, 10**15], [5, 1], "x", [0, 4]))
    elif change == 3:
        header.pop(name, None)
    else:
        header[random.choice(("other", "", "[red]", "__metadata__"))] = header.pop(name, 5)
    changed = json.dumps(header).encode()
    return struct.pack("<Q", len(changed)) + changed + data[8 + size :]
