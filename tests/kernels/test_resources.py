"""The kernels compile for the cards they are meant for, without a GPU, and spill no registers."""

import pytest
from memx.errors import MemxError
from memx.kernels.op import interpreted
from memx.kernels.resources import measure, variants

VARIANTS = list(variants())


@pytest.mark.parametrize(
    ("name", "capability"), [("bag sums bf16", 90), ("adam bf16, a moment a row", 80), ("lookup of one fp32", 90)]
)
def test_a_kernel_compiles_ahead_of_time(name, capability):
    """One of each kind: the plainest, the one that takes most registers, one whose arguments are all 1."""
    found = measure(next(variant for variant in VARIANTS if variant.name == name), capability)
    assert found.spills == 0 and 0 < found.registers < 255 and found.load_bits > 0


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_no_kernel_spills_on_a100_and_h100(variant, capability):
    assert measure(variant, capability).spills == 0


def test_an_interpreting_process_says_that_it_compiles_nothing(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert interpreted()
    with pytest.raises(MemxError, match="compiles no kernels"):
        measure(VARIANTS[0], 90)
