"""Errors between ranks: what one rank raised -> the same error on every rank, and what a failed collective means."""

from __future__ import annotations

import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from ...errors import MemxError

_Result = TypeVar("_Result")


class LostRank(RuntimeError):
    """A rank is gone, so that no collective works any more."""


class RankFailure(Exception):
    """The cause (`__cause__`) of an error that all ranks raise because one of them met it.

    Args:
        rank: the one that met it.
        details: what happened there, such as a traceback; `--debug` shows it.
    """

    def __init__(self, rank: int, details: str) -> None:
        super().__init__(f"on rank {rank}:\n{details}")


class UnsharedError(MemxError):
    """A user's mistake that this rank met by itself, so that the first rank may know nothing of it."""


@dataclass(frozen=True)
class Attempt(Generic[_Result]):
    """How a piece of work ended on one rank, in a form that can be sent to the others."""

    rank: int
    result: _Result | None
    error: Exception | None = None
    details: str = ""


def attempt(rank: int, work: Callable[[], _Result]) -> Attempt[_Result]:
    """Do the work; what it returned or raised. A lost rank is raised at once, as nobody would receive it."""
    try:
        return Attempt(rank, work())
    except LostRank:
        raise
    except Exception as error:
        return Attempt(rank, None, _portable(error), "".join(traceback.format_exception(error)))


def results(attempts: Sequence[Attempt[_Result]]) -> list[_Result]:
    """The result of each attempt; raises the first error among them, caused by a `RankFailure`."""
    for one in attempts:
        if one.error is not None:
            raise one.error from RankFailure(one.rank, one.details)
    return [cast(Any, one.result) for one in attempts]


def is_shared(error: BaseException) -> bool:
    """Whether every rank raises this error."""
    return isinstance(error.__cause__, RankFailure)


def _portable(error: Exception) -> Exception:
    """An error that survives pickling: a copy of itself, or its text."""
    with suppress(Exception):
        copy = pickle.loads(pickle.dumps(error))
        if type(copy) is type(error):
            return copy
    return RuntimeError(f"{type(error).__name__}: {error}")


_LOST = ("connection closed", "connection reset", "broken pipe", "timed out", "socket", "gloo", "nccl", "recvvalue")


def explained(error: Exception, ranks: int) -> Exception:
    """The `LostRank` that a failed collective means, or the error itself if it means something else.

    From then on SIGTERM is ignored: torchrun sends it to the ranks that are left, before they could say why they end.
    """
    from ...torch_compat import lost_rank_errors

    text = str(error).lower()
    # gloo raises plain RuntimeErrors, so that only their words tell a closed connection from a mistake in the code
    lost = isinstance(error, lost_rank_errors()) or (
        type(error) is RuntimeError and any(sign in text for sign in _LOST)
    )
    if not lost:
        return error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cause = str(error).splitlines()[0].split(". ")[0][:200]
    return LostRank(
        f"one of the {ranks} ranks was lost, so the run stops; "
        f"run the same command again with --resume to continue ({cause})"
    )
