"""Figures that a test of results drew are closed after it: matplotlib warns of more than 20."""

import pytest


@pytest.fixture(autouse=True)
def closed_figures():
    """Close what was drawn."""
    yield
    from matplotlib import pyplot

    pyplot.close("all")
