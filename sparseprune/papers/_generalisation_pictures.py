"""The picture of paper 003: what nets know against the keep probability, the two regimes drawn in."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..files import write_whole
from ..results import Row
from ._generalisation_rows import SPECIFIED, at, keeps, mean, model, values
from ._report import curve

_BARS = {"marker": "o", "markersize": 4, "capsize": 2}
_CROSSES = {"marker": "x", "color": "black", "linestyle": "none", "label": "the specification's, seeds 0 to 9"}


def panels(rows: list[Row], path: Path) -> None:
    """Draw test accuracy and loss, paired gains, what carries the signal, what the noise weighs, and other widths."""
    from matplotlib.figure import Figure

    sweep = curve(rows, "sweep")
    figure = Figure(figsize=(16, 9), dpi=110, layout="constrained")
    net = model(sweep)
    figure.suptitle(
        f"Randomly pruned before training: {len(sweep)} paired seeds, means ± standard errors. Green: mild pruning, "
        f"p ≥ log d / m = {net.mild:.2g}; dashed: over-pruning, p = 1 / (K m log d) = {net.over:.2g}"
    )
    for axes, fill in zip(
        figure.subplots(2, 3).flat, (_accuracy, _loss, _gain, _edges, _weights, _widths), strict=True
    ):
        fill(axes, rows if fill is _widths else sweep)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    write_whole(path, lambda stream: figure.savefig(stream, format="png"))


def _line(axes: Any, rows: list[Row], field: str, **style: Any) -> None:
    middle, off = zip(*(mean(rows, field, p) for p in keeps(rows)), strict=True)
    axes.errorbar(keeps(rows), middle, off, **_BARS, **style)


def _regimes(axes: Any, sweep: list[Row]) -> None:
    """Shade mild pruning, p >= log d / m, and mark over-pruning, p = 1 / (K m log d)."""
    net = model(sweep)
    axes.axvspan(net.mild, 1, color="C2", alpha=0.12)
    axes.axvline(net.over, color="C3", linestyle="--", linewidth=1)
    axes.set(xscale="log", xlabel="keep probability p")


def _accuracy(axes: Any, sweep: list[Row]) -> None:
    net = model(sweep)
    _regimes(axes, sweep)
    _line(axes, sweep, "accuracy", color="C0", label="test accuracy")
    axes.plot(SPECIFIED.keys(), [accuracy for accuracy, _, _ in SPECIFIED.values()], **_CROSSES)
    p = torch.logspace(math.log10(net.over), 0, 200)
    guess, top = 1 / net.classes, max(mean(sweep, "accuracy", q)[0] for q in keeps(sweep))
    for chance, label, style in (
        (net.own_edge(p), "1 − (1 − p)^m", "-"),
        (net.every_class(p), "(1 − (1 − p)^m)^K", ":"),
    ):
        axes.plot(p, guess + (top - guess) * chance, style, color="C1", linewidth=1, label=f"a guess + gain × {label}")
    axes.set(title="test accuracy", ylim=(0, 1))


def _loss(axes: Any, sweep: list[Row]) -> None:
    net = model(sweep)
    _regimes(axes, sweep)
    _line(axes, sweep, "test loss", color="C0", label="test cross-entropy")
    axes.plot(SPECIFIED.keys(), [loss for _, _, loss in SPECIFIED.values()], **_CROSSES)
    axes.axhline(net.guess, color="grey", linestyle=":", label="log K, a guess's")
    axes.set(title="test cross-entropy; the training loss is 0.001", yscale="log")


def _gain(axes: Any, sweep: list[Row]) -> None:
    """Draw each seed's gains over its own unpruned net."""
    for field, colour, sign in (("accuracy", "C0", 1), ("test loss", "C1", -1)):
        gains = sign * (values(sweep, field) - at(sweep, field, 1.0)[:, None])
        label = "accuracy gained" if sign > 0 else "cross-entropy saved"
        axes.plot(keeps(sweep), gains.T, color=colour, linewidth=0.5, alpha=0.3)
        axes.plot(keeps(sweep), gains.mean(0), "o-", color=colour, markersize=4, label=label)
    axes.axhline(0, color="black", linewidth=1)
    _regimes(axes, sweep)
    axes.set(title="gain over p = 1 of the same seed", ylim=(-0.3, 0.3), xlim=(0.03, 1.1))


def _edges(axes: Any, sweep: list[Row]) -> None:
    """Draw how often a class is told right against its own edges, the nets of p <= log d / m together."""
    low = np.array(keeps(sweep)) <= model(sweep).mild
    edges, told = (np.array([row[name] for row in sweep])[:, low].ravel() for name in ("own edges", "of class"))
    most = 8
    groups = [told[edges == count] for count in range(most)] + [told[edges >= most]]
    axes.boxplot(groups, positions=range(most + 1), tick_labels=[*map(str, range(most)), f"{most}+"], widths=0.6)
    axes.plot([], [], color="C1", label=f"median and quartiles of {len(told)} classes")
    axes.set(title="a class, by its edges to its own signal", xlabel="edges kept", ylabel="share told right")


def _weights(axes: Any, sweep: list[Row]) -> None:
    _regimes(axes, sweep)
    _line(axes, sweep, "noise norm", color="C3", label="norm of the weights off the signal")
    _line(axes, sweep, "signal", color="C0", label="signal coefficient of a class")
    _line(axes, sweep, "own edges", color="C2", label="edges a class kept to its signal")
    axes.plot(keeps(sweep), [p * model(sweep).units for p in keeps(sweep)], ":", color="C2", label="m p")
    axes.set(title="what is learned", yscale="symlog")


def _widths(axes: Any, rows: list[Row]) -> None:
    """Draw the accuracy against m p, the edges that a class can expect, for nets of other widths."""
    for name, label in (("half the units", "m / 2"), ("sweep", "m"), ("twice the units", "2 m")):
        if some := curve(rows, name):
            units = model(some).units
            found = [mean(some, "accuracy", p)[0] for p in keeps(some)]
            axes.plot(
                [units * p for p in keeps(some)], found, "o-", markersize=4, label=f"{label} = {units} units a class"
            )
    net = model(curve(rows, "sweep"))
    for value, text in ((math.log(net.classes), "log K"), (math.log(net.dimension), "log d")):
        axes.axvline(value, color="grey", linestyle=":")
        axes.annotate(text, (value, 0.05), xytext=(3, 0), textcoords="offset points")
    axes.set(title="where accuracy falls", xlabel="m p", ylabel="test accuracy", xscale="log", ylim=(0, 1))
