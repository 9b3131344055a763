"""A decoder's forward pass, cut where a policy runs: columns of input -> hidden states of the same columns.

B sequences, N columns of input, of which padding holds no tokens, wherever it stands. Each sequence's tokens are moved
to the left, so that all reach their first run together; the hidden states are moved back. What belongs to image and
video tokens alone is cut along (`visual.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from ...errors import MemxError
from ...transformers_compat import become, rotary_length
from .attention import CACHE, COLUMNS
from .cache import EvictingCache
from .visual import VisualRows, check_axes

_BY_COLUMN = ("input_ids", "inputs_embeds", "token_type_ids")
_COUNTS_TOKENS = ("opt",)  # hosts whose positions leave padding out even if they are not told
_REFUSED = ("encoder_hidden_states", "head_mask", "cu_seq_lens_q", "output_router_logits")


def chunked_forward(
    plain: Callable, empty: EvictingCache, model_type: str, rotary: Sequence[nn.Module], *args: Any, **kwargs: Any
) -> tuple[Any, EvictingCache]:
    """Run a decoder's forward pass piece by piece, so that the policy runs between the pieces.

    Args:
        plain: The decoder's own forward pass.
        empty: A cache for this decoder under the policy, of which new ones are made; it stays empty.
        model_type: The decoder's, from its config.
        rotary: Its rotary embeddings whose factors depend on the length of a sequence. Each piece gets those of the
            whole.
        *args: Those of the forward pass: the input ids at most.
        **kwargs: As well; `past_key_values` is the cache to go on with.

    Returns:
        What `plain` would return in one piece, and the cache.

    Raises:
        MemxError: Arguments that a policy cannot follow, such as masks other than one of padding.
    """
    if args:
        kwargs = {"input_ids": args[0], **kwargs}
        if len(args) > 1:
            raise MemxError(
                "a model with a policy attached takes only input_ids as a positional argument",
                hint="pass the other arguments by name",
            )
    for name in _REFUSED:
        if kwargs.get(name) not in (None, False):
            raise MemxError(
                f"{name} is not supported with an eviction policy", hint=f"remove {name}, or detach the policy"
            )
    kwargs.pop("cache_position", None)  # the cache knows
    kwargs.pop("use_cache", None)  # a pass without a cache never comes here
    as_dict = kwargs.pop("return_dict", None)
    cache = _cache(empty, kwargs.pop("past_key_values", None))
    inputs = {name: kwargs.pop(name) for name in _BY_COLUMN if kwargs.get(name) is not None}
    first = next(iter(inputs.values()))
    if first.shape[1] == 0:
        raise MemxError("the input is empty", hint="pass at least one token")
    there = _tokens(cache, kwargs.pop("attention_mask", None), first)
    positions = kwargs.pop("position_ids", None)
    if positions is None and model_type in _COUNTS_TOKENS:
        positions = torch.tensor(cache.seen or [0] * len(there), device=there.device)[:, None] + there.cumsum(1) - 1
    positions = _positions(cache, positions, there)
    columns = Columns(there)
    inputs = {name: columns.pack(tensor) for name, tensor in inputs.items()}
    inputs["position_ids"] = columns.pack(positions)
    visual = VisualRows.taken(kwargs, columns.pack, columns.packed)
    outputs, start = [], 0
    cache.columns = there if cache.columns is None else torch.cat([cache.columns, there], 1)
    length = max(cache.length, int(positions.max()) + 1) if rotary else 0
    # A policy evicts between attention of one piece and the next: the pieces end where some sequence is due. Other
    # sequences of a ragged batch wait for their own multiple, and evict in a later piece.
    with rotary_length(rotary, length):
        while start < columns.width:
            stop = start + _next(cache, columns, start)
            cache.begin(columns.packed[:, start:stop])
            piece = {name: tensor[:, start:stop] for name, tensor in inputs.items()}
            if positions.dim() == 3:  # axes first again
                piece["position_ids"] = piece["position_ids"].movedim(2, 0)
            if visual is not None:
                piece |= visual.piece(start, stop)
            own = {CACHE: cache} if columns.all else {CACHE: cache, COLUMNS: columns.packed[:, start:stop]}
            outputs.append(plain(**piece, past_key_values=cache, use_cache=True, return_dict=True, **kwargs, **own))
            cache.finish()
            start = stop
    return _join(outputs, columns, cache, as_tuple=as_dict is False), cache


class Columns:
    """Which columns of an input are tokens, [B, N] bool, and how they are packed to the left and spread out again."""

    def __init__(self, there: Tensor) -> None:
        self.all = bool(there.all())
        counts = there.sum(1)
        self.counts: list[int] = counts.tolist()
        self.width = max(self.counts)
        if self.all:
            self.packed = there
            return
        self.packed = torch.arange(self.width, device=there.device) < counts[:, None]
        # tokens before padding, each in their order; and for each column its place among the packed
        self._order = (~there).to(torch.uint8).sort(dim=1, stable=True).indices[:, : self.width]
        self._place = (there.cumsum(1) - 1).clamp_min(0)
        self._there = there

    def pack(self, tensor: Tensor) -> Tensor:
        """[B or 1, N, ...] -> [B, width, ...]: the tokens of each row, then whatever."""
        if self.all:
            return tensor
        tensor = tensor.expand(len(self.counts), *tensor.shape[1:])
        return tensor.gather(1, _like(self._order, tensor))

    def spread(self, packed: Tensor) -> Tensor:
        """[B, width, ...] -> [B, N, ...]: zeros where there is no token."""
        if self.all:
            return packed
        # what a layer gives may lie elsewhere than the input
        place, there = self._place.to(packed.device), self._there.to(packed)
        out = packed.gather(1, _like(place, packed))
        return out * there.view(*there.shape, *[1] * (packed.dim() - 2))


def _like(index: Tensor, tensor: Tensor) -> Tensor:
    return index.view(*index.shape, *[1] * (tensor.dim() - 2)).expand(*index.shape, *tensor.shape[2:])


def _cache(empty: EvictingCache, given: Any) -> EvictingCache:
    """The cache to go on with: the given one, or a new one.

    An empty DynamicCache, which `generate` and users make, becomes an evicting one itself: whoever holds it finds in it
    what survives.
    """
    if isinstance(given, EvictingCache):
        if given.policy is not empty.policy or given.protect != empty.protect:
            raise MemxError(
                "this cache was created for another policy or other protected spans",
                hint="use the same policy and spans for the whole sequence, or start a new cache",
            )
        if any(layer.begun for layer in given.layers):
            raise MemxError("this cache is unusable: a forward pass was interrupted", hint="start a new cache")
        return given
    if given is None:
        return empty.new()
    offloaded = bool(getattr(given, "offloading", False))
    if type(given) is not DynamicCache or given.get_seq_length() > 0 or offloaded:
        if given.get_seq_length() > 0:
            problem = "this cache was filled without the policy"
        else:
            kind = "an offloaded cache" if offloaded else f"a {type(given).__name__}"
            problem = f"{kind} is not supported with an eviction policy"
        hint = "pass no cache or an empty DynamicCache, and no cache_implementation, inside `with attach(...)`"
        raise MemxError(problem, hint=hint)
    become(given, empty.new())
    return given  # pyright: ignore[reportReturnType]


def _tokens(cache: EvictingCache, mask: Any, first: Tensor) -> Tensor:
    """Which of the new columns are tokens: [B, N], bool."""
    batch, new = first.shape[:2]
    if cache.seen and len(cache.seen) != batch:
        raise MemxError(
            f"the cache has {len(cache.seen)} sequences, the input has {batch}",
            hint="use a separate cache for each batch",
        )
    if mask is None:
        return torch.ones(batch, new, dtype=torch.bool, device=first.device)
    past = cache.get_seq_length()
    if not isinstance(mask, Tensor) or mask.dim() != 2 or mask.shape[1] not in (new, past + new):
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise MemxError(
            f"attention mask {shape} is not a padding mask",
            hint=f"pass a mask of shape [{batch}, {past + new}] with ones and zeros, or none",
        )
    mask = mask.to(first.device, torch.bool)
    if cache.columns is not None and mask.shape[1] > new and not torch.equal(mask[:, :past], cache.columns):
        raise MemxError("the attention mask changed for cached tokens", hint="extend the previous mask")
    there = mask[:, mask.shape[1] - new :]
    if not there.any():
        raise MemxError("the input contains only padding", hint="pass at least one token")
    return there


def _positions(cache: EvictingCache, given: Tensor | None, there: Tensor) -> Tensor:
    """The rotary or learned position of each new column: [B or 1, N]; by default the column's number.

    Positions along several axes (time, height, width of an image; the text's own may come before) are [B, N, axes].
    """
    if given is None:
        start = cache.get_seq_length()
        return torch.arange(start, start + there.shape[1], device=there.device)[None]
    if given.dim() == 3:
        return check_axes(given, there)
    if given.dim() != 2:
        raise MemxError(
            f"position_ids have {given.dim()} dimensions, which no supported model has",
            hint="pass position_ids of shape [batch, tokens]",
        )
    both = there[:, 1:] & there[:, :-1]
    if ((given.diff(dim=1) != 1).expand_as(both) & both).any():
        raise MemxError(
            "position_ids are not consecutive: packed sequences are not supported", hint="unpack the sequences"
        )
    return given


def _next(cache: EvictingCache, columns: Columns, start: int) -> int:
    """How many packed columns until the next run of any sequence, or the end."""
    every, left = cache.policy.every, columns.width - start
    if every is None:
        return left
    seen = cache.seen or [0] * len(columns.counts)
    return min([left, *(every - s % every for s, count in zip(seen, columns.counts, strict=True) if count > start)])


def _join(outputs: list, columns: Columns, cache: EvictingCache, *, as_tuple: bool) -> Any:
    """One output of all pieces, its hidden states by column again."""
    joined, last = outputs[-1], outputs
    for name in ("last_hidden_state", "hidden_states"):
        parts = [output.get(name) for output in last]
        if parts[0] is None:
            continue
        if isinstance(parts[0], Tensor):
            joined[name] = columns.spread(torch.cat(parts, 1))
        else:
            joined[name] = tuple(columns.spread(torch.cat(layer, 1)) for layer in zip(*parts, strict=True))
    joined["past_key_values"] = cache
    return joined.to_tuple() if as_tuple else joined
