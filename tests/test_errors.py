"""Plain words for what libraries raise."""

import struct

import pytest
from memx.errors import MemxError, tensor_file_reason
from memx.experiments.base_models.folder_checks import check_weight_files


@pytest.mark.parametrize(
    "header",
    [b"{", b"[]", b'{"a": 1}', b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}', b"\xff{}"],
)
def test_a_damaged_header_is_told_without_the_words_of_the_library(tmp_path, header):
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(MemxError, match="the header that lists its tensors is damaged") as caught:
        check_weight_files(str(tmp_path))
    assert "tuple" not in caught.value.message and "JSON" not in caught.value.message


def test_what_safetensors_says_of_anything_but_a_header_is_kept_in_one_line():
    assert tensor_file_reason(OSError("no such\n device")) == "no such device"
    assert len(tensor_file_reason(ValueError("long " * 100))) == 200
