"""A base model that accelerate spreads over the devices of this machine."""

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.base_models import load
from memx.experiments.config.eviction.host import HostConfig
from memx.experiments.config.tree_hash import tree_hash
from memx.experiments.distributed.process_group import World
from memx.experiments.eviction.base_model import prepare_base_model
from memx.transformers_compat import input_device
from pydantic import ValidationError
from transformers import LlamaForCausalLM

from ..evolution.tiny_evolution import write_host

PARTS = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk"}
PLACES = {**PARTS, "model.norm": "disk", "model.rotary_emb": "disk", "lm_head": "cpu"}


@pytest.mark.parametrize("how", ["auto", PLACES])  # on one device "auto" spreads nothing
def test_a_spread_model_gives_the_same_logits(tmp_path, how):
    pytest.importorskip("accelerate")
    host = HostConfig(name=str(write_host(tmp_path)), device="cpu" if isinstance(how, dict) else "auto")
    spread, plain = (
        prepare_base_model(config, tmp_path, lambda event: None)[0]
        for config in (host.model_copy(update={"device_map": how}), host)
    )
    if how == PLACES:
        assert spread.hf_device_map == PLACES and spread.model.norm.weight.device.type == "meta"
        assert input_device(spread) == torch.device("cpu")
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        wanted = plain(ids.to(plain.device)).logits.cpu()
        torch.testing.assert_close(spread(ids.to(input_device(spread))).logits.cpu(), wanted, rtol=1e-4, atol=1e-4)


def test_a_weight_on_a_disk_that_is_not_finite_is_refused(tmp_path):
    pytest.importorskip("accelerate")
    model = LlamaForCausalLM.from_pretrained(write_host(tmp_path))
    model.model.norm.weight.data[3] = torch.nan
    model.save_pretrained(tmp_path)
    host = HostConfig(name=str(tmp_path), device="cpu").model_copy(update={"device_map": PLACES})
    with pytest.raises(MemxError, match=r"model\.norm\.weight has values that are NaN"):
        prepare_base_model(host, tmp_path, lambda event: None)


def test_what_cannot_be_spread_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValidationError, match="device_map chooses the devices itself"):
        HostConfig(name="mine", device="cpu", device_map="auto")
    host = HostConfig(name=str(write_host(tmp_path)), device_map="auto")
    with pytest.raises(MemxError, match="there are several processes"):
        prepare_base_model(host, tmp_path, lambda event: None, World(0, 2))
    monkeypatch.setattr(load, "find_spec", lambda name: None)
    with pytest.raises(MemxError, match="needs the package accelerate"):
        prepare_base_model(host, tmp_path, lambda event: None)


def test_runs_without_it_keep_their_names():
    host = HostConfig(name="mine").model_dump()
    older = {key: value for key, value in host.items() if key != "device_map"}
    assert tree_hash({"host": host}) == tree_hash({"host": older})
    assert tree_hash({"host": {**host, "device_map": "auto"}}) != tree_hash({"host": older})
