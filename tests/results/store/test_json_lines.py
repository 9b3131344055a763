"""A file of JSON lines: appended to, cut off by a kill, taken up again."""

from __future__ import annotations

import pytest
from memx.errors import MemxError
from memx.results.store.json_lines import JsonLines


def test_a_line_that_a_kill_cut_off_is_left_out_and_removed_before_appending(tmp_path):
    file = JsonLines(tmp_path / "lines.jsonl")
    assert file.lines() == file.rewind() == [] and not file.path.exists()
    file.append({"step": 1, "who": "Zoë"})
    file.append({"step": 2})
    with file.path.open("a") as cut:
        cut.write('{"step": 3, "lo')
    assert [line["step"] for line in file.lines()] == [1, 2]
    assert file.rewind() == file.lines()
    file.append({"step": 3})
    assert file.lines() == [{"step": 1, "who": "Zoë"}, {"step": 2}, {"step": 3}]
    file.write([{"step": 1}])
    assert file.path.read_text() == '{"step": 1}\n'


def test_a_folder_that_is_not_there_is_the_users_mistake(tmp_path):
    with pytest.raises(MemxError, match="cannot write"):
        JsonLines(tmp_path / "missing" / "lines.jsonl").append({})
