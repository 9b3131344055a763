"""The CPU threads of a run: those of its config, else those that it began with, else the usual ones."""

import pytest
import torch
from memx.experiments.runtime.threads import restored_threads, run_threads


@pytest.mark.parametrize(
    ("asked", "recorded", "threads", "said"),
    [
        (None, None, 4, ""),
        (None, 4, 4, ""),
        (None, 2, 2, "computing with 2 CPU threads, as when the run began"),
        (3, 2, 3, ""),
        (None, 0, 4, "no valid number of threads; computing with 4"),
        (None, "8", 4, "no valid number of threads"),
        (None, True, 4, "no valid number of threads"),
    ],
)
def test_a_run_keeps_its_threads(monkeypatch, asked, recorded, threads, said):
    monkeypatch.delenv("OMP_THREAD_LIMIT", raising=False)
    notes = []
    assert run_threads(asked, {"threads": recorded}, 4, notes.append) == threads
    assert [said in note.text for note in notes] == ([True] if said else [])


def test_a_limit_of_the_environment_is_said(monkeypatch):
    monkeypatch.setenv("OMP_THREAD_LIMIT", "2")
    notes = []
    assert run_threads(None, {}, 2, notes.append) == 2 and notes == []
    assert run_threads(None, {"threads": 8}, 8, notes.append) == 8
    assert "OMP_THREAD_LIMIT=2 allows fewer than the run's 8 threads" in notes[0].text


def test_threads_come_back_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(ValueError), restored_threads():
        torch.set_num_threads(before + 2)
        raise ValueError
    assert torch.get_num_threads() == before
