"""The gather kernel against torch.gather, bit by bit: dtypes, widths, strides, ragged heads, wrong indices."""

import pytest
import torch
from memx.experiments.benchmarks.ops.correctness import check_op
from memx.kernels.evict_gather import OP, evict_gather, evict_gather_reference


def layer(device, batch=2, heads=3, keys=40, seed=0):
    """What a layer stores by key: of every dtype and several widths, wider than a tile too."""
    generator = torch.Generator().manual_seed(seed)

    def normal(width, dtype):
        return torch.randn(batch, heads, keys, width, generator=generator).to(device, dtype)

    return [
        normal(64, torch.bfloat16), normal(63, torch.float16), normal(17, torch.float32), normal(150, torch.float64),
        normal(5, torch.float32) > 0, torch.randint(1 << 60, (batch, heads, keys), generator=generator).to(device),
        normal(3, torch.float32).to(torch.int8), normal(2, torch.complex64), normal(700, torch.bool),
    ]  # fmt: skip


def choose(device, most, batch=2, heads=3, keys=40):
    generator = torch.Generator().manual_seed(1)
    kept = torch.rand(batch, heads, keys, generator=generator).topk(most).indices.sort(-1).values
    return kept.to(device), torch.randint(most + 1, (batch, heads), generator=generator).to(device)


def same(got, expected):
    assert len(got) == len(expected)
    for ours, exact in zip(got, expected, strict=True):
        assert ours.dtype == exact.dtype and ours.shape == exact.shape and ours.is_contiguous()
        assert torch.equal(ours, exact)


@pytest.mark.parametrize("most", [0, 1, 33, 40])
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_copies_bit_by_bit(device, most, index):
    tensors = layer(device)
    kept, counts = choose(device, most)
    same(evict_gather(tensors, kept.to(index), impl="triton"), evict_gather_reference(tensors, kept))
    got = evict_gather(tensors, kept.to(index), counts.to(index), impl="triton")
    same(got, evict_gather_reference(tensors, kept, counts))


def test_nan_and_negative_zero_keep_their_bits(device):
    bits = torch.randint(-(2**31), 2**31, (1, 2, 50, 9), generator=torch.Generator().manual_seed(0)).int().to(device)
    kept, _ = choose(device, 20, 1, 2, 50)
    (got,) = evict_gather([bits.view(torch.float32)], kept, impl="triton")
    assert torch.equal(got.view(torch.int32), evict_gather_reference([bits], kept)[0])


def test_entries_past_the_count_and_wrong_indices_read_nothing(device):
    tensors = layer(device)
    kept, counts = choose(device, 20)
    expected = evict_gather_reference(tensors, kept, counts)
    junk = torch.where(torch.arange(20, device=device) < counts[..., None], kept, 1 << 40)
    same(evict_gather(tensors, junk, counts, impl="triton"), expected)
    kept[0, 1, 3], kept[1, 2, 0] = -1, 40
    for got in evict_gather(tensors, kept, impl="triton"):
        assert (got[0, 1, 3] == 0).all() and (got[1, 2, 0] == 0).all()


def test_strided_tensors(device):
    tensors = layer(device, keys=80)
    kept, counts = choose(device, 20)
    views = [x[:, :, 1::2] for x in tensors] + [tensors[0].transpose(0, 1).contiguous().transpose(0, 1)[:, :, :40, 3:9]]
    views += [
        tensors[2].mT.contiguous().mT[:, :, :40],
        tensors[2][:, :, :40, 4:5],
        tensors[5][:, :, :1].expand(2, 3, 40),
    ]
    same(evict_gather(views, kept, counts, impl="triton"), evict_gather_reference(views, kept, counts))


def test_offsets_beyond_32_bits(device):
    store = torch.empty(40 << 26, dtype=torch.uint8, device=device)  # touched at its keys alone
    rows = torch.randint(256, (1, 1, 40, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).to(device)
    spread = store.as_strided((1, 1, 40, 3), (0, 0, 1 << 26, 1)).copy_(rows)
    kept, _ = choose(device, 30, 1, 1)
    same(evict_gather([spread], kept, impl="triton"), evict_gather_reference([rows], kept))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_passes_its_own_check(device, dtype):
    error, limit = check_op(OP, OP.shapes[0], dtype, device, "triton")
    assert error <= limit


def test_compiled(device):
    tensors = layer(device)
    kept, counts = choose(device, 20)
    compiled = torch.compile(lambda *given: evict_gather(given[2:], *given[:2], impl="triton"), backend="aot_eager",
                             fullgraph=True)  # fmt: skip
    same(compiled(kept, counts, *tensors), evict_gather_reference(tensors, kept, counts))
