"""All side-by-side timings on this machine: a table, and one JSON file a suite under bench/results.

python -m bench.run [--only sampler growth synflow] [--repeats 9] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from . import growth, sampler, synflow
from sparseprune.measure import Row, environment

SUITES = {"sampler": sampler.rows, "growth": growth.rows, "synflow": synflow.rows}
RESULTS = Path(__file__).parent / "results"


def table(rows: list[Row]) -> str:
    lines = [f"{'op':20} {'ours ms':>10} {'peer ms':>10} {'ratio':>8}  peer, case"]
    for row in rows:
        ratio = f"{row['ratio']:.1f}x" if row["ratio"] is not None else "WRONG"
        lines.append(
            f"{row['op']:20} {row['ours']['median_ms']:10.2f} {row['theirs']['median_ms']:10.2f} {ratio:>8}"
            f"  {row['peer']}; {row['case']}"
        )
    return "\n".join(lines)


def save(rows: list[Row], suite: str, folder: Path = RESULTS, **more: Any) -> Path:
    about = environment()
    device = re.sub(r"[^a-z0-9]+", "-", (about["gpu"] or about["cpu"]).lower()).strip("-")
    path = folder / f"{suite}-{device}-{about['cores']}-threads.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"environment": about, **more, "rows": rows}, indent=1) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SUITES, default=list(SUITES))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    agree = True
    for suite in arguments.only:
        rows = SUITES[suite](arguments.repeats)
        print(f"{table(rows)}\nwritten to {save(rows, suite, arguments.out)}\n", flush=True)
        agree &= all(row["agrees"] for row in rows)
    if not agree:
        raise SystemExit("a correctness check failed: no ratio is given for it")


if __name__ == "__main__":
    main()
