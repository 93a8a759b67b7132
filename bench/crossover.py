"""Where sparse layers stop winning: a training step's speed over dense's against density, losing region included.

python -m bench.crossover RESULTS.json draws docs/crossover.png from the rows that `bench.run` wrote.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparseprune.measure import Row
from sparseprune.speeds import random_mask, sparse, step

from . import cases
from .contest import Contest
from .products import steps_agree

DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
CONV = (cases.RESNET20[0], cases.RESNET20[2], cases.RESNET20[4], cases.VGG19[2], cases.VGG19[4], cases.VGG19[6])
PICTURE = Path(__file__).parent.parent / "docs" / "crossover.png"


def curve(kind: str, case: Any, module: nn.Module, shape: tuple[int, ...], repeats: int) -> list[Row]:
    contest = Contest(f"{kind} forward + backward", f"{case}, fp32")
    contest.calls["dense"] = step(module, shape, "batch_first")
    dense = ["dense"]
    if kind == "conv":
        turned = copy.deepcopy(module).to(memory_format=torch.channels_last)
        contest.calls["dense, channels_last"] = step(turned, shape, "channels_last")
        dense.append("dense, channels_last")
    for density in DENSITIES:
        mask = random_mask(module.weight.shape, density)
        contest.calls[str(density)] = step(sparse(module, mask, "csr"), shape, "batch_last")
        wanted = step(sparse(module, mask, "masked"), shape, "batch_first")()
        agrees = steps_agree(contest.calls[str(density)](), wanted, mask)
        contest.set_beside(str(density), dense, agrees, density=density, detail="chained", shape=str(case))
    return contest.rows(repeats)


def rows(repeats: int = 5) -> list[Row]:
    found: list[Row] = []
    for linear in sorted(cases.LINEAR, key=lambda case: case.batch):
        module = nn.Linear(linear.inputs, linear.outputs, bias=False)
        found += curve("linear", linear, module, (linear.batch, linear.inputs), repeats)
    for conv in CONV:
        module = nn.Conv2d(conv.channels, conv.filters, conv.kernel, conv.stride, conv.padding, bias=False)
        shape = (conv.batch, conv.channels, conv.side, conv.side)
        found += curve("conv", conv, module, shape, max(3, repeats // 3))
    return found


def break_even(points: list[tuple[float, float]]) -> float | None:
    """The density at which the ratio falls through 1, interpolated in logarithms; None if it never does."""
    for (d, ratio), (next_d, next_ratio) in pairwise(points):
        if ratio >= 1 > next_ratio:
            share = math.log(ratio) / math.log(ratio / next_ratio)
            return d * (next_d / d) ** share
    return None


def picture(found: list[Row], path: Path = PICTURE) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 5.5), layout="constrained", sharey=True)
    for axes, kind in zip(panels, ("linear", "conv"), strict=True):
        mine = [row for row in found if row["op"].startswith(kind) and row["ratio"] is not None]
        for i, shape in enumerate(dict.fromkeys(row["shape"] for row in mine)):
            points = sorted((row["density"], row["ratio"]) for row in mine if row["shape"] == shape)
            even = break_even(points)
            label = f"{shape}: {'never' if points[0][1] < 1 else 'always' if even is None else f'below {even:.2f}'}"
            axes.plot(*zip(*points, strict=True), color=f"C{i}", marker="o", markersize=3, label=label)
            if even is not None:
                axes.plot(even, 1, color=f"C{i}", marker="D", markersize=8, markeredgecolor="black")
        axes.axhline(1, color="black", linewidth=1)
        axes.set(xscale="log", yscale="log", xlabel="density", title=f"{kind} layers: csr wins at densities ...")
        axes.set_xticks(DENSITIES, [f"{d:g}" for d in DENSITIES], minor=False)
        axes.minorticks_off()
        axes.legend(fontsize=7, loc="upper right")
    low, high = panels[0].get_ylim()
    low, high = min(low, 0.5), max(high, 2.0)
    for axes in panels:
        axes.axhspan(low, 1, color="red", alpha=0.08)
        axes.text(0.022, 1.04 * low, "dense is faster", fontsize=8)
        axes.set_ylim(low, high)
        ticks = [t for t in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40) if low <= t <= high]
        axes.set_yticks(ticks, [f"{t:g}x" for t in ticks], minor=False)
    panels[0].set_ylabel("dense time / csr time, forward + backward")
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="crossover-*.json under bench/results")
    picture(json.loads(parser.parse_args().results.read_text())["rows"])
