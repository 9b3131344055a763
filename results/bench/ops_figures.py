"""The two pictures of benchmarked ops: the roofline, and bars over each op's floor."""

from __future__ import annotations

from dataclasses import replace

from ..selection import Drawn, PlotRequest
from .bars import bars_figure
from .roofline import roofline_figure
from .rows import check_times, of_ops


def draw(request: PlotRequest) -> Drawn:
    """Draw the roofline and the bars; the files are those of the roofline, of the bars, and the rows of both."""
    rows = request.rows(of_ops)
    check_times(rows, ", ".join(map(str, request.sources)))
    roofline, bars = roofline_figure(rows), bars_figure(rows)
    files = replace(request, name=f"{request.name}-roofline").write(roofline)
    files += replace(request, name=f"{request.name}-bars").write(bars)
    return Drawn([*files, request.write_rows(rows)])
