"""How much sums over groups of like score vary under each method, beside the closed forms; and whether they are biased.

python -m bench.variance [--repeats 1000] -> bench/results/sampler-variance.json, docs/sampler-variance.png
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from torch import Tensor

from sparseprune import sampling
from sparseprune.measure import Row

from .run import provenance

SIZE, GROUPS, FRACTIONS = 30_000, 10, (0.01, 0.1)
METHODS = ("multinomial", "poisson", "systematic", "bernoulli", "priority")
FORMS = {"priority": "tau fixed"}
RESULTS = Path(__file__).parent / "results" / "sampler-variance.json"
PICTURE = Path(__file__).parent.parent / "docs" / "sampler-variance.png"


def populations() -> dict[str, Tensor]:
    normal = torch.randn(SIZE, generator=torch.Generator().manual_seed(0))
    return {"Gaussian |w|": normal.abs(), "log-normal(2)": torch.exp(2 * normal)}


def groups_of(scores: Tensor) -> list[Tensor]:
    """Ten groups, from the least score to the largest, each with a tenth of the sum."""
    order = scores.argsort()
    share = scores[order].double().cumsum(0) / scores.double().sum()
    cuts = torch.searchsorted(share, torch.arange(1, GROUPS) / GROUPS)
    return list(order.tensor_split(cuts))


def chances(scores: Tensor, k: int) -> Tensor:
    """min(1, c v) with sum k: what is kept for sure, and the rest in proportion."""
    v = scores.double().sort(descending=True).values
    rest = v.flip(0).cumsum(0).flip(0)
    c = (k - torch.arange(len(v))) / rest
    return (c[int((c * v <= 1).nonzero()[0])] * scores.double()).clamp(max=1.0)


def closed_form(method: str, scores: Tensor, groups: list[Tensor], k: int) -> list[float] | None:
    """Variance of sum v m over each group, relative to (sum v)^2."""
    v = scores.double()
    sums = torch.stack([v[g].sum() for g in groups])
    share = sums / v.sum()
    if method == "multinomial":
        return ((1 / share - 1) / k).tolist()
    if method == "poisson":
        return (1 / (k * share)).tolist()
    if method == "systematic":  # depends on the order of the elements
        return None
    each = v * v * (1 / chances(scores, k) - 1)  # of priority only to first order: its tau varies
    return (torch.stack([each[g].sum() for g in groups]) / sums**2).tolist()


def measure(name: str, scores: Tensor, fraction: float, method: str, repeats: int) -> Row:
    k, groups = round(fraction * len(scores)), groups_of(scores)
    sums, kept = [], 0
    for stream in range(repeats):
        weights = getattr(sampling, method)(scores, k, seed=1, stream=stream, output="weights", dtype=torch.float64)
        sums.append(torch.stack([weights[g].sum() for g in groups]))
        kept += int(weights.count_nonzero())
    exact = torch.stack([scores[g].double().sum() for g in groups])
    relative = torch.stack(sums) / exact
    z = (relative.mean(dim=0) - 1) / (relative.std(dim=0) / math.sqrt(repeats)).clamp(min=1e-12)
    return {
        "scores": name, "fraction": fraction, "method": method, "repeats": repeats, "kept": kept / repeats,
        "measured": relative.var(dim=0).tolist(), "closed_form": closed_form(method, scores, groups, k),
        "z": z.tolist(), "elements": [len(g) for g in groups],
    }  # fmt: skip


def picture(rows: list[Row], path: Path) -> None:
    """Variances as a share of multinomial's closed form."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, grid = plt.subplots(2, 2, figsize=(9, 7), sharex=True, sharey=True, layout="constrained")
    cases = [(name, fraction) for name in populations() for fraction in FRACTIONS]
    x = list(range(1, GROUPS + 1))
    for axes, case in zip(grid.flat, cases, strict=True):
        here = {row["method"]: row for row in rows if (row["scores"], row["fraction"]) == case}
        unit = here["multinomial"]["closed_form"]
        for i, (method, row) in enumerate(here.items()):
            measured = [a / b for a, b in zip(row["measured"], unit, strict=True)]
            axes.plot(x, measured, "osDv^"[i], color=f"C{i}", markersize=5, label=f"{method}, measured")
            if row["closed_form"]:
                form = [a / b for a, b in zip(row["closed_form"], unit, strict=True)]
                style = "--" if method == "priority" else "-"
                axes.plot(x, form, style, color=f"C{i}", linewidth=1, label=f"{method}, {FORMS.get(method, 'exact')}")
        axes.set(title=f"{case[0]}, s = k = {case[1]:.0%} of the scores", ylim=(0, 1.9), xticks=x)
    for axes in grid[1]:
        axes.set_xlabel("tenth of the sum, least scores first")
    for axes in grid[:, 0]:
        axes.set_ylabel("variance of the group's sum\n(multinomial, exact = 1)")
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=7)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--draw", action="store_true", help="only the picture, from the numbers that are there")
    arguments = parser.parse_args()
    if not arguments.draw:
        rows = [
            measure(name, scores, fraction, method, arguments.repeats)
            for name, scores in populations().items()
            for fraction in FRACTIONS
            for method in METHODS
        ]
        RESULTS.write_text(json.dumps({"environment": provenance(), "size": SIZE, "rows": rows}, indent=1) + "\n")
    rows = json.loads(RESULTS.read_text())["rows"]
    for row in rows:
        ratio = [a / b for a, b in zip(row["measured"], row["closed_form"] or row["measured"], strict=True) if b] or [1]
        print(
            f"{row['scores']:13} {row['fraction']:5} {row['method']:11} kept {row['kept']:7.1f}  largest |z| "
            f"{max(map(abs, row['z'])):.1f}  measured/closed form {min(ratio):.2f} ... {max(ratio):.2f}"
        )
    picture(rows, PICTURE)


if __name__ == "__main__":
    main()
