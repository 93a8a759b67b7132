"""Paper 004's simulator beside the ODEs that its closed forms rest on: the same students, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..results import Row
from ..theory.teacher_student.networks import Network, random_student, random_teacher
from ..theory.teacher_student.odes import integrate
from ..theory.teacher_student.order_parameters import OrderParameters, generalisation_error, order_parameters
from ..theory.teacher_student.simulate import simulate
from . import _teacher_student_pictures as pictures
from ._report import Claim, Experiment, Progress, collect
from ._statistics import equal, log_slope

_M, _K, _V_STAR, _ETA, _SIGMA = 2, 4, 1.0, 0.5, 0.1
_TIMES = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
# N and runs: of a net, its distance from the ODEs goes like 1/sqrt N.
FULL = ((200, 16), (800, 16), (3200, 16), (12800, 8))
QUICK = ((200, 12), (800, 12), (3200, 6))


def _measure(key: dict[str, Any]) -> dict[str, Any]:
    """Return how far students are from the ODEs that start where they start, root mean square over times."""
    n, runs = key["N"], key["runs"]
    first = key["seed"] * 1_000_003 + 1000 * n
    seeds = range(first, first + 2 * runs, 2)
    teachers = [random_teacher(_M, n, _V_STAR, seed) for seed in seeds]
    students = [random_student(_K, n, seed + 1) for seed in seeds]
    teacher, student = (Network(*map(torch.stack, zip(*nets, strict=True))) for nets in (teachers, students))
    starts, found, done = order_parameters(student, teacher), [], 0
    for t in key["times"]:
        student = simulate(teacher, student, round(t * n) - done, eta=_ETA, sigma=_SIGMA, seed=first, first=done)
        done = round(t * n)
        found.append(order_parameters(student, teacher))
    ours = OrderParameters(*map(torch.stack, zip(*found, strict=True)))  # [times, runs, ...]
    each = [integrate(OrderParameters(*(part[r] for part in starts)), key["times"], _ETA, _SIGMA) for r in range(runs)]
    theirs = OrderParameters(
        *(torch.stack([getattr(p, name).expand(len(key["times"]), *getattr(p, name).shape[-rank:]) for p in each], 1)
          for name, rank in (("Q", 2), ("R", 2), ("T", 2), ("v", 1), ("v_star", 1)))
    )  # fmt: skip
    parts = [getattr(ours, name) - getattr(theirs, name) for name in ("Q", "R", "v")]
    gaps = torch.cat([part.flatten(2) for part in parts], dim=2).square().mean((0, 2)).sqrt()
    curves: dict[str, Tensor] = {}
    for name, p in (("", ours), (" of the ODEs", theirs)):
        curves[f"errors{name}"], curves[f"overlaps{name}"] = generalisation_error(p), p.R.abs().amax((-2, -1))
    return {
        "gap": float(gaps.square().mean().sqrt()),
        "times": key["times"],
        "gaps": gaps.tolist(),
        **{name: curve[:, :4].T.tolist() for name, curve in curves.items()},
    }


def rows(
    *, out: Path, quick: bool, data_dir: Path | None = None, progress: Progress | None = None, seed: int = 0
) -> list[Row]:
    """Run students of every N, and their ODEs; see `Rows`."""
    plain = {"M": _M, "K": _K, "v_star": _V_STAR, "eta": _ETA, "sigma": _SIGMA, "times": list(_TIMES), "seed": seed}
    keys = [{"N": n, "runs": runs, **plain} for n, runs in (QUICK if quick else FULL)]
    return collect(out / "dynamics.jsonl", keys, _measure, progress)


def claims(rows: list[Row]) -> list[Claim]:
    """Judge "online SGD tends to the ODEs": by the slope of the logarithm of their distance."""
    text = "online SGD follows the ODEs: Q, R and v differ by 1/sqrt N"
    return [equal(text, *log_slope(rows, "N", "gaps"), -0.5, rival=0.0)]


EXPERIMENT = Experiment("dynamics", "Online SGD beside its ODEs", rows, pictures.dynamics, claims)
