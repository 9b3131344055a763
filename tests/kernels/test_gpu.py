"""The ops and a short training run on CUDA, by the same checks as on the CPU."""

import pytest
import torch
from memx.experiments.bench import check_op
from memx.experiments.settings import load_config
from memx.experiments.sweep import Options, train_all
from memx.kernels.ops import OPS

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.parametrize("index", range(3))
def test_ops_equal_fp64_on_cuda(op, index):
    error, limit = check_op(op, op.shapes[index], torch.float32, torch.device("cuda"))
    assert error <= limit


def test_training_learns_on_cuda(tmp_path):
    config = load_config("tiny", [("training.device", "cuda")])
    (rows,) = train_all(config, Options(tmp_path), lambda index, event: None).values()
    assert {row.device for row in rows} == {"cuda"}
    loss = next(row.value for row in rows if row.dataset == "seen" and row.metric == "nll")
    assert loss < 3.0
