"""The names of transformers and torch that are not promised: each is there, and does what memx takes it to do.

A failure says what broke and where it is used. Versions: transformers 5.2 to 5.23, torch 2.11 to 2.13.
"""

import inspect
from importlib import import_module

import pytest
import torch
import transformers
from memx import registration, torch_compat, transformers_compat
from memx.memory_layers.llama import MemoryLlamaConfig, MemoryLlamaForCausalLM
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from transformers import AttentionInterface, DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VERSIONS = f"(transformers {transformers.__version__}, torch {torch.__version__})"


def broken(what: str, where: str) -> str:
    return f"{what} {VERSIONS}: used by {where}"


def llama(**change) -> LlamaForCausalLM:
    settings = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=50)
    return LlamaForCausalLM(LlamaConfig(**settings, **change)).eval()


def test_a_decoder_calls_attention_by_the_private_name_in_its_config_and_hands_arguments_down():
    where = "transformers_compat.attention, namm/cache/attention.py"
    decoder, calls = llama().model, []
    assert transformers_compat.has_attention_interface(decoder), broken("_supports_attention_backend is gone", where)

    def watched(module, query, key, value, mask, **kwargs):
        calls.append((module.layer_idx, kwargs.get("memx_cache")))
        return query.transpose(1, 2), None

    AttentionInterface.register("memx_watched", watched)
    before = decoder.config._attn_implementation
    with transformers_compat.attention(decoder, "memx_watched"):
        decoder(input_ids=torch.tensor([[1, 2]]), memx_cache="mark")
    assert calls == [(0, "mark"), (1, "mark")], broken("attention is no longer found by _attn_implementation", where)
    assert decoder.config._attn_implementation == before


def test_a_forward_pass_that_is_put_on_the_object_comes_before_the_class():
    where = "transformers_compat.wrapped_forward, namm/attachment.py"
    model, calls = llama(), []

    def around(plain, *args, **kwargs):
        calls.append(len(args))
        return plain(*args, **kwargs)

    with transformers_compat.wrapped_forward(model.model, around):
        assert transformers_compat.is_wrapped(model.model)
        model(torch.tensor([[1, 2]]))
    assert len(calls) == 1, broken("a model does not call the forward of its decoder object", where)
    assert "forward" not in vars(model.model) and not transformers_compat.is_wrapped(model.model)


def test_cache_layers_have_the_interface_that_memx_implements():
    where = "transformers_compat.CacheLayer, namm/cache/layer.py"
    abstract = transformers_compat.CacheLayerMixin.__abstractmethods__
    known = {"lazy_initialization", "update", "get_mask_sizes", "get_seq_length", "get_max_length"}
    older = {"get_max_cache_shape"}
    assert abstract <= known | older, broken(f"cache layers need {sorted(abstract - known - older)} too", where)
    assert not {"get_max_length", "get_max_cache_shape"} & transformers_compat.CacheLayer.__abstractmethods__
    assert transformers_compat.query_count(3) == transformers_compat.query_count(torch.arange(3)) == 3


def test_an_empty_cache_becomes_another():
    where = "transformers_compat.become, namm/cache/chunks.py"
    cache, other = DynamicCache(), transformers.Cache(layers=[])
    transformers_compat.become(cache, other)
    assert type(cache) is type(other) and vars(cache) == vars(other), broken("__class__ cannot be set", where)


def test_weights_are_drawn_by_the_hook_that_memx_overrides(monkeypatch):
    where = "memory_layers/llama.py, transformers_compat.initialise"
    assert callable(getattr(LlamaForCausalLM, "_init_weights", None)), broken("_init_weights is gone", where)
    drawn = []
    monkeypatch.setattr(MemoryLlamaForCausalLM, "_init_weights", lambda model, module: drawn.append(type(module)))
    shape = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
    model = MemoryLlamaForCausalLM(MemoryLlamaConfig(**shape))
    assert nn.Linear in drawn, broken("post_init has another hook", where)
    del drawn[:]
    transformers_compat.initialise(model, model.lm_head)
    assert drawn == [nn.Linear]


def test_rotary_frequencies_are_buffers_that_are_reset_to_a_copy():
    where = "transformers_compat.copy_buffers, experiments/models/pretrained.py"
    model, source = llama(), llama(rope_parameters={"rope_type": "default", "rope_theta": 77.0})
    names = [name for name, _ in model.named_buffers()]
    assert any(name.endswith("inv_freq") for name in names), broken("no buffer inv_freq", where)
    transformers_compat.copy_buffers(model, source)
    rotary = model.model.rotary_emb
    assert torch.equal(rotary.inv_freq, source.model.rotary_emb.inv_freq), broken("buffers cannot be set", where)
    assert torch.equal(rotary.original_inv_freq, rotary.inv_freq), broken("original_inv_freq is another", where)
    where, rotary.attention_scaling = "transformers_compat.rotary_frequencies, namm/host_rotary.py", 1.25
    [read] = transformers_compat.rotary_frequencies(model.model)
    assert read()[0] is rotary.inv_freq and read()[1] == 1.25, broken(
        "frequencies or their scaling lie elsewhere", where
    )


def test_a_saved_tokenizer_pads_where_its_arguments_say(tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    where = "transformers_compat.pad_left, experiments/base_models/load.py"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0, "[UNK]": 1}, "[UNK]")))
    transformers_compat.pad_left(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert loaded.padding_side == "left", broken("init_kwargs is not what is saved", where)


@pytest.mark.parametrize("module, name", registration._NEEDED.items())
def test_modules_that_registration_waits_for_are_there(module, name):
    what = f"{module} has no {name}"
    assert hasattr(import_module(module), name), broken(what, "registration.py, so that Auto classes know memx")


def test_flash_attention_of_a_cpu_returns_the_log_sum_exp():
    where = "torch_compat.flash_attention_for_cpu, namm/cache/attention.py"
    assert torch_compat.has_flash_attention_for_cpu(), broken("aten has no flash attention for CPUs", where)
    query, key, value = torch.randn(3, 1, 2, 4, 8)
    bias = torch.randn(1, 1, 4, 4)
    output, lse = torch_compat.flash_attention_for_cpu(query, key, value, causal=False, bias=bias, scale=0.5)
    scores = query @ key.mT * 0.5 + bias
    torch.testing.assert_close(lse, scores.logsumexp(-1), msg=broken("its second output is not the lse", where))
    torch.testing.assert_close(output, scores.softmax(-1) @ value)


def test_normal_numbers_are_drawn_in_blocks_that_a_table_may_be_cut_at():
    where = "torch_compat.DRAW_BLOCK, memory_layers/tables/values.py: sharded tables start from one stream"
    sizes = [torch_compat.DRAW_BLOCK * 3, torch_compat.DRAW_BLOCK, torch_compat.DRAW_BLOCK * 2 + 5]
    torch.manual_seed(0)
    whole = torch.empty(sum(sizes)).normal_()
    torch.manual_seed(0)
    pieces = torch.cat([torch.empty(size).normal_() for size in sizes])
    assert torch.equal(whole, pieces), broken("pieces of whole blocks are another stream", where)


def test_modules_move_by_the_hook_that_tables_in_host_memory_override():
    where = "memory_layers/tables/values.py: such a table stays on the CPU"
    calls = []

    class Watched(nn.Module):
        def _apply(self, fn, recurse=True):
            calls.append(recurse)
            return super()._apply(fn, recurse)

    nn.Sequential(Watched()).to(torch.float64).half()
    assert len(calls) == 2, broken("to() does not go by _apply", where)


def test_a_process_group_gathers_and_an_fsdp_unit_sums(tmp_path):
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        out = torch.empty(3)
        torch_compat.all_gather(out, torch.arange(3.0), None)
        assert out.tolist() == [0, 1, 2], broken(
            "all_gather", "torch_compat.all_gather, memory_layers/tables/exchange.py"
        )
        unit = fully_shard(nn.Linear(2, 2), mesh=distributed.init_device_mesh("cpu", (1,)))
        torch_compat.sum_gradients(unit)  # AttributeError: experiments/distributed/parallel.py
    finally:
        distributed.destroy_process_group()


def test_checkpoints_read_and_write_safetensors():
    where = "torch_compat.checkpoint, experiments/checkpoints/tensor_files.py"
    names = ("HuggingFaceStorageReader", "HuggingFaceStorageWriter", "CheckpointException", "save", "load")
    lacking = [name for name in names if not hasattr(torch_compat.checkpoint(), name)]
    assert not lacking, broken(f"torch.distributed.checkpoint has no {lacking}", where)
    writer = inspect.signature(torch_compat.checkpoint().HuggingFaceStorageWriter)
    assert "save_distributed" in writer.parameters, broken("its writer cannot save what each rank holds", where)


def test_errors_of_a_lost_rank_have_a_type():
    where = "torch_compat.lost_rank_errors, experiments/distributed/rank_errors.py"
    errors = torch_compat.lost_rank_errors()
    assert errors and all(issubclass(kind, RuntimeError) for kind in errors), broken("no types", where)


def test_the_compiler_is_quiet_inside_alone():
    where = "torch_compat.quiet_compiler, experiments/benchmarks/ops/measure.py"
    from torch._functorch import config

    before = config.donated_buffer
    with torch_compat.quiet_compiler():
        assert config.donated_buffer is False, broken("_functorch.config.donated_buffer", where)
    assert config.donated_buffer == before
