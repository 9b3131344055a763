"""Hosts that read vectors and have no table of embeddings: tried, attached, and exact under a policy that keeps all."""

import pytest
import torch
from memx import namm
from memx.errors import MemxError
from transformers import LlamaConfig, LlamaModel, PreTrainedModel


class Reader(PreTrainedModel):
    """A decoder behind a linear layer; `bent` makes it ignore what the policy's cache holds."""

    config_class = LlamaConfig

    def __init__(self, config, *, bent=False):
        super().__init__(config)
        self.decoder, self.bent = LlamaModel(config), bent
        self.decoder.embed_tokens = None

    def get_decoder(self):
        return self.decoder

    def get_input_embeddings(self):
        return None

    def forward(self, inputs_embeds, **kwargs):
        output = self.decoder(inputs_embeds=inputs_embeds, **kwargs)
        if self.bent and kwargs.get("use_cache"):
            output.last_hidden_state = output.last_hidden_state.flip(-1)
        return output


@pytest.fixture
def make():
    def made(**changes):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=1, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=128, pad_token_id=None,
        )  # fmt: skip
        return Reader(config, **changes).double().eval()

    return made


def test_a_policy_that_keeps_all_is_the_plain_model(make):
    model, vectors = make(), torch.randn(2, 50, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = model(vectors).last_hidden_state
        with namm.attach(model, namm.make_policy("h2o", budget=1, every=16)) as attached:
            kept = model(vectors).last_hidden_state
    assert torch.allclose(plain, kept, atol=1e-12) and attached.cache.seen == [50, 50]


def test_unrotated_keys_are_found_for_policies_that_read_them(make):
    model, vectors = make(), torch.randn(1, 70, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), namm.attach(model, namm.load("universal")) as attached:
        model(vectors)
    assert all(layer.state.rotary.known for layer in attached.cache.layers)


def test_a_model_that_differs_under_a_policy_is_refused(make):
    with pytest.raises(MemxError, match="is not supported"), namm.attach(make(bent=True), namm.make_policy("full")):
        pass
