"""kvpress's presses on one prompt, at the sizes that memx's policies were given: an answer from what each keeps.

A press chooses once, when the whole context has been read; what it keeps of a layer does not change what the next layer
reads. So one reading serves all presses at all sizes, and one more those that need the attention's probabilities,
which only eager attention writes. Presses see the context to its last token; memx's policies, which are noted by hops
of 16 queries, leave the newest tokens, fewer than 16, in the cache unseen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from ...errors import MemxError
from ...namm.attachment import find_decoder, layer_windows
from ...transformers_compat import attention_of, input_device
from ..config.eviction.policy_eval import EAGER
from .answers import Prompt
from .measurements import CacheSize, CacheUse, Measurements, measure_answers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def check_peers() -> None:
    """Raise MemxError if kvpress is not installed, or does not run with the transformers that is."""
    hint = "install it in a separate environment: pip install -c constraints-peers.txt -e '.[peers]'"
    if find_spec("kvpress") is None:
        raise MemxError("--third-party needs kvpress, which is not installed", hint=hint)
    try:
        import_module("kvpress")
    except (ImportError, AttributeError) as error:
        raise MemxError(f"kvpress does not work with the installed transformers: {error}", hint=hint) from None


def make_press(name: str, share: float) -> Any:
    """A press of kvpress by its name, that keeps this share of a context."""
    return getattr(import_module("kvpress"), name)(compression_ratio=1 - share)


def check_host(model: PreTrainedModel) -> None:
    """Raise MemxError for a host with layers that see a window alone: presses do not know of windows."""
    if any(window is not None for window in layer_windows(find_decoder(model))):
        raise MemxError(
            f"{type(model).__name__} has sliding-window attention, which kvpress does not support",
            hint="remove --third-party, or use a model without sliding windows, such as smollm2",
        )


@torch.no_grad()
def measure_presses(
    model: PreTrainedModel,
    prompt: Prompt,
    presses: Sequence[str],
    sizes: Sequence[tuple[float, CacheSize]],
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> list[Measurements]:
    """Measure each press on one prompt at each size.

    Args:
        model: The base model, without windows.
        prompt: The prompt.
        presses: The names of kvpress's classes.
        sizes: The share of the context that is kept, and the size as the tables name it.
        tokenizer: Writes greedy answers too, to prompts that have a score.

    Returns:
        The measurements by size, then by press.
    """
    pairs = _read(model, prompt.context, presses, [share for share, _ in sizes])
    measured = []
    for number, (_, at) in enumerate(sizes):
        cache = _together([pairs[name, number] for name in presses])
        uses = [(f"kvpress {name}", _use(pairs[name, number], prompt)) for name in presses]
        measured += measure_answers(model, prompt, cache, uses, at, tokenizer)
    return measured


Pairs = list[tuple[Tensor, Tensor]]  # keys and values [1, H, T, d] of each layer


def _read(
    model: PreTrainedModel, context: Tensor, presses: Sequence[str], shares: Sequence[float]
) -> dict[tuple[str, int], Pairs]:
    """What each press keeps of a context [N], by its name and the number of the share."""
    pairs = {}
    for eager in (False, True):
        chosen = {
            (name, number): make_press(name, share)
            for name in presses
            if (name in EAGER) == eager
            for number, share in enumerate(shares)
        }
        if chosen:
            kept: dict[tuple[str, int], Pairs] = {key: [] for key in chosen}
            with eager_attention(model) if eager else nullcontext(), _all_of(chosen, kept)(model):
                model.base_model(input_ids=context[None].to(input_device(model)), past_key_values=DynamicCache())
            pairs |= kept
    return pairs


def _all_of(presses: Mapping[tuple[str, int], Any], kept: Mapping[tuple[str, int], Pairs]) -> Any:
    """A press that shows each layer to many, collects what each would keep, and keeps everything itself."""

    class Together(import_module("kvpress").BasePress):
        def post_init_from_model(self, model: nn.Module) -> None:
            for press in presses.values():
                press.post_init_from_model(model)

        def compress(self, module: nn.Module, *args: Any) -> tuple[Tensor, Tensor]:
            for key, press in presses.items():
                kept[key].append(press.compress(module, *args))
            keys, values = args[1:3]
            return keys, values

    return Together()


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Inside, attention writes its probabilities, which fused attention never does and some presses read."""
    implementation = attention_of(model)
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(implementation)


def _together(pairs: Sequence[Pairs]) -> DynamicCache:
    """A cache of one sequence a press; at the same size all keep as many tokens of every head."""
    cache = DynamicCache()
    for layer, of_presses in enumerate(zip(*pairs, strict=True)):
        keys, values = (torch.cat([pair[part] for pair in of_presses]) for part in (0, 1))
        cache.update(keys, values, layer)
    return cache


def _use(pairs: Pairs, prompt: Prompt) -> CacheUse:
    """What a press keeps; it stores nothing with the keys and values."""
    shares = [keys.shape[2] / len(prompt.context) for keys, _ in pairs]
    share = sum(shares) / len(shares)
    size = sum(keys.nbytes + values.nbytes for keys, values in pairs)
    return CacheUse(share, share, [round(share, 5) for share in shares], size, 0)
