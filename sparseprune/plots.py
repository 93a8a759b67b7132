"""One picture: accuracy against density, a line a method."""

from __future__ import annotations

from pathlib import Path

from .files import write_whole
from .harness import DENSE
from .summary import Line

_MARKERS = {"masked": "o", "csr": "x", "auto": "+"}
_STYLES = {"threshold": "-", "multinomial": "--", "without_replacement": ":", "priority": "-."}


def accuracy_against_density(lines: list[Line], path: Path, title: str) -> None:
    """Draw mean accuracy with its standard deviation over seeds against density on a log axis.

    A colour a score; solid lines are hard thresholds, broken ones sketches; markers tell layouts; the dense net is the
    horizontal line.

    Args:
        lines: what `summarise` returned.
        path: the PNG, written whole or not at all.
        title: above the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    kinds = list(dict.fromkeys((line.method, line.layout) for line in lines if line.method != DENSE and line.accuracy))
    colours = {score: f"C{i}" for i, score in enumerate(dict.fromkeys(m.partition("/")[0] for m, _ in kinds))}
    for method, layout in kinds:
        score, _, selector = method.partition("/")
        points = [(x.density, x.accuracy) for x in lines if (x.method, x.layout) == (method, layout) and x.accuracy]
        densities = [density for density, _ in points]
        means = [100 * stat.mean for _, stat in points]
        stds = [100 * stat.std for _, stat in points]
        style = {"color": colours[score], "linestyle": _STYLES.get(selector, (0, (1, 3)))}
        style["label"] = method if layout == "masked" else f"{method}, {layout}"
        axes.errorbar(densities, means, stds, marker=_MARKERS[layout], markersize=4, capsize=2, **style)
    for line in lines:
        if line.method == DENSE and line.accuracy:
            mean, std = 100 * line.accuracy.mean, 100 * line.accuracy.std
            axes.axhline(mean, color="black", linewidth=1, label=DENSE)
            axes.axhspan(mean - std, mean + std, color="black", alpha=0.1, linewidth=0)
    _axes(axes, sorted({line.density for line in lines if line.method != DENSE}))
    axes.set_title(title)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small", handlelength=4, loc="center left", bbox_to_anchor=(1.01, 0.5))
    write_whole(path, lambda stream: figure.savefig(stream, format="png"))


def _axes(axes, densities: list[float]) -> None:
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(densities, [f"{density:g}" for density in densities])
    axes.set_xlabel("density (fraction of weights kept)")
    axes.set_ylabel("test accuracy, %")
    axes.grid(alpha=0.3)
