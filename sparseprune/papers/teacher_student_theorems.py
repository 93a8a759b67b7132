"""Paper 004's lemmas, theorems and figure 4: closed forms beside enumeration and draws, with verdicts.

Reference: Acharyya et al., UAI 2021, "Statistical Mechanical Analysis of Neural Network Pruning", sections 3 and 4.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..results import Row, identity
from . import _teacher_student_theorem_claims as judges
from . import _teacher_student_theorem_pictures as pictures
from ._report import Experiment, Progress, collect
from ._teacher_student_proofs import MEASURES

Key = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much to draw.

    Args:
        fields, inputs: Gaussian numbers, and vectors of 50.
        sets: of units, by a k-DPP.
        masks: of edges; of nets with these many inputs.
        teachers: with importance edges.
    """

    fields: int
    inputs: int
    sets: int
    masks: int
    N: tuple[int, ...]
    teachers: int


FULL = Sizes(4_000_000, 400_000, 20_000, 3000, (125, 250, 500, 1000, 2000, 4000), 100)
QUICK = Sizes(400_000, 100_000, 2000, 300, (125, 500, 2000), 20)
_SHARES = (0.166, 0.332, 0.5, 0.666, 0.834)  # as k = 1..5 units of 6
_UNITS = ((2, 3), (3, 2), (1, 4), (4, 1), (3, 3), (4, 2))
_FIGURE_4 = range(1, 31)


def _plan(sizes: Sizes) -> list[Key]:
    """Return what is checked, without seeds."""
    pairs = [{"M": M, "Z": Z} for M in range(1, 6) for Z in range(1, 6)]
    few, many = {"M": 2, "Z": 3}, {"M": 5, "Z": 4}
    return [
        {"curve": "integrals", "samples": sizes.fields},
        {"curve": "equation 13", "N": 50, "samples": sizes.inputs},
        {"curve": "Lemma 1", "N": 50, "samples": sizes.inputs},
        *({"curve": "every set", "M": M, "Z": Z} for M, Z in _UNITS),
        *({"curve": "k-DPP", **few, "k": k, "sets": sizes.sets} for k in range(1, 7)),
        *({"curve": "k-DPP", **many, "k": k, "sets": sizes.sets} for k in range(1, 11)),
        *({"curve": "Theorem 2", **pair} for pair in pairs),
        *({"curve": "Lemma 3", **pair} for pair in (few, many)),
        {"curve": "Lemma 4", "N": 60, "c": 0.3, "masks": 10 * sizes.masks},
        *({"curve": "Theorem 3", **few, "c": c, "N": N, "masks": sizes.masks} for c in _SHARES for N in sizes.N),
        *({"curve": "importance edges", **few, "c": c, "N": 20_000, "teachers": sizes.teachers} for c in _SHARES),
        {"curve": "signs", **few},
        *({"curve": "margins", "Z": Z} for Z in (*range(1, 31), 100, 1000)),
        *({"curve": "Conjecture 1", "M": M, "Z": Z} for M, Z in ((6, 1), (2, 3), (5, 4), (20, 2), (10, 3), (10, 4))),
        {"curve": "equation 18", "most": 12},
    ]


def _collected(out: Path, name: str, keys: list[Key], seed: int, progress: Progress | None) -> list[Row]:
    def tell(done: int, total: int, _: str) -> None:
        if progress is not None:
            progress(done, total, f"{name} {keys[done - 1]['curve']}")

    keys = [{**key, "seed": zlib.crc32(identity(key).encode()) + seed} for key in keys]
    return collect(out / f"{name}.jsonl", keys, lambda key: MEASURES[key["curve"]](key), tell)


def _theorems(
    *, out: Path, quick: bool, data_dir: Path | None = None, progress: Progress | None = None, seed: int = 0
) -> list[Row]:
    return _collected(out, "theorems", _plan(QUICK if quick else FULL), seed, progress)


def _fig4(
    *, out: Path, quick: bool, data_dir: Path | None = None, progress: Progress | None = None, seed: int = 0
) -> list[Row]:
    return _collected(out, "fig4", [{"curve": "margins", "Z": Z} for Z in _FIGURE_4], seed, progress)


def _shown(rows: list[Row]) -> list[Row]:
    """Return a line for every row with draws: their worst distance from the closed form, in standard errors too."""
    lines = []
    for row in rows:
        if "found" in row:
            gaps = [abs(a - b) for a, b in zip(row["found"], row["exact"], strict=True)]
            worst = max(gap / max(error, judges.ROUNDING) for gap, error in zip(gaps, row["errors"], strict=True))
            sizes = {name: row["key"].get(name, "") for name in ("curve", "M", "Z", "k", "c", "N")}
            first = {"found": row["found"][0], "closed form": row["exact"][0]}
            lines.append({"key": sizes, **first, "numbers": len(gaps), "worst, in standard errors": worst})
    return lines


def _margins(rows: list[Row]) -> list[Row]:
    """Return a line for every Z: where edges stop winning, and the differences at the end of the theorems' range."""
    return [
        {
            "key": {"Z": row["key"]["Z"]},
            "1 / Z": 1 / row["key"]["Z"],
            "crossing c*": row["crossing"],
            "DPP node - random edge at 1 / Z": row["4"][-1],
            "DIVNET - random edge, scaled, at 1 / Z": row["5"][-1],
        }
        for row in rows
    ]


EXPERIMENTS = {
    one.name: one
    for one in (
        Experiment(
            "theorems",
            "Closed forms beside enumeration and draws",
            _theorems,
            pictures.theorems,
            judges.of_theorems,
            _shown,
        ),
        Experiment(
            "fig4",
            "Theorems 4 and 5: nodes against edges, differences over M v*^2",
            _fig4,
            pictures.fig4,
            judges.of_fig4,
            _margins,
        ),
    )
}
