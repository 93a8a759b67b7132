"""Rows of a run as if by hand: what a summary and pictures are made of."""

from dataclasses import asdict

from sparseprune.harness import DENSE, Job

_BONUS = {"threshold": 0.0, "multinomial": 0.02}


def rows_of(methods=("magnitude/threshold", "magnitude/multinomial"), densities=(0.5, 0.1), seeds=2, layout="masked"):
    """An accuracy for each job that tells it apart: .95 dense; .8, .82 for a sketch, less .01 a seed."""
    cells = [(DENSE, 1.0), *((method, density) for density in densities for method in methods)]
    rows = []
    for seed in range(seeds):
        for method, density in cells:
            dense = method == DENSE
            accuracy = 0.95 if dense else 0.8 + _BONUS.get(method.partition("/")[2], 0.1) - 0.01 * seed
            kept = 40 if dense else round(40 * density)
            rows.append(
                {
                    "key": key(method, density, seed, "masked" if dense else layout),
                    "accuracy": accuracy,
                    "diverged": False,
                    "losses": [1.0, 0.5],
                    "density": density + 0.001,
                    "prune_ms": 10.0 + seed,
                    "collapsed": [],
                    "layers": {"0.weight": [kept, 40], "2.weight": [0, 8]},
                    "weights": [0] * 15 + [kept, kept] + [0] * 15,
                }
            )
    return rows


def key(method, density, seed, layout="masked"):
    job = Job("digits", "f0", "mlp", method, density, seed, 1, 64, 0.1, False, "cpu", layout=layout)
    assert asdict(job)["method"] == method
    return job.key
