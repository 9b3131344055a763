"""Where memories are placed: the published blocks, and what every placement keeps."""

from itertools import pairwise

import pytest
from memx.errors import MemxError
from memx.memory_layers.config import MemoryConfig
from memx.memory_layers.placement import centred


@pytest.mark.parametrize(
    ("blocks", "count", "placed"),
    [
        (24, 3, (4, 12, 20)),
        (12, 3, (2, 6, 10)),
        (22, 3, (3, 11, 19)),
        (32, 3, (8, 16, 24)),
        (12, 1, (6,)),
        (1, 1, (0,)),
    ],
)
def test_published_placements(blocks, count, placed):
    assert centred(blocks, count) == placed


def test_every_placement_is_inside_equally_spaced_and_about_the_middle():
    for blocks in range(1, 41):
        for count in range(1, blocks + 1):
            placed = centred(blocks, count)
            assert len(set(placed)) == count == len(placed)
            assert placed[0] >= 0 and placed[-1] < blocks
            steps = {after - before for before, after in pairwise(placed)}
            assert len(steps) <= 1 and all(1 <= step <= 8 for step in steps)
            assert abs((placed[0] + placed[-1]) / 2 - (blocks - 1) / 2) <= 1, (blocks, count, placed)


def test_a_given_stride_is_kept_or_refused():
    assert centred(12, 3, 2) == (4, 6, 8)
    with pytest.raises(MemxError, match="3 memory layers with a stride of 6 do not fit in 12 blocks") as error:
        centred(12, 3, 6)
    assert "memory.stride" in error.value.hint


def test_more_memories_than_blocks():
    with pytest.raises(MemxError, match="5 memory layers with a stride of 4 do not fit in 4 blocks"):
        centred(4, 5)


@pytest.mark.parametrize(
    ("memory", "placed"),
    [
        ({"kind": "dense"}, ()),
        ({"kind": "memory"}, (6,)),
        ({"kind": "memory+"}, (2, 6, 10)),
        ({"kind": "peer"}, (6,)),
        ({"kind": "moe"}, tuple(range(12))),
        ({"kind": "moe", "count": 3}, (2, 6, 10)),
        ({"kind": "memory", "count": 2, "stride": 2}, (5, 7)),
        ({"kind": "memory+", "layers": [9, 1, 9]}, (1, 9)),
    ],
)
def test_what_each_kind_places(memory, placed):
    assert MemoryConfig(**memory).placed_layers(12) == placed
