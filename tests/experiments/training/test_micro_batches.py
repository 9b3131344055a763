"""Interleaved micro-batches: the same bits as one after another, in a fixed order, and nothing left behind."""

import os
import signal
import threading
import time

import pytest
import torch
from memx.errors import MemxError
from memx.experiments.config.training import TrainingConfig
from memx.experiments.distributed.sharding import keep_gathered
from memx.experiments.models.slot_usage import SlotUsage
from memx.experiments.optim.optimizer import Optimizer
from memx.experiments.training.micro_batches import run_overlapped
from memx.memory_layers.layer import MemoryLayer
from memx.memory_layers.llama import keep_on_host
from memx.memory_layers.tables.table_shards import TableShard
from memx.memory_layers.tables.values import MemoryValues
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tests.ranks import run_worlds

ROWS, WIDTH, TOKENS, STEPS = 64, 24, 16, 3


class Block(nn.Module):
    def __init__(self, memory: MemoryLayer) -> None:
        super().__init__()
        self.matrix, self.memory = nn.Linear(WIDTH, WIDTH), memory

    def forward(self, x):
        return x + self.memory(self.matrix(x).tanh())


class Stack(nn.Module):
    """Three memory layers that read one table, and a fourth with its own, each after a matrix."""

    def __init__(self, on_host: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        values = MemoryValues(ROWS, WIDTH)
        shared = [MemoryLayer(WIDTH, ROWS, heads=2, top_k=4, values=values) for _ in range(3)]
        memories = [*shared, MemoryLayer(WIDTH, ROWS, heads=2, top_k=4)]
        self.values, self.blocks = values, nn.ModuleList(map(Block, memories))
        if on_host:
            keep_on_host(self)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = {thread for thread in threading.enumerate() if thread.name == "memx-forward"}
    yield
    assert {thread for thread in threading.enumerate() if thread.name == "memx-forward"} == before


def batches(count: int) -> list[list[torch.Tensor]]:
    drawn = torch.randn(STEPS, count, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
    return [[*step] for step in drawn]


def train(ahead: int, parts: int, *, on_host: bool = True, bfloat16: bool = False) -> tuple:
    """Losses, gradients of the last step, all weights and moments, and the statistics of use, whose masks differ."""
    stack = Stack(on_host)
    optimizer = Optimizer(stack, TrainingConfig(value_optimizer="sparse", warmup=0), lookups=1)
    use, losses, gradients = SlotUsage(stack), [], {}

    def forward(x):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return stack(x).float().square().mean()

    def backward(loss):
        loss.backward()
        losses.append(float(loss.detach()))

    for step, given in enumerate(batches(parts)):
        run_overlapped(given, forward, backward, ahead=ahead, turn=lambda x: use.count_only(x[:, 0] > x[0, 0] - 0.5))
        gradients = {name: p.grad.clone() for name, p in stack.named_parameters() if p.grad is not None}
        optimizer.step(step)
    weights = {name: p.detach() for name, p in stack.named_parameters()}
    numbers = {"losses": torch.tensor(losses, dtype=torch.float64)}
    return weights, gradients, optimizer.state_tensors(), use.state_tensors(), numbers


def check_same(one: tuple, other: tuple) -> None:
    for mine, its in zip(one, other, strict=True):
        assert mine.keys() == its.keys()
        for name, tensor in mine.items():
            assert torch.equal(tensor, its[name]), name


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_training_ahead_is_training_one_after_another_to_the_bit(parts):
    expected = train(0, parts, on_host=False)
    for ahead in (0, 1, 2, 9):
        check_same(train(ahead, parts), expected)


def test_under_autocast_too():
    expected = train(0, 3, bfloat16=True)
    for ahead in (1, 2):
        check_same(train(ahead, 3, bfloat16=True), expected)


def test_a_weight_that_is_used_twice_is_cast_anew_for_each_micro_batch_and_use():
    def gradients(ahead, cache):
        stack = Stack()
        stack.values.gradient_buffer, stack.blocks[3].memory.values.gradient_buffer = [], []

        def forward(x):
            with torch.autocast("cpu", torch.bfloat16, cache_enabled=cache):
                return stack.blocks[0](stack(stack.blocks[0](x))).float().square().mean()

        run_overlapped(batches(3)[0], forward, lambda loss: loss.backward(), ahead=ahead)
        return {name: p.grad for name, p in stack.named_parameters() if p.grad is not None}

    expected = gradients(0, False)
    assert not torch.equal(gradients(0, True)["blocks.0.matrix.weight"], expected["blocks.0.matrix.weight"])
    for ahead in (1, 2):
        check_same((gradients(ahead, None),), (expected,))


def trace(ahead: int, parts: int, lookups: int) -> list[str]:
    """Who had the turn, and which backward ran: f is a forward that began, goes on; b is backward."""
    table, told = MemoryValues(4, 2), []
    table.keep_on_host()

    def forward(part):
        with torch.no_grad():
            for _ in range(lookups):
                table.bag(torch.tensor([[part % 4]]), torch.ones(1, 1))
        return part

    run_overlapped(
        range(parts),
        forward,
        lambda part: told.append(f"b{part}"),
        ahead=ahead,
        turn=lambda part: told.append(f"f{part}"),
    )
    return told


def test_turns_go_round_in_a_fixed_order():
    assert trace(0, 2, 3) == ["f0", "b0", "f1", "b1"]
    # while the rows of one are fetched another computes; a new one begins as soon as the oldest is through
    assert trace(1, 3, 1) == ["f0", "f1", "f0", "b0", "f2", "f1", "b1", "f2", "b2"]
    assert trace(1, 3, 2) == ["f0", "f1", "f0", "f1", "f0", "b0", "f2", "f1", "b1", "f2", "f2", "b2"]
    assert trace(2, 2, 1) == ["f0", "f1", "f0", "b0", "f1", "b1"]
    assert trace(1, 3, 0) == ["f0", "f1", "b0", "f2", "b1", "b2"]
    assert trace(1, 0, 1) == trace(0, 0, 1) == []


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_parts_are_taken_as_they_are_needed(ahead):
    taken, done = [], []

    def parts():
        for part in range(6):
            taken.append(part)
            assert len(taken) <= len(done) + 1 + ahead
            yield part

    run_overlapped(parts(), lambda part: part, done.append, ahead=ahead)
    assert done == taken == [*range(6)]


def test_no_more_begin_than_may_and_one_computes_at_a_time():
    table, begun, computing = MemoryValues(4, 2), set(), []
    table.keep_on_host()

    def forward(part):
        begun.add(part)
        assert len(begun) <= 3
        for _ in range(3):
            computing.append(part)
            assert len(computing) == 1
            time.sleep(0.001)
            computing.pop()
            with torch.no_grad():
                table.bag(torch.tensor([[part % 4]]), torch.ones(1, 1))
        return part

    run_overlapped(range(6), forward, begun.remove, ahead=2)
    assert not begun


@pytest.mark.parametrize("layer", [0, 3])
def test_an_error_of_a_forward_pass_comes_out_and_the_others_end(layer, monkeypatch):
    stack, done = Stack(), []
    stack.values.gradient_buffer, stack.blocks[3].memory.values.gradient_buffer = [], []
    right = stack.blocks[layer].memory.forward
    given = batches(4)[0]

    def failing(x):
        y = right(x)
        if done:
            raise MemxError("a bad micro-batch", hint="none")
        return y

    monkeypatch.setattr(stack.blocks[layer].memory, "forward", failing)
    with pytest.raises(MemxError, match="a bad micro-batch"):
        run_overlapped(given, lambda x: stack(x).sum(), lambda loss: done.append(loss.backward()), ahead=2)
    before = len(done)
    assert 1 <= before < len(given)
    monkeypatch.undo()
    run_overlapped(given, lambda x: stack(x).sum(), lambda loss: done.append(loss.backward()), ahead=2)
    assert len(done) == before + len(given)


def test_errors_of_backward_of_the_turn_and_of_the_table_come_out():
    stack = Stack()
    given = batches(3)[0]

    def failing(_):
        raise RuntimeError("not this one")

    with torch.no_grad():
        with pytest.raises(RuntimeError, match="not this one"):
            run_overlapped(given, stack, failing, ahead=1)
        with pytest.raises(RuntimeError, match="not this one"):
            run_overlapped(given, stack, lambda y: None, ahead=1, turn=failing)
        with pytest.raises(IndexError):
            run_overlapped(
                [0, ROWS, 1],
                lambda slot: stack.values.bag(torch.tensor([[slot]]), torch.ones(1, 1)),
                lambda y: None,
                ahead=1,
            )


def test_an_interrupt_comes_out_while_a_forward_pass_computes():
    stack, began = Stack(), []

    def forward(x):
        began.append(x)
        if len(began) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
        return stack(x)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with torch.no_grad(), pytest.raises(KeyboardInterrupt):
            run_overlapped(batches(4)[0], forward, lambda y: None, ahead=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(began) == 2


def test_forward_passes_run_as_the_caller_would():
    def settings(_=None):
        return (
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
            torch.get_num_threads(),
        )

    found = []
    with torch.no_grad(), torch.autocast("cpu", torch.float16):
        expected = settings()
        run_overlapped(range(3), settings, found.append, ahead=1)
    assert found == [expected] * 3 and expected[:3] == (False, True, torch.float16)
    found.clear()
    run_overlapped(range(3), settings, found.append, ahead=1)
    assert found == [settings()] * 3


def on_a_rank() -> list[list]:
    """For 0 and 1 ahead: losses, then gradients of both steps, of a stack whose weights and tables ranks share out."""
    distributed.init_process_group("gloo")
    try:
        return [sharded_steps(ahead) for ahead in (0, 1)]
    finally:
        distributed.destroy_process_group()


def sharded_steps(ahead: int) -> list:
    rank, size = distributed.get_rank(), distributed.get_world_size()
    stack, found = Stack(on_host=False), []
    tables = [module for module in stack.modules() if isinstance(module, MemoryValues)]
    for table in tables:
        table.keep_shard(TableShard("width", distributed.group.WORLD, rank, size, ROWS, WIDTH))
        table.gradient_buffer = []
    keep_on_host(stack)
    kept = {table.weight for table in tables}
    for unit in (*stack.blocks, stack):
        fully_shard(unit, ignored_params=kept)
    with pytest.raises(MemxError, match="is above 1, the limit"), keep_gathered(stack, 2):
        pass

    def backward(loss):
        loss.backward()
        found.append(loss.detach())

    for given in batches(4)[:2]:
        mine = [x.chunk(size)[rank] for x in given]
        with keep_gathered(stack, ahead):
            run_overlapped(mine, lambda x: stack(x).square().mean(), backward, ahead=ahead)
        dense = [p for p in stack.parameters() if p not in kept]
        found += [p.grad.to_local().clone() for p in dense]
        found += [x for table in tables for part in table.pop_gradients() for x in part[:3]]
        torch.optim.SGD(dense, lr=0.1).step()
        with torch.no_grad():
            found.append(stack(mine[0]))
        assert all(isinstance(p, DTensor) for p in stack.parameters() if p not in kept)
        stack.zero_grad()
    return found


def test_one_ahead_with_weights_that_ranks_share_out():
    for expected, found in run_worlds(on_a_rank, (2,))[2]:
        assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


@pytest.mark.gpu
def test_on_cuda_too():
    def gradients(ahead):
        stack = Stack().cuda()
        Optimizer(stack, TrainingConfig(value_optimizer="sparse", warmup=0), lookups=1)
        losses = []
        given = [x.cuda() for x in batches(5)[0]]
        run_overlapped(
            given, lambda x: stack(x).square().mean(), lambda y: losses.append(y.backward() or y.detach()), ahead=ahead
        )
        parts = [tensor for part in stack.values.pop_gradients() for tensor in part[:3]]
        assert all(part.device.type == "cpu" for part in parts)
        return [*losses, *parts, *(p.grad for p in stack.parameters() if p.grad is not None)]

    expected = gradients(0)
    for ahead in (1, 2):
        assert all(torch.equal(one, other) for one, other in zip(gradients(ahead), expected, strict=True))
