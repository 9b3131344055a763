"""Who owns a run folder, what --force keeps until the new run may stay, and what kills leave: never neither."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from memx.errors import MemxError
from memx.files import put_in_place
from memx.leftovers import temporary_beside
from memx.results.store import runs as store
from memx.results.store.bench_files import claim_bench, save_bench
from memx.results.store.nearest import new_run_note
from memx.results.store.rows import Row, read_rows
from memx.results.store.runs import RunStore

from ...kills import kill_at_each_write
from ...ranks import end_worlds

OLD, NEW = (
    [Row(run="a", experiment="e", kind="dense", model="m", dataset="seen", metric="nll", value=value, n=1)]
    for value in (1.0, 2.0)
)


def write_run(root: Path, rows: list[Row], *, saves: bool = True, finishes: bool = True, **claim: bool) -> None:
    with RunStore(root).claim("a", **claim) as run:
        run.begin("x: 1\n", {})
        run.append_metrics(step=1, loss=rows[0].value)
        if saves:
            made = temporary_beside(run.folder / "state" / "step-00000001")
            made.mkdir(parents=True)
            (made / "model").write_text(str(rows[0].value))
            put_in_place(made, run.folder / "state" / "step-00000001")
        run.append_metrics(step=2, loss=rows[0].value)
        if not finishes:
            raise MemxError("no such facts file")
        run.finish(rows)
        shutil.rmtree(run.folder / "state")


def files_of(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if name != ".lock"}


@pytest.mark.parametrize("saves", [False, True])
def test_a_forced_run_that_fails_brings_the_old_one_back_unless_it_saved_a_state(tmp_path, saves):
    write_run(tmp_path, OLD)
    before = files_of(tmp_path / "a")
    with pytest.raises(MemxError, match="no such facts"):
        write_run(tmp_path, NEW, force=True, saves=saves, finishes=False)
    after = files_of(tmp_path / "a")
    if saves:
        assert "state/step-00000001/model" in after and "rows.jsonl" not in after
    else:
        assert after == before and RunStore(tmp_path).run("a").status == "finished"
    write_run(tmp_path, NEW, force=True)
    assert read_rows(tmp_path / "a" / "rows.jsonl") == NEW and len(files_of(tmp_path / "a")) == 4


def force_through_kills(folder: str, every: int) -> int:
    """--force, killed before each of its writes: the old run is whole at the next claim, or the new one is begun."""
    store.environment = dict  # which asks git, that takes long
    root = Path(folder) / "runs"
    write_run(root, OLD)
    keep = Path(folder) / "keep"
    shutil.copytree(root / "a", keep)
    before = files_of(keep)

    def look(number: int) -> None:
        with RunStore(root).claim("a", resume=True) as run:
            there = files_of(run.folder)
            begun = any("state/step-" in name for name in there)
            new = run.status == "finished" and run.rows() == NEW
            assert there == before or begun or new, (number, sorted(there))
            assert not [name for name in there if name.startswith(".") or "/." in name], (number, sorted(there))
        shutil.rmtree(root / "a")
        shutil.copytree(keep, root / "a")

    return kill_at_each_write(root, lambda: write_run(root, NEW, force=True), look, every=every)


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_no_kill_loses_both_the_old_and_the_new_run(tmp_path, every):
    (ended,) = end_worlds(force_through_kills, [1], {"folder": str(tmp_path), "every": every})[1]
    assert ended.code == 0 and not ended.error, ended.error
    assert ended.result > 20 // every


def test_what_a_killed_write_left_goes_when_the_folder_is_claimed(tmp_path):
    write_run(tmp_path, OLD)
    before = files_of(tmp_path / "a")
    (tmp_path / "a" / "state").mkdir()
    for name in (".memx-00000000-1-0123abcd.tmp", ".rows.jsonl.a1b2c3d4", "state/.memx-00000000-1-0123abcd.tmp"):
        (tmp_path / "a" / name).write_text("half")
    (tmp_path / "a" / ".checkpoint.tmp").mkdir()
    (tmp_path / "a" / ".mine").write_text("not memx's")
    with RunStore(tmp_path).claim("a", resume=True):
        pass
    assert files_of(tmp_path / "a") == before | {".mine": b"not memx's"}


def test_an_owned_run_is_refused_and_seen_as_running_by_who_may_only_read(tmp_path):
    with RunStore(tmp_path).claim("a") as run:
        run.begin("x: 1\n", {})
        (tmp_path / "a").chmod(0o555)
        assert run.status == "running"
        (tmp_path / "a").chmod(0o755)
    assert run.status == "interrupted"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users_folder_is_one_clear_line():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        write_run(root, OLD)
        before = files_of(root / "a")
        os.seteuid(65534)
        try:
            assert RunStore(root).run("a").status == "finished"
            for name, claim in (("a", {"resume": True}), ("a", {"force": True}), ("b", {})):
                with pytest.raises(MemxError, match=r"cannot write .*: Permission denied") as told:
                    RunStore(root).claim(name, **claim).__enter__()
                assert "may write to" in told.value.hint
        finally:
            os.seteuid(0)
        assert files_of(root / "a") == before


def test_a_folder_that_is_removed_while_a_run_writes_is_one_clear_line(tmp_path):
    gone = pytest.raises(MemxError, match=r"cannot write .*metrics\.jsonl: No such file")
    with gone as told, RunStore(tmp_path).claim("a") as run:
        run.begin("x: 1\n", {})
        shutil.rmtree(tmp_path / "a")
        run.append_metrics(step=1)
    assert "was not removed" in told.value.hint and not (tmp_path / "a").exists()


def test_a_new_run_of_another_option_is_said(tmp_path):
    config = {"name": "a", "training": {"lr": 0.1, "steps": 4}, "data": {"facts": ["x"]}}
    for name, lr in (("a-00000001", 0.2), ("b-00000002", 0.1)):
        with RunStore(tmp_path).claim(name) as run:
            run.begin(f"name: a\ntraining: {{lr: {lr}, steps: 4}}\ndata: {{facts: [x]}}\n", {})
    said = new_run_note(tmp_path, "a-00000003", config)
    assert said == "--resume: a new run starts, as a-00000001 has other options: training.lr is 0.1, not 0.2"
    assert new_run_note(tmp_path, "a-00000001", config) == "" == new_run_note(tmp_path, "c-00000003", config)


def test_a_benchmark_that_fails_before_it_has_rows_leaves_the_old_ones(tmp_path):
    def bench(rows: list[Row], *, fails: bool = False, **claim: bool) -> None:
        with claim_bench(tmp_path / "b", force=claim.get("force", False)):
            with pytest.raises(MemxError, match="another process"), claim_bench(tmp_path / "b", force=True):
                pass
            if fails:
                raise MemxError("no such device")
            save_bench(tmp_path / "b", rows, {"device": str(rows[0].value)})

    with pytest.raises(MemxError, match="no such device"):
        bench(OLD, fails=True)
    assert not list(tmp_path.iterdir())
    bench(OLD)
    before = files_of(tmp_path / "b")
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"rows.jsonl", "environment.json"}
    with pytest.raises(MemxError, match="no such device"):
        bench(NEW, force=True, fails=True)
    with pytest.raises(MemxError, match="already contains"):
        bench(NEW)
    assert files_of(tmp_path / "b") == before
    bench(NEW, force=True)
    assert read_rows(tmp_path / "b" / "rows.jsonl") == NEW
