"""The pictures of paper 001: our numbers beside the printed ones."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..files import write_whole
from ..results import Row
from ._sketching_printed import Setting

_MARKS = {"marker": "o", "markersize": 4, "capsize": 2, "linestyle": "none"}


def _figure(path: Path, title: str, panels: int, draw: Callable[[Any, int], None], *, width: float = 5) -> None:
    """Write panels side by side, each drawn by `draw(axes, index)`, as a PNG, whole or not at all."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * panels, 5), dpi=120, layout="constrained")
    figure.suptitle(title)
    for index, axes in enumerate(figure.subplots(1, panels, squeeze=False)[0]):
        draw(axes, index)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    write_whole(path, lambda stream: figure.savefig(stream, format="png"))


def table(
    item: str,
    title: str,
    cells: Mapping[tuple[Setting, str], Mapping[int, float]],
    printed: Callable[[str, Setting, str], list[float]],
    path: Path,
) -> None:
    """Draw the accuracy of every column, a panel a net, a colour a density; crosses are the paper's."""
    nets = list(dict.fromkeys(setting[:2] for setting, _ in cells))
    densities = sorted({setting[2] for setting, _ in cells if setting[2] < 1}, reverse=True)
    columns = list(dict.fromkeys(column for setting, column in cells if setting[2] < 1))

    def draw(axes: Any, index: int) -> None:
        for colour, density in enumerate(densities):
            setting = (*nets[index], density)
            places = [place + 0.1 * colour for place in range(len(columns))]
            ours = [[100 * a for a in cells[setting, column].values()] for column in columns]
            spread = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in ours]
            style = {"color": f"C{colour}", "label": f"density {density:g}", **_MARKS}
            axes.errorbar(places, [statistics.fmean(values) for values in ours], spread, **style)
            theirs = [(place, printed(item, setting, column)) for place, column in zip(places, columns, strict=True)]
            whose = "the paper's" if len(theirs[0][1]) == 1 else "the paper's, mean of its nets"
            crosses = [(place, statistics.fmean(values)) for place, values in theirs if values]
            axes.plot(*zip(*crosses, strict=True), "x", color=f"C{colour}", label=f"{whose}, {density:g}")
        axes.set_xticks(range(len(columns)), columns, rotation=90 if max(map(len, columns)) > 2 else 0)
        axes.set_title(f"{nets[index][1]}, {nets[index][0]}")
        axes.set_ylabel("test accuracy, %")

    _figure(path, f"{item}: {title}", len(nets), draw)


def weights(rows: list[Row], path: Path) -> None:
    """Draw figure 1a: histograms of the initial weights kept in two layers, of the first seed."""
    some = [row for row in rows if row["key"]["seed"] == rows[0]["key"]["seed"]]
    layers = list(some[0]["histograms"])

    def draw(axes: Any, index: int) -> None:
        for row in some:
            found = row["histograms"][layers[index]]
            _steps(axes, found["shares"], -found["edge"], found["edge"], row["key"]["method"].partition("/")[0])
        axes.set(title=layers[index], xlabel="initial weight", ylabel="share of the kept")

    _figure(path, "fig1a: initial weights that masks keep", len(layers), draw)


def _steps(axes: Any, shares: list[float], low: float, high: float, label: str) -> None:
    edges = [low + (high - low) * place / len(shares) for place in range(len(shares) + 1)]
    axes.stairs(shares, edges, label=label)


def scores(rows: list[Row], path: Path) -> None:
    """Draw figure 1b: the scores of the kept among weights chosen uniformly, of the first seed."""
    import numpy as np

    some = [row for row in rows if row["key"]["seed"] == rows[0]["key"]["seed"]]
    present = [np.log10([score for score in row["scores"] if score > 0]) for row in some]
    edges = np.linspace(min(x.min() for x in present if x.size), max(x.max() for x in present if x.size), 50)

    def draw(axes: Any, _: int) -> None:
        for row, values in zip(some, present, strict=True):
            axes.stairs(*np.histogram(values, edges), label=row["key"]["method"])
        axes.set(xlabel="log10 of the dense net's score over its mean", ylabel="weights", yscale="symlog")

    _figure(path, "fig1b: SynFlow scores of what masks keep", 1, draw, width=8)


def norms(rows: list[Row], path: Path) -> None:
    """Draw figure 2: norms against the share remaining, and against those of random masks at the last level."""
    row = rows[0]
    remaining = [100 * 0.8**level for level in range(1, len(row["levels"]) + 1)]

    def draw(axes: Any, index: int) -> None:
        for layer, name in enumerate(row["layers"]):
            found = [level[layer] for level in row["levels"]]
            if index == 0:
                axes.plot(remaining, [x["ticket"] for x in found], color=f"C{layer}", label=f"ticket, {name}")
                random = [x["random"] for x in found]
                axes.plot(remaining, random, color=f"C{layer}", linestyle="--", label=f"random, {name}")
            else:
                low, high = found[-1]["edges"]
                _steps(axes, found[-1]["shares"], low, high, f"random, {name}")
                axes.axvline(found[-1]["ticket"], color=f"C{layer}", label=f"ticket, {name}")
        labels = ("remaining weights, %", "norm of the kept") if index == 0 else ("norm of the kept", "share of masks")
        axes.set(xlabel=labels[0], ylabel=labels[1])

    _figure(path, "fig2: initial weights of winning tickets and of random masks", 2, draw)
