"""What each layer keeps of the cache: NAMMs, and baselines that tell layers apart, at each size where one does."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from ...errors import MemxError
from ..labels import Table
from ..selection import Drawn, PlotRequest
from ..store.rows import Row
from ..style import caption_below, new_figure
from .curves import Curve
from .looks import Look, evaluation_caption, looks_of, policy_label
from .rows import FULL, at_size, evaluated, in_order, is_namm, prepared, prompts_of, size_label, size_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FLAT = 0.5  # percent: layers that differ by less are alike, a size is rounded to tokens


class Layers(NamedTuple):
    """A policy at a size: percent kept by layer, the mean over NAMMs; members are those of each."""

    policy: str
    package: str
    size: str
    layers: list[int]
    kept: list[float]
    members: list[list[float]]

    @property
    def flat(self) -> bool:
        """Whether every layer keeps the same."""
        return max(self.kept) - min(self.kept) < _FLAT


def draw(request: PlotRequest) -> Drawn:
    """Draw what each layer keeps of the cache, of policies that tell layers apart, with the table."""
    rows = evaluated(request, lambda row: row.metric == "kept_layer", "layers' caches")
    drawn = prepared(rows)
    layers = by_layer(drawn)
    return Drawn(request.write(layers_figure(drawn, layers), rows), layers_table(layers))


def by_layer(rows: Sequence[Row]) -> list[Layers]:
    """What policies keep in each layer, by size, NAMMs first, of prepared rows.

    Raises MemxError if no policy keeps more of one layer than of another.
    """
    groups: dict[tuple[str, str], dict[tuple[str, int], dict[int, float]]] = {}
    packages: dict[str, str] = {}
    for row in rows:
        if row.variant != FULL and (layer := row.labels.layer) is not None:
            lines = groups.setdefault((row.variant, size_of(row)), {})
            lines.setdefault((row.run, row.seed), {})[layer] = row.value
            packages[row.variant] = row.labels.package
    policies = []
    for (policy, size), lines in groups.items():
        layers = sorted(set.intersection(*(set(line) for line in lines.values())))
        kept = [fmean(line[layer] for line in lines.values()) for layer in layers]
        members = [[line[layer] for layer in layers] for line in lines.values()] if len(lines) > 1 else []
        if layers:
            policies.append(Layers(policy, packages[policy], size, layers, kept, members))
    if all(policy.flat for policy in policies):
        raise MemxError(
            "every policy here keeps the same share of each layer",
            hint="plot a NAMM that was evolved with a threshold",
        )
    return sorted(policies, key=lambda layers: not is_namm(layers.policy))


def layers_figure(rows: Sequence[Row], policies: Sequence[Layers]) -> Figure:
    """Draw a panel for each size at which a policy tells layers apart."""
    sizes = in_order(policy.size for policy in policies if not policy.flat)
    columns = min(len(sizes), 2)
    figure, axes = new_figure(columns, 3.9, -(-len(sizes) // columns), sharey="all")
    if columns == 1:
        figure.set_figwidth(8.4)
    looks = looks_of(Curve(policy.policy, policy.package, [], [], []) for policy in policies)
    for axis, size in zip(axes, sizes, strict=False):
        _panel(axis, [policy for policy in policies if policy.size == size], looks)
        axis.set_title(f"Cache kept by layer, {at_size(size)}")
    for axis in axes[len(sizes) :]:
        axis.remove()
    for row in range(0, len(sizes), columns):
        axes[row].set_ylabel("share of the layer's cache kept (%)")
    axes[0].set_ylim(0, 103)
    caption_below(figure, f"{evaluation_caption(rows)} · {prompts_of(rows)}", axes[: len(sizes)])
    return figure


def _panel(axis: Axes, policies: Sequence[Layers], looks: dict[str, Look]) -> None:
    from matplotlib.ticker import MaxNLocator

    for policy in policies:
        look, label = looks[policy.policy], policy_label(policy.policy, looks)
        if policy.flat:
            continue
        for member in policy.members:
            axis.plot(policy.layers, member, color=look.colour, alpha=0.45, linewidth=0.8, zorder=3)
        axis.plot(
            policy.layers, policy.kept, color=look.colour, linestyle=look.line, marker=look.marker,
            zorder=5 if look.strong else 4, linewidth=2.2 if look.strong else 1.3, label=label,
            markersize=5 if look.strong else 4,
        )  # fmt: skip
        if look.strong:
            mean = fmean(policy.kept)
            if not any(other.flat for other in policies):  # whose line would be the same
                axis.axhline(mean, color=look.colour, linewidth=1, linestyle=":", zorder=2)
            axis.annotate(
                f"mean {mean:.3g}%", (1, mean), (2, 0), xycoords=axis.get_yaxis_transform(), va="center", fontsize=8,
                textcoords="offset points", color=look.ink, annotation_clip=False,
            )  # fmt: skip
    if alike := [policy for policy in policies if policy.flat]:
        share = fmean(fmean(policy.kept) for policy in alike)
        names = ", ".join(policy_label(policy.policy, looks) for policy in alike)
        label = f"same in every layer: {names if len(alike) <= 3 else f'{len(alike)} others'}"
        axis.axhline(share, color="0.5", linewidth=1.3, linestyle="--", zorder=1, label=label)
    axis.set_xlabel("layer (0: first layer)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def layers_table(found: Sequence[Layers]) -> Table:
    """The mean, the least and the most that a layer keeps, for policies that tell layers apart."""
    columns = ["size", "policy", "mean %", "lowest %", "in layer", "highest %", "in layer"]
    table = Table("Share of the cache kept by layer", columns, [], [], left=2)
    policies = list(dict.fromkeys(one.policy for one in found))
    for size in in_order(one.size for one in found):
        for one in (one for one in found if one.size == size and not one.flat):
            least, most = (one.kept.index(value) for value in (min(one.kept), max(one.kept)))
            line = [size_label(size), policy_label(one.policy, policies), f"{fmean(one.kept):.1f}"]
            for place in (least, most):
                line += [f"{one.kept[place]:.1f}", str(one.layers[place])]
            table.lines.append(line)
            kept = dict(zip(map(str, one.layers), one.kept, strict=True))
            table.facts.append({"policy": one.policy, "size": size, "mean": fmean(one.kept), "kept": kept})
    return table
