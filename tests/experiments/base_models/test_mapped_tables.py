"""Models whose tables are read from their memory-mapped file, against the same models read into memory."""

import pytest
import torch
from memx import load_model
from memx.errors import MemxError
from memx.memory_layers.llama import tables_of

from tests.experiments.base_models.llama3 import write_llama3
from tests.experiments.training.test_engram import ENGRAM, MIXED
from tests.experiments.training.test_ranks import folder, train

MEMORY = {"memory.kind": "memory+", "memory.layers": [0, 1]}
TOKENS = torch.tensor([[3, 5, 7, 11, 13, 2], [2, 4, 6, 8, 10, 3]])


@pytest.mark.parametrize("changes", [ENGRAM, MIXED, MEMORY], ids=["engram", "mixed", "memory+"])
def test_a_mapped_model_is_the_loaded_one_to_the_bit(changes, tmp_path):
    train(tmp_path, {**changes, "training.steps": 2, "evaluation.final_questions": 1})
    place = str(folder(tmp_path, {**changes, "training.steps": 2, "evaluation.final_questions": 1}))
    plain, _ = load_model(place)
    mapped, tokenizer = load_model(place, map_tables=True)
    assert mapped.config.to_dict() == plain.config.to_dict() and tokenizer.pad_token_id is not None
    with torch.no_grad():
        assert torch.equal(mapped(TOKENS).logits, plain(TOKENS).logits)
    settings = dict(max_new_tokens=4, do_sample=False, attention_mask=torch.ones_like(TOKENS))
    assert torch.equal(mapped.generate(TOKENS, **settings), plain.generate(TOKENS, **settings))
    mapped.to(torch.bfloat16)
    assert all(table.weight.dtype == torch.bfloat16 for table in tables_of(mapped))


def test_a_model_without_tables_is_refused_in_one_line(tmp_path):
    with pytest.raises(MemxError, match="has no value tables to map"):
        load_model(str(write_llama3(tmp_path / "llama")), map_tables=True)
