"""What a run folder says of a run that did not reach its end."""

import pytest
from memx.errors import MemxError
from memx.experiments.runtime.lifecycle import recorded_run
from memx.experiments.runtime.signals import Interrupted
from memx.results.store.runs import RunStore


def ended(folder, error, *, keeps, plain=None):
    """The run whose work raised the error after it began."""
    with RunStore(folder).claim("a") as run:
        with pytest.raises(type(error)), recorded_run(run, lambda: keeps, plain):
            run.begin("", {})
            raise error
        return run.info()


@pytest.mark.parametrize("error", [Interrupted("stop"), KeyboardInterrupt()])
def test_a_stop_is_an_interruption(error, tmp_path):
    assert ended(tmp_path, error, keeps=False)["status"] == "interrupted"


def test_a_mistake_leaves_nothing_unless_there_is_something_to_resume_from(tmp_path):
    assert ended(tmp_path / "one", MemxError("wrong"), keeps=False) == {}
    info = ended(tmp_path / "two", MemxError("wrong"), keeps=True)
    assert (info["status"], info["error"]) == ("failed", "wrong")


def test_other_errors_are_recorded_with_their_type_unless_they_speak_for_themselves(tmp_path):
    info = ended(tmp_path / "one", ValueError("far off"), keeps=False)
    assert (info["status"], info["error"]) == ("failed", "ValueError: far off")
    assert ended(tmp_path / "two", ValueError("far off"), keeps=False, plain=ValueError)["error"] == "far off"


def test_what_reaches_its_end_is_left_to_the_caller(tmp_path):
    with RunStore(tmp_path).claim("a") as run:
        with recorded_run(run, lambda: False):
            run.begin("", {})
        assert run.status == "running"
