"""The ops and a short training run on CUDA, by the same checks as on the CPU; what only a GPU can show."""

import pytest
import torch
from memx.experiments.benchmarks.ops.correctness import check_op
from memx.experiments.config.loading import load_config
from memx.experiments.config.points import plan
from memx.experiments.runtime.options import Options
from memx.experiments.training.sweep import train_points
from memx.kernels.registry import OPS
from memx.memory_layers.layer import MemoryLayer

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_ops_equal_fp64_on_cuda(op, dtype):
    for shape in op.shapes:
        for impl in op.available(torch.device("cuda")):
            error, limit = check_op(op, shape, dtype, torch.device("cuda"), impl)
            assert error <= limit, (shape, impl)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_ops_repeat_bit_for_bit(op):
    found = []
    for _ in range(3):
        inputs = op.make_inputs(op.shapes[-1], torch.float32, torch.device("cuda"), torch.Generator().manual_seed(0))
        leaves = [x.requires_grad_() if i in op.gradients else x for i, x in enumerate(inputs)]
        outputs = op.run(*leaves, impl="triton")
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        wanted = [leaves[i] for i in op.gradients]
        gradients = torch.autograd.grad(outputs[0].square().sum(), wanted) if wanted else ()
        found.append([x.detach().clone() for x in (*outputs, *gradients)])
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


def test_a_memory_layer_is_captured_in_a_cuda_graph():
    """Forward and dense backward wait for nothing, so that a graph can replay them on new inputs."""
    torch.manual_seed(0)
    layer, x = MemoryLayer(64, 4096, heads=2, top_k=8).cuda(), torch.randn(96, 64, device="cuda")
    parameters = list(layer.parameters())

    def gradients():
        return torch.autograd.grad(layer(x).square().sum(), parameters)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            gradients()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = gradients()
    x.copy_(torch.randn(96, 64, device="cuda"))
    graph.replay()
    assert all(torch.equal(one, other) for one, other in zip(captured, gradients(), strict=True))


def test_training_learns_on_cuda(tmp_path):
    config = load_config("tiny", [("training.device", "cuda")])
    (rows,) = train_points(plan(config), Options(tmp_path), lambda index, event: None).values()
    assert {row.device for row in rows} == {"cuda"}
    loss = next(row.value for row in rows if row.dataset == "seen" and row.metric == "nll")
    assert loss < 3.0
