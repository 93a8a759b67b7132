"""How the samplers grow: time and peak memory from 2^20 to 2^28 scores, at 1 %, 10 % and 100 % of them drawn.

python -m bench.growth draws docs/sampler-growth.png from the rows that `bench.run` wrote.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from sparseprune import sampling
from sparseprune.measure import Row, peak_extra_bytes, side_by_side

SIZES = [1 << power for power in (20, 22, 24, 26, 28)]
FRACTIONS = (0.01, 0.1, 1.0)
SELECTIONS = ("top_k", "priority", "bernoulli")  # at 10 %; the sketches at every fraction
SKETCHES = ("multinomial", "poisson", "systematic")


def case(method: str, w: torch.Tensor, fraction: float, repeats: int) -> list[Row]:
    amount, out, floor = round(fraction * len(w)), torch.zeros_like(w), torch.zeros_like(w)
    seeded = {} if method == "top_k" else {"seed": 1}

    def ours() -> None:
        getattr(sampling, method)(w, amount, transform="abs", output="weights", out=out, **seeded)

    def right() -> bool:
        kept = int(out.count_nonzero())
        return 0.5 * amount < kept <= amount if method in SKETCHES else abs(kept - amount) < 6 * amount**0.5

    few = slice(4096)
    getattr(sampling, method)(w[few], 10, transform="abs", output="weights", out=out[few], **seeded)  # starts threads
    peak = peak_extra_bytes(ours)
    peers = {"floor: torch.mul(a, b, out=c)": lambda: torch.mul(w, w, out=floor)}
    rows = side_by_side(method, f"d = {len(w)}, fraction = {fraction}", ours, peers, right, repeats)
    for row in rows:
        row |= {"d": len(w), "fraction": fraction, "peak_extra_bytes": peak}
    return rows


def rows(repeats: int = 5) -> list[Row]:
    w = torch.randn(10**8, generator=torch.Generator().manual_seed(0))  # the size at which memory is promised:
    found = [
        row for method in ("top_k", "multinomial") for row in case(method, w, 0.1, 3)
    ]  # first, see peak_extra_bytes
    for size in SIZES:
        w = torch.randn(size, generator=torch.Generator().manual_seed(0))
        for method in (*SKETCHES, *SELECTIONS):
            for fraction in FRACTIONS if method in SKETCHES else (0.1,):
                found += case(method, w, fraction, max(3, repeats if size <= 1 << 24 else 3))
    return found


def picture(rows: list[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    shades = dict(zip(FRACTIONS, (":", "-", "--"), strict=True))
    for i, method in enumerate((*SKETCHES, *SELECTIONS)):
        for fraction in FRACTIONS:
            points = [(r["d"], r["ours"]["median_ms"]) for r in rows if (r["op"], r["fraction"]) == (method, fraction)]
            if points:
                d, ms = zip(*sorted(points), strict=True)
                label = f"{method}, {fraction:g} d"
                nanoseconds = [1e6 * t / n for t, n in zip(ms, d, strict=True)]
                axes.plot(d, nanoseconds, shades[fraction], color=f"C{i}", marker="o", markersize=3, label=label)
    floor = sorted({(r["d"], r["theirs"]["median_ms"]) for r in rows if (r["op"], r["fraction"]) == ("top_k", 0.1)})
    axes.plot([d for d, _ in floor], [1e6 * t / d for d, t in floor], color="black", label="one torch.mul: the floor")
    axes.set(xscale="log", yscale="log", xlabel="scores", ylabel="nanoseconds a score")
    axes.set_xticks(SIZES, [f"2^{size.bit_length() - 1}" for size in SIZES], minor=False)
    figure.legend(loc="outside lower center", fontsize=7, ncols=4)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="growth-*.json under bench/results")
    picture(json.loads(parser.parse_args().results.read_text())["rows"], Path("docs/sampler-growth.png"))
