"""The picture of paper 001's theory: errors of drawn masks, their exact values, bounds that hold and that do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..files import write_whole
from ..results import Row
from ..theory import sketching as theory
from ._report import curve
from ._sketching_theory_claims import ratio

_SEEN = {"same": "the same data", "none": "no data", "independent": "independent data"}
_DOTS = {"marker": "o", "markersize": 4, "capsize": 2, "linestyle": "none"}
_BOUND, _PRINTED = {"linestyle": "--", "linewidth": 1}, {"linestyle": ":", "color": "C3"}
# Shares of failures that the specification measured, by step.
_SPECIFIED = {0.1: 0.064, 0.3: 0.31, 0.5: 0.62, 1.0: 0.98}


def panels(rows: list[Row], path: Path) -> None:
    """Draw the error against draws, step, tail weight, what the mask saw, how often a bound fails, and on a net."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 9), dpi=110, layout="constrained")
    figure.suptitle("The error of a sketched mask: dots drawn, lines exact, dashed bounds, dotted as printed")
    for axes, fill in zip(figure.subplots(2, 3).flat, _PANELS, strict=True):
        fill(axes, rows)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    write_whole(path, lambda stream: figure.savefig(stream, format="png"))


def _line(axes: Any, rows: list[Row], x: str, label: str, colour: str) -> list[Any]:
    """Draw measured dots, the exact line and the bound that holds; return the abscissas."""
    at = [row["key"][x] for row in rows]
    axes.errorbar(at, [row["error"] for row in rows], [row["standard_error"] for row in rows], color=colour, **_DOTS)
    axes.plot(at, [row["exact"] for row in rows], color=colour, label=label)
    axes.plot(at, [row["bound"] for row in rows], color=colour, **_BOUND)
    return at


def _against(name: str, x: str, title: str, label: str, statement: str) -> Callable[[Any, list[Row]], None]:
    def fill(axes: Any, rows: list[Row]) -> None:
        sketch, uniform = (curve(rows, name, mask=mask) for mask in ("sketch", "uniform"))
        at = _line(axes, sketch, x, "sketch", "C0")
        if uniform:
            _line(axes, uniform, x, "uniform draws, Lemma 4.5", "C1")
        axes.plot(at, [row["printed"] for row in sketch], label=f"{statement} as printed", **_PRINTED)
        axes.set(title=title, xlabel=label, ylabel="squared error", yscale="log")
        if x == "draws":
            axes.set_xscale("log")

    return fill


def _tail(axes: Any, rows: list[Row]) -> None:
    sketch, uniform = (curve(rows, "tail", mask=mask) for mask in ("sketch", "uniform"))
    at = [row["tail"] for row in sketch]
    measured, errors, exact = zip(*ratio(sketch, uniform), strict=True)
    axes.errorbar(at, measured, errors, color="C0", **_DOTS)
    axes.plot(at, exact, color="C0", label="exact")
    for name, label, style in (
        ("bound", "Lemma 4.2, corrected", {"color": "C0", **_BOUND}),
        ("printed", "Lemma 4.2 as printed", _PRINTED),
    ):
        values = [a[name] / b["exact"] for a, b in zip(sketch, uniform, strict=True)]
        axes.plot(at, values, label=label, **style)
    for x, y, row in zip(at, measured, sketch, strict=True):
        axes.annotate(row["key"]["law"], (x, y), xytext=(4, 4), textcoords="offset points", fontsize="small")
    axes.set(title="w = w0: sketch / uniform against tail weight", xlabel="d |w0|_2^2 / |w0|_1^2", ylabel="ratio")
    axes.set(xscale="log", yscale="log")
    axes.margins(x=0.15)


def _data(axes: Any, rows: list[Row]) -> None:
    factors = {"same": theory.kappa_squared, "none": lambda n: 1.0, "independent": theory.kappa_independent}
    for colour, (seen, factor) in zip(("C0", "C1", "C2"), factors.items(), strict=True):
        some = curve(rows, "data", seen=seen)
        at = [row["key"]["examples"] for row in some]
        scale = [factor(n) / row["exact"] for n, row in zip(at, some, strict=True)]
        values = [[row[name] * s for row, s in zip(some, scale, strict=True)] for name in ("error", "standard_error")]
        axes.errorbar(at, *values, color=colour, **_DOTS)
        sizes = [2 ** (k / 4) for k in range(4, 29)]
        axes.plot(sizes, [factor(n) for n in sizes], color=colour, label=f"mask found with {_SEEN[seen]}")
    axes.set(title="what the mask saw", xlabel="examples n", ylabel="error / (S/s)", xscale="log")


def _failing(axes: Any, rows: list[Row]) -> None:
    step = curve(rows, "step", mask="sketch")
    axes.plot([row["key"]["step"] for row in step], [row["failing"] for row in step], "o-", color="C3", label="ours")
    axes.plot(_SPECIFIED.keys(), _SPECIFIED.values(), "x", color="black", label="the specification's")
    axes.set(title="Theorem 4.4 as printed, w0 ~ N(0, I)", xlabel="step σ", ylabel="share of w0 for which it is false")


_PANELS = (
    _against("draws", "draws", "at initialization, w = w0, Gaussian quantiles", "draws s", "Lemma 4.2"),
    _against("step", "step", "after a step, w = w0 + σ N(0, I)", "step σ", "Theorem 4.4"),
    _tail,
    _data,
    _failing,
    _against("network", "draws", "linear features of a trained net", "draws s", "Theorem 7.2"),
)
