"""All side-by-side timings on this machine: a table, and one JSON file a suite under bench/results.

python -m bench.run [--only products crossover ...] [--repeats 9] [--sparseprop-python PATH] [--out FOLDER]

SparseProp is set beside ours where a Python has it: pip install sparseprop into a venv of its own that has torch, and
give that venv's interpreter (or SPARSEPROP_PYTHON).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from sparseprune.measure import Row, environment

from . import crossover, growth, ntk, online_sgd, products, sampler, synflow

SUITES = {
    "products": products.rows,
    "crossover": crossover.rows,
    "sampler": sampler.rows,
    "growth": growth.rows,
    "synflow": synflow.rows,
    "ntk": ntk.rows,
    "online_sgd": online_sgd.rows,
}
RESULTS = Path(__file__).parent / "results"


def table(rows: list[Row]) -> str:
    lines = [f"{'op':26} {'ours ms':>10} {'peer ms':>10} {'ratio':>8}  peer, case"]
    for row in rows:
        ratio = f"{row['ratio']:.1f}x" if row["ratio"] is not None else "WRONG"
        lines.append(
            f"{row['op']:26} {row['ours']['median_ms']:10.3f} {row['theirs']['median_ms']:10.3f} {ratio:>8}"
            f"  {row['peer']}; {row['case']}"
        )
    return "\n".join(lines)


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def provenance() -> Row:
    """Device, versions and commit: what a number means nothing without."""
    commit = {"commit": _git("rev-parse", "--short", "HEAD"), "dirty": bool(_git("status", "--porcelain"))}
    return {**environment(), **commit, "settings": {name: os.environ.get(name) for name in STEADY}}


def save(rows: list[Row], suite: str, folder: Path = RESULTS, **more: Any) -> Path:
    about = provenance()
    device = re.sub(r"[^a-z0-9]+", "-", (about["gpu"] or about["cpu"]).lower()).strip("-")
    path = folder / f"{suite}-{device}-{about['cores']}-threads.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"environment": about, **more, "rows": rows}, indent=1) + "\n")
    return path


# Threads on cores of their own: two that share one take turns of milliseconds. Freed memory kept by the process: else
# glibc gives megabytes back at every other call, and page faults are what is measured, ours and the peers'.
STEADY = {
    "OMP_PROC_BIND": "true",
    "OMP_PLACES": "cores",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
}


def steady() -> None:
    """Start again in an environment whose times repeat; what the caller has set stays."""
    if not STEADY.keys() <= os.environ.keys():
        os.execve(sys.executable, sys.orig_argv, {**STEADY, **os.environ})


def main() -> None:
    steady()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SUITES, default=list(SUITES))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--sparseprop-python", default=os.environ.get("SPARSEPROP_PYTHON"))
    arguments = parser.parse_args()
    suites = {**SUITES, "products": partial(products.rows, sparseprop=arguments.sparseprop_python)}
    agree = True
    for suite in arguments.only:
        rows = suites[suite](arguments.repeats)
        print(f"{table(rows)}\nwritten to {save(rows, suite, arguments.out)}\n", flush=True)
        agree &= all(row["agrees"] for row in rows)
    if not agree:
        raise SystemExit("a correctness check failed: no ratio is given for it")


if __name__ == "__main__":
    main()
