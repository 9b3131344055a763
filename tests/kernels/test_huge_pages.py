"""Large pages are a wish to the system: values stay, whatever it answers."""

import torch
from memx.kernels.huge_pages import use_huge_pages
from torch._subclasses.fake_tensor import FakeTensorMode


def test_values_stay_and_small_or_strided_tensors_are_left_alone():
    table = torch.randn(3000, 512)
    before = table.clone()
    use_huge_pages(table)
    assert torch.equal(table, before)
    assert not use_huge_pages(torch.randn(10, 10)) and not use_huge_pages(table.T)
    assert not use_huge_pages(torch.empty(10_000, 512, device="meta"))


def test_tensors_without_memory_of_their_own_are_left_alone():
    with FakeTensorMode():
        assert not use_huge_pages(torch.empty(10_000, 512))
