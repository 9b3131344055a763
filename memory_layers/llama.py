"""Llama 3 with memory layers, as a transformers model: `MemoryLlamaConfig`, `MemoryLlamaForCausalLM`.

The feed-forward (`mlp`) of the chosen blocks is a memory or a rival of it; everything else is transformers' own
Llama, so `generate`, `save_pretrained`, `from_pretrained`, PEFT and lm-eval work. Registered with the Auto classes.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP

from ..errors import MemxError
from ..transformers_compat import initialise
from .decoder import MemoryLlamaModel
from .llama_config import MemoryLlamaConfig
from .moe import MoeLayer
from .peer import PeerLayer
from .tables.table_layer import TableLayer
from .tables.values import MemoryValues
from .ultramem.layer import UltraMemLayer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class MemoryLlamaForCausalLM(LlamaForCausalLM):
    """A transformers Llama in which some blocks have a memory, PEER or MoE layer.

    The layer is the block's `mlp`, or is added to it. Everything else is `LlamaForCausalLM`, so `generate`,
    `save_pretrained`, `from_pretrained`, PEFT and lm-eval work. `import memx` registers it with the Auto classes.

    Args:
        config: Shape of the model and place of its memory layers.

    Raises:
        MemxError: The config names a block, a kind or an insertion that does not exist, or `memory_slots` is not a
            square.

    Example:
        ```python
        from memx import MemoryLlamaConfig, MemoryLlamaForCausalLM

        config = MemoryLlamaConfig(
            vocab_size=2048, hidden_size=64, intermediate_size=176, num_hidden_layers=4, num_attention_heads=4,
            memory_layers=[1], memory_slots=4096,
        )
        model = MemoryLlamaForCausalLM(config)
        model.save_pretrained("my-model")
        ```
    """

    config_class = MemoryLlamaConfig
    _no_split_modules: ClassVar[list[str]] = ["LlamaDecoderLayer", "EngramDecoderLayer"]

    def __init__(self, config: MemoryLlamaConfig) -> None:
        # LlamaForCausalLM's own, with another decoder
        super(LlamaForCausalLM, self).__init__(config)
        size: Any = config.vocab_size
        self.model = MemoryLlamaModel(config)
        self.vocab_size = size
        self.lm_head = nn.Linear(self.model.embed_tokens.embedding_dim, size, bias=False)
        self.post_init()

    def set_token_classes(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Have n-gram memories treat tokens alike whose text differs in case or form alone; saved with the model.

        Args:
            tokenizer: The tokenizer of the model. Nothing happens without an n-gram memory.
        """
        if self.model.token_classes is not None:
            self.model.token_classes.set(tokenizer)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """Resize the vocabulary, as `LlamaForCausalLM` does. Raises MemxError for a model with an n-gram memory."""
        if self.model.token_classes is not None:
            raise MemxError(
                "the vocabulary of a model with an n-gram memory cannot be resized: its hashes depend on it",
                hint="resize the model before the memory is added",
            )
        return super().resize_token_embeddings(*args, **kwargs)

    def logits_at(self, places: Tensor, tokens: Tensor, **inputs: Any) -> Tensor:
        """Compute logits at some tokens only; the logits of all tokens would be the largest tensor of a training step.

        Args:
            places: Indices [P] into the flattened tokens [B * S].
            tokens: Input ids [B, S].
            **inputs: Other inputs of the decoder, such as `attention_mask`.

        Returns:
            Logits [P, vocabulary].
        """
        hidden = self.model(tokens, use_cache=False, **inputs).last_hidden_state  # [B, S, d]
        return self.lm_head(hidden.flatten(0, 1).index_select(0, places))

    def _init_weights(self, module: nn.Module) -> None:
        # called children first, so a memory layer draws over what its Linear and norms were given
        if isinstance(module, TableLayer | MemoryValues | MoeLayer):
            module.reset_parameters()
        else:
            super()._init_weights(module)


def memory_layers_of(model: nn.Module) -> list[TableLayer]:
    """The layers of a model that look rows of a table up, in order."""
    return [module for module in model.modules() if isinstance(module, TableLayer)]


def tables_of(model: nn.Module) -> list[MemoryValues]:
    """The tables of a model, each once, in order."""
    return [module for module in model.modules() if isinstance(module, MemoryValues)]


def keep_on_host(model: nn.Module) -> list[MemoryValues]:
    """Keep the value tables of a model in host memory, wherever the rest of it moves.

    To be called before the model moves to its device.

    Args:
        model: Any module that holds `MemoryValues`.

    Returns:
        The tables, each once, in order.

    Raises:
        MemxError: The model has no value tables, or has PEER layers or units, which do not read their tables by bags
            alone.
    """
    for module in model.modules():
        if isinstance(module, PeerLayer) or (isinstance(module, UltraMemLayer) and module.down is not None):
            what = "PEER tables" if isinstance(module, PeerLayer) else "tables of units"
            raise MemxError(f"{what} cannot be offloaded to CPU memory", hint="set parallel.host_values=false")
    tables = tables_of(model)
    if not tables:
        raise MemxError("the model has no value table to offload to CPU memory", hint="set parallel.host_values=false")
    for table in tables:
        table.keep_on_host()
    return tables


def ultramem_layers_of(model: nn.Module) -> list[UltraMemLayer]:
    """The UltraMem layers of a model, in order."""
    return [module for module in model.modules() if isinstance(module, UltraMemLayer)]


def moe_layers_of(model: nn.Module) -> list[MoeLayer]:
    """The mixtures of experts of a model, in order."""
    return [module for module in model.modules() if isinstance(module, MoeLayer)]


@torch.no_grad()
def draw_weights(model: MemoryLlamaForCausalLM, seed: int) -> None:
    """Initialise every module from its own stream, named by the seed and the module's path.

    Models that differ in one block then start from the same numbers everywhere else. initializer_range is the spread of
    matrices that read the hidden size; down projections, which read a feed-forward's width, are scaled to that width.
    """
    for name, module in reversed(list(model.named_modules())):  # children before parents
        draw_module(model, name, module, seed)


def draw_module(model: MemoryLlamaForCausalLM, name: str, module: nn.Module, seed: int) -> None:
    """Initialise one module of a model from its own stream; a parent after its children."""
    torch.manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
    initialise(model, module)
    if isinstance(module, LlamaMLP):
        std: Any = model.config.initializer_range
        nn.init.normal_(module.down_proj.weight, std=std * (module.hidden_size / module.intermediate_size) ** 0.5)


@torch.no_grad()
def make_weights(model: MemoryLlamaForCausalLM, seed: int) -> None:
    """Make, on the CPU, and initialise the weights of a model that is on the meta device, as `draw_weights` does.

    Of a sharded table only this process's part takes memory.
    """
    inner: Any = model.model
    inner.rotary_emb = type(inner.rotary_emb)(model.config)  # its frequencies are no weights
    for name, module in reversed(list(model.named_modules())):
        if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
            module.to_empty(device="cpu", recurse=False)
        draw_module(model, name, module, seed)
    model.tie_weights()


def count_parameters(model: nn.Module) -> int:
    """Parameters of a model, each once; of sharded tables and weights those of all ranks."""
    tables = tables_of(model)
    rest = sum(parameter.numel() for parameter in model.parameters()) - sum(t.weight.numel() for t in tables)
    return rest + sum(table.shape[0] * table.shape[1] for table in tables)


@torch.no_grad()
def draw_memory_weights(model: MemoryLlamaForCausalLM, seed: int, dtype: torch.dtype) -> None:
    """Make and initialise the weights of memories and rivals that are on the meta device; all else stays."""
    for module in model.modules():
        if isinstance(module, TableLayer | MemoryValues | MoeLayer) and any(p.is_meta for p in module.parameters()):
            module.to_empty(device="cpu").to(dtype)
    for name, module in reversed(list(model.named_modules())):
        if isinstance(module, TableLayer | MemoryValues | MoeLayer):
            torch.manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
            module.reset_parameters()


AutoConfig.register(MemoryLlamaConfig.model_type, MemoryLlamaConfig, exist_ok=True)
AutoModelForCausalLM.register(MemoryLlamaConfig, MemoryLlamaForCausalLM, exist_ok=True)
