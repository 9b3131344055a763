"""The processes of torchrun: what all ranks agree on, and how one that fails or dies ends the others."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.distributed.process_group import World, is_quiet, join, launched, line_prefix, local_device
from memx.experiments.distributed.rendezvous import fresh_store

from ...ranks import end_worlds, run_worlds


def meeting():
    with join("cpu") as world:
        made = []

        def work():
            made.append(world.rank)
            return {"from": world.rank}

        told = world.on_first(work)
        wrong = None
        try:
            world.on_first(fail)
        except MemxError as error:
            wrong = (error.message, error.hint, is_quiet(error))
        world.wait()
        said = world.any(world.rank == world.size - 1), world.any(False)
        return launched().rank, told, made, world.gather(world.rank**2), said, wrong, line_prefix()


def test_a_restart_does_not_take_dead_ranks_for_its_own():
    store = torch.distributed.HashStore()
    for start in range(3):  # the same store, with all that earlier starts have left in it
        with ThreadPoolExecutor(4) as threads:
            parts = [*threads.map(lambda rank: fresh_store(store, rank, 4, timedelta(seconds=20)), range(4))]
        assert not any(part.check(["key"]) for part in parts)
        parts[0].set("key", str(start))
        assert {part.get("key") for part in parts} == {str(start).encode()}
    with pytest.raises(TimeoutError, match="rank 1 of 4: timed out"):
        fresh_store(store, 1, 4, timedelta(seconds=0.05))


def fail():
    raise MemxError("not this", hint="but that")


def test_ranks_agree_on_what_the_first_did_and_on_what_all_said():
    for size, ranks in run_worlds(meeting).items():
        assert len(ranks) == size
        for rank, (own, told, made, squares, said, wrong, begins) in enumerate(ranks):
            assert own == rank and told == {"from": 0} and made == ([0] if rank == 0 else [])
            assert squares == [one**2 for one in range(size)] and said == (True, False)
            assert wrong == ("not this", "but that", rank > 0)
            assert begins == (f"rank {rank}: " if rank else "")


def lost(how):
    with join("cpu") as world:
        world.wait()
        if world.rank == world.size - 1:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("mine alone")
        world.gather(torch.zeros(3))


@pytest.mark.parametrize("how", ["killed", "failed"])
def test_a_rank_that_is_lost_ends_the_others_with_what_to_do(how):
    *others, gone = end_worlds(lost, [4], {"how": how})[4]
    assert gone.code == (-signal.SIGKILL if how == "killed" else 1) and ("mine alone" in gone.error) == (
        how != "killed"
    )
    for rank, one in enumerate(others):
        last = one.error.strip().splitlines()[-1]
        assert one.code == 1 and "LostRank: one of the 4 ranks was lost" in last, (rank, one)
        assert "--resume to continue" in last


def hang():
    with join("cpu") as world:
        if world.rank:
            time.sleep(60)


def test_ranks_that_hang_are_killed_and_show_where():
    first, second = end_worlds(hang, [2], seconds=1.5)[2]
    assert second.code == -signal.SIGKILL and "in hang" in second.printed and first.code in (0, -signal.SIGKILL)
    with pytest.raises(AssertionError, match=r"rank 1 of 2 ended with 1\n(.|\n)*mine alone"):
        run_worlds(lost, [2], {"how": "failed"})


def test_alone_there_is_no_group():
    with join() as world:
        assert world == World() and world.gather(3) == [3] and world.on_first(lambda: 4) == 4
        assert local_device(world, torch.device("cpu")) == torch.device("cpu") and not world.any(False)
        world.wait()
    assert not torch.distributed.is_initialized() and not is_quiet(MemxError("x")) and not line_prefix()
