"""lazy_zeros: zeros of any dtype that can be written like any other tensor."""

import pytest
import torch
from memx.kernels.zeros import lazy_zeros


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int32])
@pytest.mark.parametrize("shape", [(7,), (5, 3), (0, 4)])
def test_zeros(dtype, shape):
    zeros = lazy_zeros(shape, dtype, torch.device("cpu"))
    assert zeros.shape == shape and zeros.dtype == dtype and zeros.is_contiguous()
    assert (zeros == 0).all()
    assert (zeros.add_(1) == 1).all()
