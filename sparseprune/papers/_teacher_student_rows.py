"""Rows of paper 004's simulations: which students, what is measured of them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..results import Row, identity
from ._report import Claim, Experiment, Progress, collect, curve
from ._teacher_student_printed import NOISE, printed
from ._teacher_student_students import DRAWN, UNPRUNED, Setting, Students, in_theory

Key = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """The two settings of section 5.1, Z = 3 and Z = 4."""

    three: Setting
    four: Setting


FULL = Sizes(Setting(2, 6, 500), Setting(5, 20, 500))
QUICK = Sizes(
    replace(FULL.three, N=200, teachers=6, draws=50), replace(FULL.four, N=200, epochs=800, teachers=4, draws=50)
)
BOTH = (0.0, NOISE)
RAW, NORMALISED = "as trained", "normalised"
# What to measure of which students: (setting of the sizes, sigma, the rest of the key).
Plan = Callable[[Sizes], list[tuple[Setting, float, Key]]]


def experiment(
    name: str,
    title: str,
    plan: Plan,
    measures: dict[str, Callable[[Students, Key, int], dict[str, Any]]],
    picture: Callable[[list[Row], Path], None],
    claims: Callable[[list[Row]], list[Claim]],
) -> Experiment:
    """Return the experiment whose rows are measures[key["curve"]](students, key, seed) of a plan."""

    def rows(
        *, out: Path, quick: bool, data_dir: Path | None = None, progress: Progress | None = None, seed: int = 0
    ) -> list[Row]:
        planned = plan(QUICK if quick else FULL)
        done = 0

        def told(now: int, total: int, what: str) -> None:
            nonlocal done
            done = now
            if progress is not None:
                progress(now, total, f"{name} {', '.join(what.split(', ')[-3:])}")  # the end of a key, or a training

        groups: dict[str, Students] = {}
        of_key: dict[str, Students] = {}
        keys = []
        for setting, sigma, more in planned:
            students = Students(setting, sigma, seed, out / "checkpoints", lambda what: told(done, len(planned), what))
            students = groups.setdefault(identity(students.key), students)
            keys.append({**students.key, "draws": setting.draws, **more})
            of_key[identity(keys[-1])] = students

        def compute(key: Key) -> dict[str, Any]:
            return measures[key["curve"]](of_key[identity(key)], key, zlib.crc32(identity(key).encode()))

        return collect(out / f"{name}.jsonl", keys, compute, told)

    return Experiment(name, title, rows, picture, claims, _like)


def _like(rows: list[Row]) -> list[Row]:
    """Return the rows of the first one's curve: those of one table."""
    return curve(rows, rows[0]["key"]["curve"])


def pruned(
    setting: Setting, sigmas: tuple[float, ...], methods: tuple[str, ...], rows: str = RAW
) -> list[tuple[Setting, float, Key]]:
    """Return the plan of errors by method and units kept, of students as trained or with normalised rows."""
    return [
        (setting, sigma, {"curve": "errors", "rows": rows, "method": method, "k": k})
        for sigma in sigmas
        for method in methods
        for k in ((setting.K,) if method == UNPRUNED else setting.units)
    ]


def measure_errors(students: Students, key: Key, seed: int) -> dict[str, Any]:
    """Measure errors after a pruning: mean and deviation over teachers, and over rounds of masks of one student."""
    s, (method, k) = students.setting, (key["method"], key["k"])
    if key["rows"] == NORMALISED:
        students = students.normalised()
    errors = students.errors(method, k, seed)
    values = errors.mean(1)
    found = {"error": float(values.mean()), "deviation": float(values.std()) if len(values) > 1 else 0.0}
    masks = float(errors.std(1).mean()) / math.sqrt(s.draws) if method in DRAWN and s.draws > 1 else 0.0
    beside = {"theory": in_theory(method, k, s), "paper": printed(s.M, s.K, method, students.sigma, k)}
    return {
        "edges": s.edges(k),
        **found,
        "with noise": found["error"] + students.sigma**2 / 2,
        "of a round": masks,
        **beside,
        "values": values.tolist(),
    }


def block(t: torch.Tensor) -> list[Any]:
    """Return a tensor as nested lists of six digits."""
    return torch.round(t, decimals=6).tolist()
