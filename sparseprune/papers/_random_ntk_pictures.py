"""The pictures of paper 000's E1-E4: our rows, the notebook's numbers and the theory."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..files import write_whole
from ..results import Row
from ..theory import random_ntk as theory
from ._random_ntk_notebook import LAWS, PRINTED_LAWS, PRINTED_MAD, PRINTED_MEANS, PRINTED_WIDTH, limit
from ._report import curve

_BARS = {"marker": "o", "markersize": 4, "capsize": 2}
_PRINTED = {"marker": "x", "linestyle": "none"}


def draw(path: Path, title: str, x: str, y: str, fill: Callable[[Any], None]) -> None:
    """Write one pair of axes as a PNG, whole or not at all."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    fill(axes)
    axes.legend(fontsize="small")
    write_whole(path, lambda stream: figure.savefig(stream, format="png"))


def _means(axes: Any, rows: list[Row], label: str, colour: str) -> None:
    widths = [row["key"]["width"] for row in rows]
    means, errors = ([row[name] for row in rows] for name in ("mean", "standard_error"))
    axes.errorbar(widths, means, errors, color=colour, label=label, **_BARS)
    axes.set_xscale("log", base=2)


def means(rows: list[Row], path: Path) -> None:
    """Draw E1: means of draws with their standard errors, against width."""

    def fill(axes: Any) -> None:
        _means(axes, curve(rows, "full"), "full", "C0")
        _means(axes, curve(rows, "pruned"), "pruned, rescaled", "C1")
        axes.plot(PRINTED_MEANS.keys(), PRINTED_MEANS.values(), color="C1", label="pruned, the authors'", **_PRINTED)
        axes.axhline(limit(rows[0]["key"]), color="black", linewidth=1, label="limit")

    draw(path, "E1: the kernel of random nets", "width", "mean ± standard error", fill)


def laws(rows: list[Row], path: Path) -> None:
    """Draw E2: mean absolute deviation against the share pruned, a colour a law."""
    base = rows[0]["key"]["width"]

    def fill(axes: Any) -> None:
        for colour, law in zip(("C0", "C1", "C2"), LAWS, strict=True):
            some = curve(rows, law)
            pruned = [1 - row["key"]["density"] for row in some]
            keys = [row["key"] for row in some]
            model = [theory.mean_absolute_deviation(key["width"], key["density"]) for key in keys]
            _deviations(axes, some, pruned, law, colour)
            axes.plot(pruned, model, color=colour, linestyle=":")
            scaled = [mad * math.sqrt(PRINTED_WIDTH / base) for mad in PRINTED_LAWS[law]]
            axes.plot(pruned, scaled, color=colour, label=f"{law}, the authors' × sqrt(1024/{base})", **_PRINTED)
        axes.plot([], [], color="black", linestyle=":", label="sqrt(2/π) sqrt((50 + 36/α)/n)")

    draw(path, f"E2: width from {base} up", "share pruned", "mean absolute deviation from the limit", fill)


def _deviations(axes: Any, rows: list[Row], pruned: list[float], label: str, colour: str) -> None:
    deviations, errors = ([row[name] for row in rows] for name in ("mad", "mad_error"))
    axes.errorbar(pruned, deviations, errors, color=colour, label=label, **_BARS)


def spread(rows: list[Row], path: Path) -> None:
    """Draw E3: mean absolute deviation against the share pruned."""
    width = rows[0]["key"]["width"]
    pruned = [1 - row["key"]["density"] for row in rows]

    def fill(axes: Any) -> None:
        _deviations(axes, rows, pruned, "ours", "C0")
        scaled = [mad * math.sqrt(PRINTED_WIDTH / width) for mad in PRINTED_MAD]
        axes.plot(pruned, scaled, color="C1", label=f"the authors' × sqrt(1024/{width})", **_PRINTED)
        model = [theory.mean_absolute_deviation(width, row["key"]["density"]) for row in rows]
        axes.plot(pruned, model, color="black", linestyle=":", label="sqrt(2/π) sqrt((50 + 36/α)/n)")

    draw(path, f"E3: width {width}", "share pruned", "mean absolute deviation from the limit", fill)


def input_pruned(rows: list[Row], path: Path) -> None:
    """Draw E4: means of draws with their standard errors, against width, of both nets."""

    def fill(axes: Any) -> None:
        for colour, name in (("C0", "all layers pruned"), ("C1", "two inputs")):
            some = curve(rows, name)
            key = some[0]["key"]
            _means(axes, some, name, colour)
            axes.axhline(limit(key), color=colour, linestyle="--", linewidth=1, label="limit, inputs kept")
            axes.axhline(limit(key, input_pruned=True), color=colour, linewidth=1, label="limit, mixture over masks")

    draw(path, "E4: the input layer pruned too", "width", "mean ± standard error", fill)
