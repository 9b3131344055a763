"""Tables of head shares in files, and measured on a model with KVzip's scores of prompts' contexts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import MemxError
from ...files import write_atomically
from ...json_text import BadJson, parse_json
from ...namm.head_shares import shares_of_scores
from ...namm.policies.shares import HeadShares
from ...namm.support import find_decoder, layer_windows
from .kvzip import kvzip_scores

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

HEAD_SHARES = "head_shares.json"  # in the folder of the run that measured it


def read_shares(path: Path) -> HeadShares:
    """Read a table of head shares.

    Args:
        path: The file.

    Returns:
        The table.

    Raises:
        MemxError: The file cannot be read, or is no table of head shares.
    """
    try:
        return HeadShares.from_tree(parse_json(path.read_bytes()))
    except OSError as error:
        raise MemxError(f"cannot read {path}: {error.strerror or error}", hint="give the path of a JSON file") from None
    except BadJson as error:
        raise MemxError(f"{path}: {error.reason}", hint=f"give a file that memx wrote, {HEAD_SHARES}") from None


def write_shares(path: Path, shares: HeadShares) -> None:
    """Write a table of head shares; `read_shares` reads it. Raises MemxError where the disk is full or forbids it."""
    write_atomically(path, json.dumps(shares.tree()) + "\n")


def kvzip_shares(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    contexts: Sequence[Tensor],
    budgets: Sequence[float],
    progress: Callable[[int], None] = lambda done: None,
) -> HeadShares:
    """Measure the mean share of each head under one threshold of KVzip's scores.

    Args:
        model: The base model.
        tokenizer: Its tokenizer.
        contexts: Token ids of contexts [N], of prompts that nothing is evaluated on.
        budgets: Shares of the whole cache, ascending.
        progress: Gets the number of contexts that are done, after each.

    Returns:
        The table.
    """

    def scores():
        for number, context in enumerate(contexts, start=1):
            yield kvzip_scores(model, tokenizer, context)
            progress(number)

    # a query sees itself besides
    reach = [None if window is None else window - 1 for window in layer_windows(find_decoder(model))]
    return shares_of_scores(scores(), budgets, source="KVzip", reach=reach)
