"""The pictures of a run: accuracy against density, what is kept of each layer, and of each size of weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .files import write_whole
from .harness import BINS, DENSE, MASKED, WIDEST
from .results import Row
from .summary import Line

_MARKERS = {"masked": "o", "csr": "x", "auto": "+"}
_STYLES = {"threshold": "-", "multinomial": "--", "without_replacement": ":", "priority": "-."}
# Rows by method, by density.
Panels = dict[float, dict[str, list[Row]]]


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
    styles = _styles([method for method, _ in kinds])
    for method, layout in kinds:
        points = [(x.density, x.accuracy) for x in lines if (x.method, x.layout) == (method, layout) and x.accuracy]
        densities = [density for density, _ in points]
        means = [100 * stat.mean for _, stat in points]
        stds = [100 * stat.std for _, stat in points]
        style = {**styles[method], "label": method if layout == MASKED else f"{method}, {layout}"}
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


def layer_densities(rows: list[Row], path: Path, title: str) -> bool:
    """Draw the share that each layer keeps, the mean over seeds: a panel a density, a line a method.

    Args:
        rows: what `sparseprune.harness.run` returned; those without "layers" are left out.
        path: the PNG, written whole or not at all.
        title: above the picture.

    Returns:
        Whether there was anything to draw.
    """

    def draw(axes: Any, found: list[Row], style: dict[str, Any]) -> None:
        layers = list(found[0]["layers"])
        shares = [_mean([row["layers"][name][0] / row["layers"][name][1] for row in found]) for name in layers]
        axes.plot(range(len(layers)), shares, marker=".", **style)
        axes.set_xticks(range(len(layers)), [name.removesuffix(".weight") for name in layers], rotation=90)
        axes.set_yscale("symlog", linthresh=1e-4)
        axes.set_ylim(0, 1.5)
        axes.set_xlabel("layer")

    return _draw_panels(_panels(rows, "layers"), draw, path, title, "share kept (0 = collapse)")


def weight_histograms(rows: list[Row], path: Path, title: str) -> bool:
    """Draw how many weights of each size at initialization are kept, the mean over seeds; grey: all there are.

    Args:
        rows: what `sparseprune.harness.run` returned; those without "weights" are left out.
        path: the PNG, written whole or not at all.
        title: above the picture.

    Returns:
        Whether there was anything to draw.
    """
    edges = [WIDEST * (2 * i / BINS - 1) for i in range(BINS + 1)]
    every = [row for row in rows if row["key"]["method"] == DENSE and "weights" in row]

    def draw(axes: Any, found: list[Row], style: dict[str, Any]) -> None:
        if every and not axes.patches:
            axes.stairs(_means(every), edges, fill=True, color="0.85", label="all weights")
        axes.stairs(_means(found), edges, **style)
        axes.set_yscale("log")
        axes.set_xlabel("weight / root mean square of its layer")

    return _draw_panels(_panels(rows, "weights"), draw, path, title, "weights kept")


def _means(rows: list[Row]) -> list[float]:
    return [_mean(list(column)) for column in zip(*(row["weights"] for row in rows), strict=True)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _panels(rows: list[Row], field: str) -> Panels:
    """Return the rows of pruned nets that have a field; layouts share masks, so one of a seed is enough."""
    found: dict[float, dict[str, dict[int, Row]]] = {}
    for row in rows:
        key = row["key"]
        if field in row and key["method"] != DENSE:
            found.setdefault(key["density"], {}).setdefault(key["method"], {}).setdefault(key["seed"], row)
    return {
        density: {method: list(seeds.values()) for method, seeds in found[density].items()}
        for density in sorted(found, reverse=True)
    }


def _draw_panels(panels: Panels, draw: Any, path: Path, title: str, what: str) -> bool:
    from matplotlib.figure import Figure

    if not panels:
        return False
    figure = Figure(figsize=(1 + 4 * len(panels), 5), dpi=100, layout="constrained")
    styles = _styles([method for methods in panels.values() for method in methods])
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (density, methods) in zip(grid, panels.items(), strict=True):
        for method, rows in methods.items():
            draw(axes, rows, {**styles[method], "label": method})
        axes.set_title(f"density {density:g}", fontsize="medium")
        axes.grid(alpha=0.3)
    grid[0].set_ylabel(what)
    shown = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown.keys(), fontsize="small", loc="outside right center")
    figure.suptitle(title)
    write_whole(path, lambda stream: figure.savefig(stream, format="png"))
    return True


def _styles(methods: list[str]) -> dict[str, dict[str, Any]]:
    """Return how the lines of methods look: a dash a selector, a colour a score; one of its own for any other dash."""
    colours: dict[str, str] = {}
    found = {}
    for method in dict.fromkeys(methods):
        score, _, selector = method.partition("/")
        colour = colours.setdefault(score if selector in _STYLES else method, f"C{len(colours)}")
        found[method] = {"color": colour, "linestyle": _STYLES.get(selector, (0, (1, 3)))}
    return found


def _axes(axes: Any, densities: list[float]) -> None:
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(densities, [f"{density:g}" for density in densities])
    axes.set_xlabel("density (fraction of weights kept)")
    axes.set_ylabel("test accuracy, %")
    axes.grid(alpha=0.3)
