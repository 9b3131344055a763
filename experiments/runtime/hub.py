"""The Hugging Face hub: quiet while it loads, and what a user does about a gated repository."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import MemxError


def gated(what: str, page: str) -> MemxError:
    """The error for a repository whose terms are not accepted yet.

    Args:
        what: The repository in words, such as `data set owner/name`.
        page: Where its page is on the hub.
    """
    hint = f"accept its terms at https://huggingface.co/{page}, then run: hf auth login"
    return MemxError(f"the {what} is gated: its terms must be accepted first", hint=hint)


@contextmanager
def mute_hub() -> Iterator[None]:
    """Mute the progress bars and messages of transformers and its hub inside; their settings stay as they were."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    levels = logging.get_verbosity(), hub.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    hub.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(levels[0])
        hub.set_verbosity(levels[1])
        if bars:
            logging.enable_progress_bar()
