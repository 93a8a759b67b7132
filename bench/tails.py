"""Are sketched masks good where the scores' tails are heavy? Tails of scores beside the accuracies of a finished run.

python -m bench.tails RESULTS.jsonl [...] [--data-dir DIR] [--seeds 3] -> bench/results/pruning-tails.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr

from sparseprune import models
from sparseprune.data import load
from sparseprune.harness import Job
from sparseprune.measure import Row
from sparseprune.methods import Method
from sparseprune.prune import rank
from sparseprune.sampling import draws_for_nnz

from .run import provenance

RESULTS = Path(__file__).parent / "results" / "pruning-tails.json"
SKETCHES = ("multinomial", "without_replacement")


def tails(job: Job, dataset: Any) -> Row:
    """Return what the scores of a job's threshold method are like, and what sketches of them do.

    share: (sum s)^2 / (n sum s^2) over the n scores that are not zero: 1 for equal ones, 2/pi for |Gaussian| ones.
    draws: those for k expected distinct weights, over k. growth: |w m|^2 / |w|^2 of Algorithm 1's m. common: the part
    of the binary random mask that the hard threshold keeps too.
    """
    model = models.build(job.model, classes=dataset.classes, input_shape=dataset.input_shape, seed=job.seed)
    method = Method.parse(job.method)
    data = dataset.scoring_batches(256, seed=job.seed)
    ranking = rank(model, job.density, score=method.score, data=data, seed=job.seed, **method.arguments)
    scores = torch.cat([s.flatten() for s in ranking.scores.values()]).abs().double()
    weights = {name: p.detach() for name, p in model.named_parameters() if name in ranking.scores}
    hard, binary, m = (ranking.masks(each) for each in ("threshold", "without_replacement", "multinomial"))
    before = sum(float(w.square().sum()) for w in weights.values())
    after = sum(float((w * m[name]).square().sum()) for name, w in weights.items())
    kept = round(job.density * scores.numel())
    return {
        "share": float(scores.sum() ** 2 / scores.count_nonzero() / scores.square().sum()),
        "draws": draws_for_nnz(scores, kept) / kept,
        "growth": after / before,
        "common": sum(int((hard[name] & binary[name]).sum()) for name in weights) / kept,
    }


def gains(rows: list[Row]) -> dict[tuple[str, str, float], dict[str, float]]:
    """Return mean paired differences in accuracy, sketch minus hard threshold, by data set, score and density."""
    found: dict[tuple[str, str, float], dict[tuple[str, int], float]] = {}
    for row in rows:
        score, _, selector = row["key"]["method"].partition("/")
        if selector and "accuracy" in row:
            cell = found.setdefault((row["key"]["dataset"], score, row["key"]["density"]), {})
            cell[selector, row["key"]["seed"]] = row["accuracy"]
    return {
        where: {
            selector: statistics.fmean(a - cell["threshold", seed] for (s, seed), a in cell.items() if s == selector)
            for selector in SKETCHES
        }
        for where, cell in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    rows = [json.loads(line) for path in arguments.results for line in path.read_text().splitlines()]
    rows = [row for row in rows if not row["key"]["method"].startswith(("dense", "imp"))]
    difference, datasets, cells = gains(rows), {}, {}
    for row in rows:
        job = Job(**row["key"])
        if job.method.endswith("/threshold") and job.seed < arguments.seeds:
            if job.dataset not in datasets:
                datasets[job.dataset] = load(job.dataset, arguments.data_dir)
            where = (job.dataset, job.method.partition("/")[0], job.density)
            cells.setdefault(where, []).append(tails(job, datasets[job.dataset]))
    out = []
    for where, found in cells.items():
        mean = {name: statistics.fmean(each[name] for each in found) for name in found[0]}
        out.append(dict(zip(("dataset", "score", "density"), where, strict=True)) | mean | {"gain": difference[where]})
        print(*where, *(f"{name} {value:.3g}" for name, value in mean.items()), difference[where])
    told = [row for row in out if row["score"] != "random"]  # whose threshold is a random mask already
    ranks = {
        f"{measure} and the gain of {selector}": list(
            map(float, spearmanr([row[measure] for row in told], [row["gain"][selector] for row in told]))
        )
        for measure in ("share", "growth", "draws")
        for selector in SKETCHES
    }
    for name, (correlation, p) in ranks.items():
        print(f"Spearman of {name}: {correlation:+.2f} (p = {p:.2g})")
    whole = {"environment": provenance(), "seeds": arguments.seeds, "rows": out, "spearman": ranks}
    RESULTS.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
