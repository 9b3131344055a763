"""One look for every figure: colours that colour-blind readers tell apart, light grids, text that stays text."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from math import log10
from typing import TYPE_CHECKING, Any, Literal

from ..plain_text import printable, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette
COLOURS = {"seen": "#0072B2", "rephrased": "#D55E00", "unseen": "#666666"}
MARKERS = {"seen": "o", "rephrased": "s", "unseen": "^"}
BASE_COLOURS = {"134m": "#56B4E9", "373m": "#009E73", "1.3b": "#CC79A7"}
KIND_COLOURS = {"dense": "#000000", "memory": "#0072B2", "memory+": "#D55E00", "peer": "#009E73", "moe": "#CC79A7"}
KIND_COLOURS |= {"engram": "#E69F00", "ultramem": "#56B4E9"}
KIND_MARKERS = {"dense": "D", "memory": "o", "memory+": "s", "peer": "^", "moe": "v", "engram": "P", "ultramem": "X"}
KIND_LABELS = {"memory": "memory", "memory+": "memory+", "peer": "PEER", "moe": "MoE"}
KIND_LABELS |= {"engram": "engram", "ultramem": "UltraMem"}
VERDICT_COLOURS = {"better": "#0072B2", "worse": "#D55E00"}
POLICY_COLOURS = {
    "namm": "#D55E00", "random": "#999999", "recency": "#56B4E9", "streamingllm": "#0072B2", "h2o": "#009E73",
    "knorm": "#E69F00", "tova": "#CC79A7", "snapkv": "#333333", "keydiff": "#7F3C8D", "expected_attention": "#11A579",
    "kvzip": "#000000",
}  # fmt: skip
POLICY_MARKERS = {
    "random": "x",
    "recency": "v",
    "streamingllm": "^",
    "h2o": "s",
    "knorm": "D",
    "tova": "p",
    "snapkv": "P",
    "keydiff": "h",
    "expected_attention": "X",
    "kvzip": "*",
}
POLICY_LABELS = {
    "full": "full cache", "namm": "NAMM", "streamingllm": "StreamingLLM", "h2o": "H2O", "knorm": "L2 norm",
    "tova": "TOVA", "snapkv": "SnapKV", "keydiff": "KeyDiff", "expected_attention": "expected attention",
    "kvzip": "KVzip (reads twice)",
}  # fmt: skip
NAMM_COLOURS = ["#D55E00", "#8C2D04", "#F28E2B", "#B2182B"]  # of several that are not seeds of one
GUESS = "#999999"  # the answer guessed by relation and first letter
GUESS_LABEL = "guess by relation and first letter"
CYCLE = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#999999"]

_SETTINGS: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.92",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "memx",
    "pdf.fonttype": 42,
    "text.parse_math": False,  # names with $ are no formulas
}
_LONGEST_WORD = 100  # characters of a word in a caption, a title or a label


def new_figure(
    panels: int, height: float = 4.6, rows: int = 1, sharey: Literal["none", "row", "all"] = "none"
) -> tuple[Figure, list[Axes]]:
    """A figure of panels side by side, in rows of that height, drawn without a display; panels come row by row."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    matplotlib.rcParams.update(_SETTINGS)
    figure, axes = pyplot.subplots(rows, panels, figsize=(5.6 * panels, height * rows), squeeze=False, sharey=sharey)
    figure.set_layout_engine("constrained")
    return figure, list(axes.flat)


def picture_of(figure: Figure, kind: str) -> bytes:
    """The file of a figure, in which every text is shown as it is; the same figure gives the same bytes.

    Args:
        figure: A figure. Control characters in its texts become escapes, and words without an end are shortened.
        kind: png, svg or pdf.
    """
    _clean_texts(figure)
    picture = io.BytesIO()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with warnings.catch_warnings():  # SVG keeps the text, and a browser has more fonts
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(picture, format=kind, dpi=160, metadata=metadata)
    return picture.getvalue()


def _clean_texts(figure: Figure) -> None:
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        before = text.get_text()
        words = [shortened(word, _LONGEST_WORD) for word in printable(before).split(" ")]
        if (after := " ".join(words)) != before:
            text.set_text(after)


def power_axis(*axes: Any) -> None:
    """Write the ticks of logarithmic axes as powers of ten in plain characters, as 10².

    Args:
        axes: The x or y axes of panels, as `axis.xaxis`.
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for axis in axes:
        axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
        axis.set_minor_formatter(NullFormatter())


def _power(value: float) -> str:
    """10⁻² for 0.01; nothing for what is no power of ten."""
    exponent = log10(value) if value > 0 else 0.5
    if abs(exponent - round(exponent)) > 1e-6:
        return ""
    return "10" + str(round(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Places of labels in the order given, moved apart until neighbours are a gap apart, about where they were."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    groups: list[tuple[float, list[int]]] = []  # the middle of neighbours that touch, and who they are
    for i in order:
        middle, members = places[i], [i]
        while groups and middle - groups[-1][0] < gap * (len(members) + len(groups[-1][1])) / 2:
            members = groups.pop()[1] + members
            middle = sum(places[m] for m in members) / len(members)
        groups.append((middle, members))
    moved = list(places)
    for middle, members in groups:
        for rank, i in enumerate(members):
            moved[i] = middle + gap * (rank - (len(members) - 1) / 2)
    return moved


def caption_below(figure: Figure, text: str, axes: Sequence[Axes], most: int = 24) -> None:
    """One legend below all panels, of at most so many entries, each label once, under a small caption."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    labels = sorted(handles, key=lambda label: label.startswith(GUESS_LABEL))[:most]  # the guess comes last
    if len(handles) > most:
        text += f" · {len(handles) - most} more not in the legend"
    columns = 6 if len(labels) <= 6 else 4
    legend = figure.legend([handles[label] for label in labels], labels, loc="outside lower center", ncols=columns)
    legend.set_title(text)
    legend.get_title().set_fontsize(7.5)
    legend.get_title().set_multialignment("center")
