"""How the work in a claimed run folder ends, written into its run.json. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pydantic import BaseModel

from ...errors import MemxError
from ...results.store.nearest import new_run_note
from ...results.store.runs import Run, RunStore
from .events import Note, Report
from .signals import Interrupted


class RunFailed(Exception):
    """A run that failed for a reason that its message says in full; the command line prints it alone and exits 1.

    Args:
        message: One line: what failed, when, and what to do about it.
        info: What run.json is to say of it.
    """

    def __init__(self, message: str, **info: Any) -> None:
        super().__init__(message)
        self.info = info  # an attribute, which pickle carries along to other processes


@contextmanager
def recorded_run(run: Run, keeps: Callable[[], bool], plain: type[Exception] | None = None) -> Iterator[None]:
    """Record how the block ended, if it did not reach its end; the caller begins and finishes the run.

    Args:
        run: A claimed run.
        keeps: Whether the folder holds anything to resume from. Without it a user's mistake empties the folder, so
            that the corrected command can start.
        plain: Errors that are recorded by their message alone, without their type.

    Raises:
        Whatever the block raises.
    """
    try:
        yield
    except (Interrupted, KeyboardInterrupt):
        with suppress(MemxError):  # a disk that is full or gone hides no error of the work
            run.end("interrupted")
        raise
    except MemxError as error:
        with suppress(MemxError):
            if keeps():
                run.end("failed", error=error.message)
            else:
                run.discard()
        raise
    except RunFailed as error:
        with suppress(MemxError):
            run.end("failed", error=str(error), **error.info)
        raise
    except Exception as error:
        named = plain is None or not isinstance(error, plain)
        with suppress(MemxError):
            run.end("failed", error=f"{type(error).__name__}: {error}" if named else str(error))
        raise


def note_new_run(store: RunStore, name: str, config: BaseModel, report: Report) -> None:
    """Say so if a run that is to be resumed is not there, and which option differs from that of the nearest.

    Args:
        store: The runs.
        name: The run's name.
        config: Its config.
        report: Gets the line.
    """
    if line := new_run_note(store.root, name, config.model_dump(mode="json")):
        report(Note(line))
