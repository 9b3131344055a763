"""One layer of an evicting cache, as transformers sees it: new keys and values in, all that the queries meet out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...errors import MemxError
from ...transformers_compat import CacheLayer, query_count
from ..policies.base import Policy
from ..policies.rotary import UNKNOWN, Rotary
from . import evict, observe
from .head_shards import HeadShards
from .state import LayerState


def _of_state(name: str) -> Any:
    """An attribute of the layer that is one of its `LayerState`, with all tokens in slots."""
    return property(
        lambda layer: getattr(layer.state.padded(), name), lambda layer, value: setattr(layer.state, name, value)
    )


class EvictingLayer(CacheLayer):
    """A cache layer of transformers around a `LayerState`, which holds the tokens.

    Attributes:
        state: The tokens, and what the policy keeps of each.
        begun: Whether a forward pass under the policy is on.
    """

    is_croppable = False
    keys: Any = _of_state("keys")  # of all tokens: a padded copy where heads hold different numbers of them
    values: Any = _of_state("values")

    def __init__(
        self,
        index: int,
        policy: Policy,
        window: int | None,
        protect: Sequence[tuple[int, int]] = (),
        rotary: Rotary = UNKNOWN,
        shards: HeadShards | None = None,
    ) -> None:
        """index: the layer's number; window: how far its queries see back, None for all; protect: spans that stay."""
        self.state = LayerState(index, policy, window, tuple(protect), rotary=rotary, shards=shards)
        super().__init__()
        self.begun = False

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make empty tensors like the first keys and values."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.state.start(key_states, value_states)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Append the new columns [B, H, Q, d]; return all keys and values in slots [B, H, T, d].

        The queries then meet those, and the ragged ones, which the attention function takes from the state.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if not self.begun:
            raise MemxError(
                "this cache was used without its eviction policy", hint="call the model inside `with attach(...)`"
            )
        self.state.append(key_states, value_states)
        return self.state.keys, self.state.values

    def update_policy(self, query: Tensor, lse: Tensor | None, scale: float) -> None:
        """After the new columns have attended: let the policy see them, and evict where a sequence is due.

        Args:
            query: [B, Hq, Q, d].
            lse: The log-sum-exp of their scores [B, Hq, Q], if it is known.
            scale: What the scores were multiplied by.
        """
        state, new = self.state, self.state.new_tokens
        state.scale, state.rotary = scale, state.rotary.current()
        if state.policy.hop or state.policy.context:
            whole = state.padded(values=False) if self._hop_ends() else state
            observe.observe(whole, query, lse)
            state.observed(whole)
        if state.policy.rule.spans_layers and any(new.due):
            return  # all layers are evicted together, after the last
        # padding behind the new tokens goes in any case, as it is no token
        if any(new.due) or new.padded or evict.window_moved(state):
            groups = zip(new.groups, new.due, strict=True)
            evict.compact(state, [evict.keep_mask(state, group, due=due) for group, due in groups])

    def _hop_ends(self) -> bool:
        """Whether the policy observes queries now, and so looks at the keys."""
        hop = self.state.policy.hop
        return hop > 0 and any(seen % hop + new >= hop for seen, new in self.state.new_tokens.pairs())

    def copies(self, policy: Policy, count: int, seen: list[int]) -> EvictingLayer:
        """A layer of so many copies of each sequence, under another policy that reads the same."""
        twin = EvictingLayer(self.state.index, policy, self.state.window)  # whose state is another's copy
        twin.dtype, twin.device, twin.is_initialized = self.dtype, self.device, True
        twin.state = self.state.copies(policy, count, seen)
        return twin

    def evict_now(self) -> None:
        """Let the policy choose from all sequences, at whatever length they are."""
        state = self.state
        waiting = zip(state.new_tokens.groups, state.unobserved(), strict=True)
        masks = [evict.keep_mask(state, group, due=True, unobserved=count) for group, count in waiting]
        evict.compact(state, masks)

    def continue_with(self, policy: Policy) -> None:
        """Go on under a policy that observes the same or nothing, or that begins here to observe every new query."""
        state = self.state
        begun = state.keys is not None
        same = begun and state.notes(policy) == state.notes(state.policy)
        state.policy = policy
        if begun and (not policy.hop or not same):
            assert policy.hop <= 1, "queries that wait for a full hop are not known"
            state.recent = state.lse = state.summary = None
            state.policy_state = state.policy_state.new_zeros(*state.keys.shape[:3], policy.width)
            if state.ragged is not None:
                state.ragged.policy_state = state.policy_state.new_zeros(len(state.ragged.keys), policy.width)

    def get_mask_sizes(self, query_length: int | Tensor) -> tuple[int, int]:
        """Length and offset of a mask over all slots; memx makes its own masks."""
        return self.get_seq_length() + query_count(query_length), 0

    def get_seq_length(self) -> int:
        """Slots in use, which is not how many tokens there have been: the cache knows that."""
        return self.state.width if self.is_initialized else 0

    def reset(self) -> None:
        """Drop all tokens."""
        self.state.clear()
        self.is_initialized = False

    def crop(self, *args, **kwargs) -> None:
        """Refused: what was evicted cannot come back."""
        raise MemxError(
            "assisted (speculative) decoding is not supported with an eviction policy",
            hint="generate without an assistant, or without the policy",
        )
