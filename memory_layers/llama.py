"""Llama 3 with memory layers, as a transformers model: `MemoryLlamaConfig`, `MemoryLlamaForCausalLM`.

The feed-forward (`mlp`) of the chosen blocks is a memory or a rival of it; everything else is transformers' own
Llama, so `generate`, `save_pretrained`, `from_pretrained`, PEFT and lm-eval work. Registered with the Auto classes.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP

from ..errors import MemxError
from ..transformers_compat import initialise
from .layer import MemoryLayer, ResidualMemory
from .moe import MoeLayer
from .peer import PeerLayer
from .product_keys import ProductKeys
from .tables.values import MemoryValues


class MemoryLlamaConfig(LlamaConfig):
    """The config of a Llama with memory layers: LlamaConfig, and which blocks have which memory.

    Args:
        memory_layers: Indices of the blocks that have a memory, from 0. Empty: a plain Llama.
        memory_kind: "memory", "peer" or "moe". Memory+ is "memory" with gating and qk-norm.
        memory_slots: Rows N of the value table; must be a square.
        memory_heads: Query heads H of each memory layer.
        memory_top_k: Slots k that each head selects.
        memory_key_width: Width d_k of a key, both halves together. None: hidden_size/2.
        memory_value_width: Width d_v of a row of the table. None: hidden_size.
        memory_qk_norm: Whether to apply RMSNorm to queries and keys.
        memory_gating: Whether the output is W2(y * silu(W1 x)).
        memory_output_gate: Whether to scale the output of each token by sigmoid(w x).
        memory_shared: Whether all memory layers share one value table.
        memory_insertion: "replace": the memory replaces the feed-forward. "beside": both outputs are added.
        memory_experts: MoE only: experts E of each layer.
        memory_experts_per_token: MoE only: experts k for each token.
        memory_expert_width: MoE only: inner width of an expert. None: intermediate_size.
        **kwargs: Arguments of LlamaConfig.
    """

    model_type = "memory_llama"

    def __init__(
        self,
        memory_layers: Sequence[int] = (),
        memory_kind: str = "memory",
        memory_slots: int = 0,
        memory_heads: int = 4,
        memory_top_k: int = 32,
        memory_key_width: int | None = None,
        memory_value_width: int | None = None,
        memory_qk_norm: bool = False,
        memory_gating: bool = False,
        memory_output_gate: bool = False,
        memory_shared: bool = True,
        memory_insertion: str = "replace",
        memory_experts: int = 16,
        memory_experts_per_token: int = 1,
        memory_expert_width: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.memory_layers = list(memory_layers)
        self.memory_kind = memory_kind
        self.memory_slots = memory_slots
        self.memory_heads = memory_heads
        self.memory_top_k = memory_top_k
        self.memory_key_width = memory_key_width
        self.memory_value_width = memory_value_width
        self.memory_qk_norm = memory_qk_norm
        self.memory_gating = memory_gating
        self.memory_output_gate = memory_output_gate
        self.memory_shared = memory_shared
        self.memory_insertion = memory_insertion
        self.memory_experts = memory_experts
        self.memory_experts_per_token = memory_experts_per_token
        self.memory_expert_width = memory_expert_width
        super().__init__(**kwargs)


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

    def __init__(self, config: MemoryLlamaConfig) -> None:
        super().__init__(config)
        place_memory_layers(self, config)
        self.post_init()

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
        if isinstance(module, ProductKeys | MemoryValues | MoeLayer):
            module.reset_parameters()
        else:
            super()._init_weights(module)


def place_memory_layers(model: LlamaForCausalLM, config: MemoryLlamaConfig) -> None:
    """Put a memory in place of, or in parallel to, the feed-forward of each block in config.memory_layers.

    Raises:
        MemxError: A block, a kind or an insertion that does not exist.
    """
    for name, known in (("memory_kind", ("memory", "peer", "moe")), ("memory_insertion", ("replace", "beside"))):
        if (given := getattr(config, name)) not in known:
            raise MemxError(
                f"unknown {name} {given!r}", hint=f"choose from {', '.join(known)} (memory+: memory with gating)"
            )
    table: MemoryValues | None = None
    for index in sorted(set(config.memory_layers)):
        if not 0 <= index < config.num_hidden_layers:
            raise MemxError(
                f"memory layer {index} is outside the model's {config.num_hidden_layers} blocks",
                hint=f"choose from 0..{config.num_hidden_layers - 1}",
            )
        block: Any = model.model.layers[index]
        layer = _make_layer(config, table if config.memory_shared else None)
        if isinstance(layer, MemoryLayer):
            table = layer.values
        block.mlp = ResidualMemory(block.mlp, layer) if config.memory_insertion == "beside" else layer


def _make_layer(config: MemoryLlamaConfig, table: MemoryValues | None) -> nn.Module:
    width: Any = config.hidden_size
    if config.memory_kind == "moe":
        inner: Any = config.memory_expert_width or config.intermediate_size
        std: Any = config.initializer_range
        return MoeLayer(width, config.memory_experts, inner, top_k=config.memory_experts_per_token, std=std)
    lookup: dict[str, Any] = dict(
        heads=config.memory_heads,
        top_k=config.memory_top_k,
        key_width=config.memory_key_width,
        qk_norm=config.memory_qk_norm,
    )
    if config.memory_kind == "peer":
        return PeerLayer(width, config.memory_slots, **lookup)
    return MemoryLayer(
        width,
        config.memory_slots,
        **lookup,
        value_width=config.memory_value_width,
        gating=config.memory_gating,
        output_gate=config.memory_output_gate,
        silent=config.memory_insertion == "beside",
        values=table,
    )


def memory_layers_of(model: nn.Module) -> list[ProductKeys]:
    """The memory and PEER layers of a model, in order."""
    return [module for module in model.modules() if isinstance(module, ProductKeys)]


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
        MemxError: The model has no value tables, or has PEER layers, which do not read their tables by bags alone.
    """
    if any(isinstance(module, PeerLayer) for module in model.modules()):
        raise MemxError("PEER tables cannot be offloaded to CPU memory", hint="set parallel.host_values=false")
    tables = tables_of(model)
    if not tables:
        raise MemxError("the model has no value table to offload to CPU memory", hint="set parallel.host_values=false")
    for table in tables:
        table.keep_on_host()
    return tables


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
        if isinstance(module, ProductKeys | MemoryValues | MoeLayer) and any(p.is_meta for p in module.parameters()):
            module.to_empty(device="cpu").to(dtype)
    for name, module in reversed(list(model.named_modules())):
        if isinstance(module, ProductKeys | MemoryValues | MoeLayer):
            torch.manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
            module.reset_parameters()


AutoConfig.register(MemoryLlamaConfig.model_type, MemoryLlamaConfig, exist_ok=True)
AutoModelForCausalLM.register(MemoryLlamaConfig, MemoryLlamaForCausalLM, exist_ok=True)
