"""The pictures of paper 002: errors against sizes, and functions beside their tickets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_whole
from ..results import Row
from ..theory.lottery import products
from ._report import curve

Fill = Callable[[Any], None]
_STYLES = {"product": "-", "printed": "--"}


def draw(path: Path, panels: list[tuple[str, str, str, Fill]]) -> None:
    """Write axes beside each other, each (title, x, y, fill), as a PNG, whole or not at all."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5 * len(panels), 5), dpi=110, layout="constrained")
    for place, (title, x, y, fill) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1, title=title, xlabel=x, ylabel=y)
        axes.grid(alpha=0.3)
        fill(axes)
        axes.legend(fontsize="small")
    write_whole(path, lambda stream: figure.savefig(stream, format="png"))


def _log_line(axes: Any, rows: list[Row], size: str, label: str, colour: str, style: str = "-") -> None:
    """Draw the medians of the rows' errors with their quartiles, on logarithmic axes."""
    sizes = [row["key"][size] for row in rows]
    low, middle, high = np.transpose([np.quantile(row["errors"], (0.25, 0.5, 0.75)) for row in rows])
    axes.errorbar(
        sizes,
        middle,
        (middle - low, high - middle),
        color=colour,
        linestyle=style,
        label=label,
        marker="o",
        markersize=4,
    )
    axes.set(xscale="log", yscale="log")


def _slope(axes: Any, rows: list[Row], size: str, power: float) -> None:
    """Draw a line of that slope through the first row's median."""
    sizes = np.array([row["key"][size] for row in rows], dtype=float)
    values = np.median(rows[0]["errors"]) * (sizes / sizes[0]) ** power
    axes.plot(sizes, values, color="black", linestyle=":", linewidth=1, label=f"slope {power:g}")


def lemma24(rows: list[Row], path: Path) -> None:
    """Draw the sup error of one weight against the units, by the product and by the paper's route."""

    def fill(axes: Any) -> None:
        for colour, alpha in zip(("C0", "C1", "C2"), (0.3, 0.1, 0.02), strict=True):
            some = {route: [row for row in curve(rows, route) if row["key"]["alpha"] == alpha] for route in _STYLES}
            for route in filter(some.get, _STYLES):
                _log_line(axes, some[route], "units", f"{route}, α = {alpha}", colour, _STYLES[route])
            units = [row["key"]["units"] for row in some["product"]]
            law = [products.median_error(alpha, k) for k in units]
            axes.plot(units, law, color=colour, linestyle=":", linewidth=3, alpha=0.5)
        axes.plot([], [], color="black", linestyle=":", linewidth=3, alpha=0.5, label="2.456 / (k ln(1/|α|))")

    draw(path, [("Lemma 2.4", "random units k", "sup error: median, quartiles", fill)])


def theorem23(rows: list[Row], path: Path) -> None:
    """Draw the sup error against the width, and sin(pi t) beside its tickets."""

    def widths(axes: Any) -> None:
        for route, colour, label in (
            ("product", "C0", "(v*/v_l) w* before v_l, k2 = k1/10"),
            ("few", "C1", "(v*/v_l) w* before v_l, k2/n = 20"),
            ("printed", "C3", "w* before v_l near v*, k2/n = 20"),
        ):
            _log_line(axes, curve(rows, route), "k1", label, colour)
        _slope(axes, curve(rows, "product"), "k1", -1)

    def function(axes: Any) -> None:
        some = curve(rows, "universal")
        for colour, row in zip(("C3", "C1", "C0"), some, strict=True):
            label = f"ticket of k1/n = {row['key']['k1']}: {row['kept']} weights"
            axes.plot(row["t"], row["ticket"], color=colour, label=label)
        axes.plot(some[0]["t"], some[0]["target"], color="black", linestyle="--", label="its interpolant, the target")
        axes.plot(
            some[0]["t"], np.sin(np.pi * np.array(some[0]["t"])), color="grey", linewidth=5, alpha=0.4, label="sin πt"
        )

    first = ("Theorem 2.3: d = 8, n = 4", "random first-layer units a neuron, k1/n", "sup error", widths)
    draw(path, [first, ("A function and its tickets", "t", "", function)])


def theorem21(rows: list[Row], path: Path) -> None:
    """Draw the sup error against the units a weight, a colour a depth."""

    def fill(axes: Any) -> None:
        product = curve(rows, "product")
        for colour, depth in zip(("C0", "C1", "C2"), (2, 3, 4), strict=True):
            some = [row for row in product if row["key"]["depth"] == depth]
            _log_line(axes, some, "k", f"depth {depth} in {2 * depth}", colour)
            bounds = [float(np.median(row["bounds"])) for row in some]
            axes.plot([row["key"]["k"] for row in some], bounds, color=colour, linestyle="--")
        axes.plot([], [], color="black", linestyle="--", label="certificates")
        _slope(axes, [row for row in product if row["key"]["depth"] == 2], "k", -1)

    draw(path, [("Theorem 2.1: d = n = 4", "random units a target weight, k", "sup error", fill)])


def neuron(rows: list[Row], path: Path) -> None:
    """Draw the sup error against the blocks, and a function beside its neuron-subnetworks."""

    def blocks(axes: Any) -> None:
        for colour, name, label in (
            ("C0", "sample", "20 points, d = 10, k1 = 200"),
            ("C1", "function", "a function, C = max|v| / (1 - ε)"),
            ("C3", "function, printed C", "a function, C = max|v|"),
        ):
            _log_line(axes, curve(rows, name), "k2", label, colour)
        _slope(axes, curve(rows, "sample"), "k2", -0.5)

    def function(axes: Any) -> None:
        some = curve(rows, "function")
        t = np.linspace(-1, 1, len(some[0]["target"]))
        for colour, row in zip(("C3", "C1", "C2", "C0", "C4"), some, strict=False):
            axes.plot(
                t, row["prediction"], color=colour, label=f"{int(row['kept'][-1])} units of {20 * row['key']['k2']}"
            )
        axes.plot(t, some[0]["target"], color="black", linestyle="--", label="E h(w) relu(<w, x>)")

    draw(path, [("Remark 3.6", "blocks k2", "sup error", blocks), ("A function and its units", "t", "", function)])


def separation(rows: list[Row], path: Path) -> None:
    """Draw the relative square error against the random weights: tickets, and the floor of neuron-subnetworks."""

    def fill(axes: Any) -> None:
        for place, d in enumerate(dict.fromkeys(row["key"]["d"] for row in rows)):
            for name, style in (("neurons", "--"), ("weights", "-")):
                some = [row for row in curve(rows, name) if row["key"]["d"] == d]
                _log_line(axes, some, "weights", f"{name}, d = {d}", f"C{place}", style)

    title = "One ReLU neuron: neuron-subnetworks at best, weight-subnetworks at most"
    draw(path, [(title, "random weights", "square error / that of 0", fill)])
