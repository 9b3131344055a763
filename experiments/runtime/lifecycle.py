"""How the work in a claimed run folder ends, written into its run.json. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...errors import MemxError
from ...results.store.runs import Run
from .signals import Interrupted


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
        run.end("interrupted")
        raise
    except MemxError as error:
        if keeps():
            run.end("failed", error=error.message)
        else:
            run.discard()
        raise
    except Exception as error:
        named = plain is None or not isinstance(error, plain)
        run.end("failed", error=f"{type(error).__name__}: {error}" if named else str(error))
        raise
