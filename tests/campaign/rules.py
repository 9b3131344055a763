"""What holds for every command that ended: its exit code, what it printed, and what it left."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from .forks import Call, Ended
from .inputs.values import VALID, WRONG
from .slots import Changes

# kinds of faults, which are the columns of the totals
EXIT, TRACEBACK, WORDS, HANG, LEFT = "wrong exit", "traceback", "unclear message", "hang", "half-written"
KINDS = (EXIT, TRACEBACK, WORDS, HANG, LEFT)
_TRACEBACK = re.compile(r"Traceback \(most recent call last\)|^  File \".*\", line \d+", re.M)
# words of Python and of libraries in a line that a user reads
_PYTHON = re.compile(
    r"\b(?!Mem)[A-Z]\w*(Error|Exception)\b|object at 0x|NoneType|<class '|<function |\bpydantic\b|errors\.pydantic|"
    r"Input should be|Field required|Extra inputs|valid dictionary|valid tuple|list index|dictionary|tuple\b|"
    r"unsupported operand|not subscriptable|not iterable|has no attribute|positional argument|keyword argument|"
    r"expected (str|int|bytes)|Errno|codec can't|can't (de|en)code|JSONDecode|"
    r"invalid literal|could not convert|\bfloat\(\)|\bint\(\)|Exceeds the limit|surrogates not allowed|"
    r"is not JSON serializable|size mismatch for|state_dict|torch\.Size|torch\.\w+\(|c10|at::|recursion|"
    r"Backend|__\w+__|kwargs|0x[0-9a-f]{6,}"
)
TEMPORARY = re.compile(r"(^|/)(\.[^/]+\.[a-z0-9_]{8}|\.[^/]+\.(old|new|tmp|part)|[^/]*\.tmp|tmp[a-z0-9_]{8})(/|$)")
_OURS = ("error:", "hint:", "failed:", "unexpected error:", "note:", "warning:")
CACHES = ("user/cache/", "user/.config", "user/.cache", "user/.triton", "temporary/torchinductor")


def faults(
    kind: str, ended: Ended, found: Changes, given: Sequence[str] = (), call: Call | None = None
) -> list[tuple[str, str]]:
    """The rules that a command broke: (kind of fault, what it is).

    Args:
        kind: How the input is to be met: wrong, odd or valid.
        ended: How the command ended.
        found: What it left in its slot.
        given: The texts that the user gave, which may be repeated in messages.
        call: The command.
    """
    if "--debug" in given:  # which asks for Python's words
        ended = replace(ended, out="", err="\n".join(line for line in ended.err.splitlines() if line.startswith(_OURS)))
    if call is not None and call.full:  # what was printed is lost, what was written is not
        return [(TRACEBACK, "a traceback")] if _TRACEBACK.search(ended.err) else []
    if ended.hung:
        return [(HANG, f"ran for {ended.cpu:.0f} s of CPU and {ended.wall:.0f} s")]
    told = [*_exit(kind, ended)]
    printed = ended.out + ended.err
    if match := _TRACEBACK.search(printed):
        told.append((TRACEBACK, match[0]))
    if call is None or "stderr" not in call.closed:
        told += _words(ended, given)
    told += _left(ended, found, home=any(text.startswith("~") for text in given))
    return told


def _exit(kind: str, ended: Ended) -> list[tuple[str, str]]:
    allowed = {WRONG: (2,), VALID: (0,)}.get(kind, (0, 2))
    if ended.code == 1 and "FAIL" in ended.out + ended.err:  # a check that found what it looks for
        return []
    if ended.code in allowed:
        return []
    return [(EXIT, f"exit {ended.code}, not {' or '.join(map(str, allowed))}")]


def _words(ended: Ended, given: Sequence[str]) -> list[tuple[str, str]]:
    lines = ended.err.splitlines()
    errors = [place for place, line in enumerate(lines) if line.startswith("error: ")]
    if ended.code == 2:
        if not errors and "Usage:" in ended.out + ended.err:  # a group without a command shows its help
            return []
        if len(errors) != 1:
            return [(WORDS, f"{len(errors)} lines begin with error:")]
        after = lines[errors[0] + 1 :]
        if len(after) > 1 or any(not line.startswith("hint: ") for line in after):
            return [(WORDS, "after the error comes more than one hint")]
    elif errors:
        return [(WORDS, f"exit {ended.code}, and an error is printed")]
    told = "\n".join(line for line in lines if line.startswith(_OURS))
    for text in sorted(set(given), key=len, reverse=True):
        if len(text) > 2:
            told = told.replace(text, "…").replace(repr(text)[1:-1], "…")
    if match := _PYTHON.search(told):
        return [(WORDS, f"words of Python: {match[0]}")]
    if any(len(line) > 2_000 for line in told.splitlines()):
        return [(WORDS, "a line of more than 2,000 characters")]
    return []


def _left(ended: Ended, found: Changes, *, home: bool) -> list[tuple[str, str]]:
    ours = [path for path in found.all() if not path.startswith(CACHES) and path != "user/cache"]
    temporary = [path for path in ours if TEMPORARY.search(path)]
    if temporary:
        return [(LEFT, f"a temporary file is left: {temporary[0]}")]
    if ended.code and "--resume" in ended.err and not found.changed and not found.lost:
        return []  # what was done so far is there to be continued
    if ended.code and ours:
        return [(LEFT, f"exit {ended.code}, and {len(ours)} paths differ: {ours[0]}")]
    if outside := [path for path in ours if path.startswith(("user/", "temporary/")) and not home]:
        return [(LEFT, f"written outside the folders that were given: {outside[0]}")]
    return []
