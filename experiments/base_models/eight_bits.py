"""8-bit weights of a base model, by torchao: the numbers of each linear layer in int8, with a scale for each row."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ...errors import MemxError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_eight_bits() -> None:
    """Raise MemxError if torchao is not installed."""
    if find_spec("torchao") is None:
        raise MemxError("host.weights int8 needs the package torchao", hint="pip install torchao")


def to_eight_bits(model: PreTrainedModel) -> None:
    """Store the weights of a model's linear layers in 8 bits; activations, keys and values stay as they are.

    Args:
        model: The model, on its device. It is changed.

    Raises:
        MemxError: torchao is not installed, or cannot do it.
    """
    check_eight_bits()
    try:
        quantization: Any = import_module("torchao.quantization")
        quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    except (ImportError, AttributeError, RuntimeError, NotImplementedError) as error:
        said = " ".join(str(error).split())[:160]
        raise MemxError(f"torchao cannot store the weights in 8 bits: {said}", hint="pip install -U torchao") from None
