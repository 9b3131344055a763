"""One check of an installation: what was looked at, what was found, and what mends it. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

State = Literal["ok", "missing", "failed", "note"]


class Check(NamedTuple):
    """What was found of one thing.

    Attributes:
        group: The heading that it stands under.
        name: What was checked.
        state: ok; missing: something optional is not there; failed: memx needs it; note: it works, with a remark.
        found: What was found, in a few words.
        fix: The command or step that mends it; empty if nothing has to be mended.
        needed_for: Commands that need it; empty if all do.
    """

    group: str
    name: str
    state: State
    found: str
    fix: str = ""
    needed_for: str = ""


def failures(checks: Sequence[Check]) -> list[Check]:
    """The checks of what memx needs that failed.

    Args:
        checks: All checks.
    """
    return [check for check in checks if check.state == "failed"]


def guarded(group: str, name: str, fix: str, look: Callable[[], list[Check]]) -> list[Check]:
    """What a look finds; one failed check if it raises.

    Args:
        group: The heading of the failed check.
        name: What it is called.
        fix: What mends it.
        look: Makes the checks. It may call code of any package, which may raise anything.
    """
    try:
        return look()
    except Exception as error:
        said = next(iter(str(error).strip().splitlines()), "")
        return [Check(group, name, "failed", f"{type(error).__name__}: {said}"[:200], fix)]
