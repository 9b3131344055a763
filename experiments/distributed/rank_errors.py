"""Errors between ranks: what one raised -> what can be sent to all, and what a failed collective means."""

from __future__ import annotations

import pickle
import signal
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress


class LostRank(RuntimeError):
    """A rank is gone, so that no collective works any more."""


def told_by(rank: int, error: Exception) -> Exception:
    """The error in a form that can be sent to all ranks, of which the first tells the user."""
    sent = _portable(error)
    sent.add_note(f"on rank {rank}:\n{''.join(traceback.format_exception(error))}")
    setattr(sent, "told", True)  # noqa: B010
    return sent


def raise_first(errors: Sequence[Exception | None]) -> None:
    """Raise the first of the errors of all ranks, if there is one."""
    for error in errors:
        if error is not None:
            raise error


def _portable(error: Exception) -> Exception:
    """An error that survives pickling: itself, or what it says."""
    with suppress(Exception):
        copy = pickle.loads(pickle.dumps(error))
        if type(copy) is type(error):
            return copy
    return RuntimeError(f"{type(error).__name__}: {error}")


_LOST = ("connection closed", "connection reset", "broken pipe", "timed out", "socket", "gloo", "nccl", "recvvalue")


def understood(error: Exception, ranks: int) -> Exception:
    """What a failed collective means: another rank is gone. Other errors stay what they are.

    From then on SIGTERM is not heard: torchrun sends it to those that are left, before they could say why they end.
    """
    from torch import distributed

    names: Sequence[str] = ("DistBackendError", "DistNetworkError", "DistStoreError")
    kinds = tuple(getattr(distributed, name) for name in names if hasattr(distributed, name))
    text = str(error).lower()
    lost = isinstance(error, kinds) or (type(error) is RuntimeError and any(sign in text for sign in _LOST))
    if not lost:
        return error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cause = str(error).splitlines()[0].split(". ")[0][:200]
    return LostRank(
        f"one of the {ranks} ranks is gone, so the run ends here; --resume goes on from the last saved state ({cause})"
    )
