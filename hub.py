"""The Hugging Face hub: quiet while it loads, and what a user does about a gated repository."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.client import InvalidURL
from importlib import import_module
from ssl import SSLError
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from .errors import MemxError, shown

_PATIENCE = 5.0  # seconds that an answer of the hub may take


def gated(what: str, page: str) -> MemxError:
    """The error for a repository whose terms are not accepted yet.

    Args:
        what: The repository in words, such as `data set owner/name`.
        page: Where its page is on the hub.
    """
    hint = f"accept its terms at https://huggingface.co/{page}, then run: hf auth login"
    return MemxError(f"the {what} is gated: its terms must be accepted first", hint=hint)


def fetch_error(error: Exception, what: str, name: str, revision: str | None = None) -> MemxError:
    """The user's error for a repository that huggingface_hub could not fetch.

    Args:
        error: What it raised.
        what: The repository's content in a word, such as `NAMM`.
        name: The repository, as `user/repo`.
        revision: The branch, tag or commit that was asked for.
    """
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return gated(f"{what} {name}", name)
    if isinstance(error, errors.RepositoryNotFoundError):
        return MemxError(
            f"no folder {name}, and no such {what} on the Hugging Face hub",
            hint="check the spelling; for a private one run: hf auth login",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        hint = "give a branch, tag or commit of it"
        return MemxError(f"{name} on the Hugging Face hub has no revision {shown(revision)}", hint=hint)
    if isinstance(error, errors.HFValidationError):
        return MemxError(f"no folder {name}, and no hub repository can have that name", hint="check the spelling")
    place = name.rpartition("/")[2]
    return MemxError(
        f"no folder {name}, and the Hugging Face hub cannot be reached",
        hint=f"on a machine with internet, run: hf download {name} --local-dir {place}; then use the folder {place}",
    )


@contextmanager
def quick_hub() -> Iterator[None]:
    """Mute the hub inside and, where it cannot be reached, only look into the local cache: no minute of retries."""
    constants: Any = import_module("huggingface_hub.constants")
    with mute_hub():
        if constants.HF_HUB_OFFLINE or _reachable(constants.ENDPOINT):
            yield
            return
        datasets: Any = sys.modules.get("datasets.config")
        was = datasets and datasets.HF_HUB_OFFLINE
        constants.HF_HUB_OFFLINE = True
        if datasets:
            datasets.HF_HUB_OFFLINE = True
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = False
            if datasets:
                datasets.HF_HUB_OFFLINE = was


@cache
def _reachable(endpoint: str) -> bool:
    """Whether the hub answers within seconds; asked once in a process. Raises MemxError for what is no address."""
    try:
        urlopen(Request(endpoint, method="HEAD"), timeout=_PATIENCE).close()
    except HTTPError:
        return True  # it answers, if with a refusal
    except (ValueError, InvalidURL):
        hint = "set it to one that begins with https://, or unset it"
        raise MemxError(f"HF_ENDPOINT is not a web address: {shown(endpoint)}", hint=hint) from None
    except OSError as error:
        # another library may know the certificate
        return isinstance(getattr(error, "reason", None), SSLError)
    return True


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
