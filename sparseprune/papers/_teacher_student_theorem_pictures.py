"""Pictures of paper 004's theorems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..files import write_whole
from ..results import Row
from ..theory.teacher_student import edge_pruning as edges
from ..theory.teacher_student import node_pruning as nodes
from ._report import curve
from ._statistics import Z as ERRORS
from ._teacher_student_proofs import V_STAR


def theorems(rows: list[Row], path: Path) -> None:
    """Draw closed forms beside draws, Theorem 2's gains, Theorem 3 against N, and Conjecture 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 9), dpi=110, layout="constrained")
    axes = figure.subplots(2, 3)
    for one, (M, Z) in zip(axes[0], ((2, 3), (5, 4)), strict=False):
        _closed_forms(one, rows, M, Z)
    for one, fill in zip([axes[0][2], *axes[1]], (_theorem_2, _masks, _margins, _conjecture_1), strict=True):
        fill(one, rows)
    _finish(figure, axes, path)


def fig4(rows: list[Row], path: Path) -> None:
    """Draw figure 4: A, DPP nodes less random edges; B, DIVNET less scaled random edges; and where A changes sign."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 5), dpi=110, layout="constrained")
    axes = figure.subplots(1, 3)
    some = curve(rows, "margins")
    colours = colormaps["viridis"]
    for row in some:
        Z = row["key"]["Z"]
        style = {"linestyle": "-" if Z >= 4 else "--", "linewidth": 1}
        label = f"Z = {Z}" if Z in (1, 2, 3, 4, 10, 30) else None
        for one, name in zip(axes, ("4", "5"), strict=False):
            colour = colours(Z / 30) if Z >= 4 else f"C{Z}"
            one.plot([Z * c for c in row["share"]], row[name], color=colour, label=label, **style)
    axes[0].set(title="4A: DPP node − random edge, over M v*²", xlabel="Z c", ylim=(-0.01, None))
    axes[1].set(title="4B: DIVNET − random edge, best scale", xlabel="Z c")
    for one in axes[:2]:
        one.axhline(0, color="black", linewidth=0.8)
    copies = [row["key"]["Z"] for row in some]
    axes[2].plot(copies, [row["crossing"] for row in some], "o-", markersize=3, label="c*: edges err less below")
    axes[2].plot(copies, [1 / Z for Z in copies], label="1/Z: Theorem 4's range")
    axes[2].set(title="Theorem 4 holds where c* is above", xlabel="Z", ylabel="share kept", xscale="log", ylim=(0, 1))
    _finish(figure, axes, path)


def _closed_forms(axes: Any, rows: list[Row], M: int, Z: int) -> None:
    """Draw closed forms as lines, what was drawn as points, against the share kept."""
    K = M * Z
    c = torch.linspace(0.01, 1, 100, dtype=torch.float64)
    units = range(1, K + 1)
    laws = [nodes.dpp_law(k, M, Z) for k in units]
    share = [k / K for k in units]
    lines = {
        "random node": (share, [nodes.random_node(k, M, Z, V_STAR) for k in units]),
        "DPP node": (share, [nodes.expected(law, M, V_STAR) for law in laws]),
        "DIVNET": (share, [nodes.expected_reweighted(law, M, V_STAR) for law in laws]),
        "random edge": (c, edges.theorem_3(c, M, Z, V_STAR)),
        "importance edge": (c, edges.importance_edge(c, M, V_STAR)),
    }
    for place, (name, (x, y)) in enumerate(lines.items()):
        axes.plot(x, y, color=f"C{place}", linewidth=1, label=name)
    mine = [row for row in rows if row["key"].get("M") == M and row["key"].get("Z") == Z]
    most = max((row["key"]["N"] for row in curve(mine, "Theorem 3")), default=0)
    points = [
        ("C1", [(row["key"]["k"] / K, row["found"][0]) for row in curve(mine, "k-DPP")]),
        ("C2", [(row["key"]["k"] / K, row["found"][1]) for row in curve(mine, "k-DPP")]),
        ("C3", [(row["key"]["c"], row["found"][0]) for row in curve(mine, "Theorem 3") if row["key"]["N"] == most]),
        ("C4", [(row["key"]["c"], row["found"][0]) for row in curve(mine, "importance edges")]),
    ]
    for colour, some in points:
        axes.plot(*zip(*some, strict=True), "o", color=colour, markersize=4) if some else None
    axes.set(title=f"M = {M}, Z = {Z}: lines closed forms, points drawn", xlabel="share kept", ylabel="error")


def _theorem_2(axes: Any, rows: list[Row]) -> None:
    for row in curve(rows, "Theorem 2"):
        if row["key"]["M"] == 5:
            axes.plot(range(1, 6), row["7"], "o-", markersize=3, label=f"Z = {row['key']['Z']}")
    axes.set(title="Theorem 2 (7), M = 5: random node − DPP node", xlabel="units kept")


def _masks(axes: Any, rows: list[Row]) -> None:
    """Draw the mean over masks against N, with the limit, and the error of the averaged network."""
    some = curve(rows, "Theorem 3")
    for place, c in enumerate(dict.fromkeys(row["key"]["c"] for row in some)):
        mine = [row for row in some if row["key"]["c"] == c]
        off = [row["found"][0] - row["exact"][0] for row in mine]
        spread = [row["errors"][0] * row["key"]["masks"] ** 0.5 for row in mine]
        sizes = [row["key"]["N"] for row in mine]
        bars = [ERRORS * row["errors"][0] for row in mine]
        axes.errorbar(
            sizes, off, bars, color=f"C{place}", marker="o", markersize=3, capsize=2, label=f"c = {c}: mean − (10)"
        )
        axes.plot(sizes, spread, ":", color=f"C{place}")
    axes.set(title="Theorem 3 and Remark 4: dotted, deviation over masks", xlabel="N", xscale="log")


def _margins(axes: Any, rows: list[Row]) -> None:
    for row in curve(rows, "margins"):
        if row["key"]["Z"] <= 5:
            axes.plot(row["share"], row["4"], label=f"Z = {row['key']['Z']}")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(
        title="Theorem 4: (DPP node − random edge) / (M v*²)", xlabel="share kept", xlim=(0, 0.5), ylim=(-0.01, 0.01)
    )


def _conjecture_1(axes: Any, rows: list[Row]) -> None:
    for row in curve(rows, "Conjecture 1"):
        M, Z = row["key"]["M"], row["key"]["Z"]
        share = [k / (M * Z) for k in range(1, M * Z)]
        axes.plot(share, [gap / M for gap in row["gaps"]], "o-", markersize=3, label=f"M = {M}, Z = {Z}")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(title="Conjecture 1: (random node − random edge) / (M v*²)", xlabel="share kept")


def _finish(figure: Any, axes: Any, path: Path) -> None:
    for one in axes.flat:
        one.grid(alpha=0.3)
        one.legend(fontsize="x-small")
    write_whole(path, lambda stream: figure.savefig(stream, format="png"))
