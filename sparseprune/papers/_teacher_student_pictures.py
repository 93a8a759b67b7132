"""Pictures of paper 004's simulations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import write_whole
from ..results import Row
from ._report import curve
from ._teacher_student_claims import errors
from ._teacher_student_printed import NOISE
from ._teacher_student_students import (
    DIVNET,
    DPP_NODE,
    IMPORTANCE_EDGE,
    IMPORTANCE_NODE,
    RANDOM_EDGE,
    RANDOM_NODE,
    SCALED_EDGE,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {
    DPP_NODE: "C0", RANDOM_EDGE: "C1", RANDOM_NODE: "C2", IMPORTANCE_EDGE: "C3", IMPORTANCE_NODE: "C4", DIVNET: "C5",
    SCALED_EDGE: "C6",
}  # fmt: skip


def _draw(axes: Axes, rows: list[Row], M: int, methods: tuple[str, ...], title: str, *, log: bool = False) -> None:
    """Draw errors against the units kept: dotted with noise, dashed closed forms, crosses the paper's."""
    for sigma, style in ((0.0, "-"), (NOISE, ":")):
        cells = errors(rows, M, sigma)
        for method in methods:
            some = [(k, row) for (name, k), row in cells.items() if name == method]
            units = [k for k, _ in some]
            values, bars = ([row[name] for _, row in some] for name in ("error", "deviation"))
            label, colour = (method if not sigma else None), _COLOURS[method]
            axes.errorbar(units, values, bars, color=colour, label=label, linestyle=style, marker="o", ms=3, capsize=2)
            paper = [(k, row["paper"]) for k, row in some if row["paper"] is not None]
            if paper:
                axes.plot(*zip(*paper, strict=True), "x" if not sigma else "+", color=colour)
            if not sigma:
                axes.plot(units, [row["theory"] for _, row in some], color=colour, linestyle="--", linewidth=0.8)
    axes.set(title=title, xlabel="units kept, or as many parameters", ylabel="generalisation error")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")
    if log:
        axes.set_yscale("log")


def table3(rows: list[Row], path: Path) -> None:
    """Draw all methods; lines without and with noise, closed forms dashed, crosses printed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    title = "solid: sigma 0, dotted: .25, dashed: closed forms, x +: printed"
    _draw(left, rows, 2, (DPP_NODE, RANDOM_EDGE, RANDOM_NODE, IMPORTANCE_EDGE, IMPORTANCE_NODE), title, log=True)
    _draw(right, rows, 2, (DPP_NODE, DIVNET, RANDOM_EDGE, SCALED_EDGE), "re-weighted nodes, scaled edges", log=True)
    write_whole(path, lambda stream: figure.savefig(stream, format="png"))


def fig2(rows: list[Row], path: Path) -> None:
    """Draw figure 2's panels A to G."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(17, 8), dpi=110, layout="constrained")
    upper, lower = figure.subplots(2, 4)
    _draw(upper[0], rows, 2, (RANDOM_EDGE, RANDOM_NODE), "A: random, M=2, K=6")
    _draw(upper[1], rows, 2, (IMPORTANCE_EDGE, IMPORTANCE_NODE), "B: importance")
    _draw(upper[2], rows, 2, (DPP_NODE, RANDOM_NODE, IMPORTANCE_NODE), "C: nodes")
    _draw(upper[3], rows, 5, (DPP_NODE, RANDOM_EDGE), "D: M=5, K=20")
    (kernels,) = curve(rows, "kernels")
    titles = ("E: kernel of the fields", "F: Q", "F: R", "G: chance that a 2-DPP keeps both")
    for axes, matrix, title in zip(lower, kernels["matrices"], titles, strict=True):
        figure.colorbar(axes.imshow(matrix, aspect="auto"), ax=axes, shrink=0.7)
        axes.set_title(title)
    write_whole(path, lambda stream: figure.savefig(stream, format="png"))


def heat_maps(rows: list[Row], path: Path) -> None:
    """Draw Q beside R of the first student, and under it at the ansatz, pruned alike: a column a number of units."""
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(row["key"]["method"] for row in rows))
    units = sorted({row["key"]["k"] for row in rows})
    figure = Figure(figsize=(2.2 * len(units), 3.2 * len(methods)), dpi=110, layout="constrained")
    grid = figure.subplots(2 * len(methods), len(units), squeeze=False)
    image: Any = None
    for row in rows:
        place, column = 2 * methods.index(row["key"]["method"]), units.index(row["key"]["k"])
        title = f"{row['key']['method']}, {row['key']['k']}"
        for axes, name, above in (
            (grid[place][column], "matrices", title),
            (grid[place + 1][column], "closed form", "closed form"),
        ):
            lines = [[*q, float("nan"), *r] for q, r in zip(*row[name], strict=True)]
            image = axes.imshow(lines, vmin=0, vmax=1.2)
            axes.set(xticks=[], yticks=[])
            axes.set_title(above, fontsize="small")
    figure.colorbar(image, ax=grid, shrink=0.5, label="Q | R")
    write_whole(path, lambda stream: figure.savefig(stream, format="png"))


def dynamics(rows: list[Row], path: Path) -> None:
    """Draw error, Q and R of runs (thin) over the ODEs' (black), and how far they are apart against N."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), dpi=120, layout="constrained")
    first, middle, last = figure.subplots(1, 3)
    widest = rows[-1]
    for axes, name in ((first, "error"), (middle, "overlap")):
        for run, ode in zip(widest[f"{name}s"], widest[f"{name}s of the ODEs"], strict=True):
            axes.plot(widest["times"], run, linewidth=1, marker=".", markersize=4)
            axes.plot(widest["times"], ode, color="black", linewidth=0.8)
        axes.grid(alpha=0.3)
    first.set(title=f"N = {widest['key']['N']}: points SGD, lines ODEs", xlabel="samples / N", yscale="log")
    first.set_ylabel("generalisation error")
    middle.set(xlabel="samples / N", ylabel="largest R")
    sizes = [row["key"]["N"] for row in rows]
    gaps = [row["gap"] for row in rows]
    last.loglog(sizes, gaps, "o-", label="root mean square")
    last.loglog(sizes, [gaps[0] * (sizes[0] / n) ** 0.5 for n in sizes], "--", label="slope -1/2")
    last.set(xlabel="N", ylabel="|SGD - ODEs| of Q, R, v")
    last.set_xticks(sizes, [str(n) for n in sizes], minor=False)
    last.set_xticks([], minor=True)
    last.grid(alpha=0.3)
    last.legend()
    write_whole(path, lambda stream: figure.savefig(stream, format="png"))
