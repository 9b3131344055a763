"""A base model with weights in 8 bits: what it writes under an evicting cache, and what is refused."""

import pytest
import torch
from memx import namm
from memx.errors import MemxError
from memx.experiments.base_models import eight_bits
from memx.experiments.config.eviction.host import HostConfig
from memx.experiments.config.tree_hash import tree_hash
from memx.experiments.eviction.base_model import prepare_base_model
from pydantic import ValidationError

from ..evolution.tiny_evolution import write_host


def loaded(folder, **changes):
    config = HostConfig(name=str(folder), device="cpu", **changes)
    return prepare_base_model(config, folder, lambda event: None)[0]


@pytest.mark.filterwarnings("ignore")  # its imports warn
@torch.no_grad()
def test_weights_are_in_8_bits_and_the_cache_evicts(tmp_path):
    pytest.importorskip("torchao")
    folder = write_host(tmp_path)
    small, plain = loaded(folder, weights="int8"), loaded(folder)
    ids = torch.arange(3, 60)[None]
    wanted, found = plain(ids).logits, small(ids).logits
    assert type(small.model.layers[0].mlp.up_proj.weight) is not type(plain.model.layers[0].mlp.up_proj.weight)
    assert 0 < (found - wanted).abs().max() < 0.1 * wanted.abs().max()  # a scale a row leaves 1 part in 255
    usual = small.generate(ids, max_new_tokens=8, do_sample=False)
    with namm.attach(small, namm.make_policy("knorm", budget=1.0, every=16)):
        assert torch.equal(small.generate(ids, max_new_tokens=8, do_sample=False), usual)
    with namm.attach(small, namm.make_policy("knorm", budget=16, every=16)) as attached:
        small(ids)
        assert [layer.state.counts for layer in attached.cache.layers] == [[[25, 25]]] * len(attached.cache.layers)


def test_a_missing_package_is_named_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(eight_bits, "find_spec", lambda name: None)
    with pytest.raises(MemxError, match="needs the package torchao") as caught:
        loaded(tmp_path / "absent", weights="int8")
    assert caught.value.hint == "pip install torchao"


def test_names_of_older_runs_stay_and_two_ways_exclude_each_other():
    host = HostConfig(name="smollm2")
    assert tree_hash({"host": host.model_dump()}) == tree_hash({"host": {**host.model_dump(exclude={"weights"})}})
    with pytest.raises(ValidationError, match="exclude each other"):
        HostConfig(name="smollm2", weights="int8", device_map="auto")
