"""What went wrong when a model was read: an exception of transformers, tokenizers or the hub -> one line of memx's."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...errors import MemxError
from ...hub import gated

_FIELD = re.compile(r"Validation error for field '([^']+)'")
_PLACE = re.compile(r"at line \d+ column \d+")


def cannot_load(source: str, error: Exception, hint: str, part: str) -> MemxError:
    """The user's error behind what transformers raised while it read a part of a model."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    causes = [*_causes(error)]
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return gated(f"model {source}", source)
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return MemxError(
            f"no folder {source}, and no such model on the Hugging Face hub",
            hint="check the spelling; for a private model run: hf auth login",
        )
    if any(isinstance(cause, LocalEntryNotFoundError | HfHubHTTPError | ConnectionError) for cause in causes):
        place = source.rpartition("/")[2]
        return MemxError(
            f"no folder {source}, and the Hugging Face hub cannot be reached",
            hint=f"on a machine with internet, run: hf download {source} --local-dir {place} --exclude 'original/*'; "
            f"then use the folder {place}",
        )
    return MemxError(f"cannot load {source}: {_reason(error, part)}", hint=hint)


def _reason(error: Exception, part: str) -> str:
    """What transformers, or Python where a file has values that it does not expect, says in plain words."""
    text = " ".join(str(error).split())
    if (field := _FIELD.search(text)) is not None:
        return f"{part} has a value of the wrong kind for {field[1]}"
    if isinstance(error, OSError | ValueError | RuntimeError | ImportError) and text:
        return text[:200]
    if type(error) is Exception and text:  # as tokenizers raises, with the line and the column
        place = _PLACE.search(text)
        return f"{part} is damaged {place[0]}" if place else f"{part} is damaged: {text[:150]}"
    return f"{part} is damaged: it has values of the wrong kind"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
